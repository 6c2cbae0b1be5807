//! Checks that the verifier in `verifiers/python` accepts and refuses the same notes, checkpoints,
//! proofs and keys as this crate. The verifier in `verifiers/python` was written from
//! docs/FORMAT.md alone. The test uses valid texts and thousands of nearly valid texts.

use ledger::checkpoint::Checkpoint;
use ledger::cosignature::CosigningKey;
use ledger::merkle::{TileId, TileWriter, inclusion_proof};
use ledger::note::{Note, SigningKey, VerifierKey};
use ledger::tlog_proof::TlogProof;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A Python program that reads JSON lines [kind, text] and prints for each line whether the
/// verifier in Python accepts the text.
const JUDGE: &str = r#"
import json, sys
from lead_audit_verifier import transparency as t
log, witness, leaf = t.VerifierKey(sys.argv[2]), t.VerifierKey(sys.argv[3]), bytes.fromhex(sys.argv[4])
def note(text, **more):
    return t.Note(text, **more).verified_by([log, witness])
def proof(text):
    proof = t.Proof(text)
    if not proof.proves(leaf) or log.name not in proof.note.verified_by([log, witness]) or proof.checkpoint.origin != log.name:
        raise ValueError
judges = {"parsed note": t.Note, "verified note": lambda text: note(text) or 1 / 0, "checkpoint": t.Checkpoint, "key": t.VerifierKey,
          "parsed proof": t.Proof, "verified proof": proof}
for line in sys.stdin:
    kind, text = json.loads(line)
    try:
        judges[kind](text)
        print(1)
    except (ValueError, ZeroDivisionError):
        print(0)
"#;

struct Honest {
    log: SigningKey,
    witness: CosigningKey,
    leaf: [u8; 32],
    /// Valid texts: a checkpoint, a note, a proof and two keys.
    texts: [String; 5],
}

fn honest() -> Honest {
    let mut writer = TileWriter::new();
    (0..9).for_each(|i| writer.push([i; 32]));
    let tiles: BTreeMap<TileId, Vec<[u8; 32]>> = writer.take_changed().into_iter().collect();
    let log = SigningKey::from_seed("example.com/log", &[1; 32]).unwrap();
    let witness = CosigningKey::from_seed("witness.example", &[2; 32]).unwrap();
    let checkpoint = Checkpoint::new("example.com/log", 9, writer.root()).unwrap();
    let mut note = checkpoint.sign(&log).unwrap();
    note.add(witness.cosign(&checkpoint, 1_700_000_000).unwrap()).unwrap();
    let hashes = inclusion_proof(&tiles, 4, 9).unwrap();
    let proof =
        TlogProof { extra: Some(b"more".to_vec()), index: 4, hashes, checkpoint: note.clone() };
    let texts = [
        checkpoint.to_string(),
        note.to_string(),
        proof.to_string(),
        log.verifier().to_string(),
        format!("{}\n", witness.verifier()),
    ];
    Honest { log, witness, leaf: [4; 32], texts }
}

const KINDS: [&str; 6] =
    ["parsed note", "verified note", "checkpoint", "key", "parsed proof", "verified proof"];

fn accepts(honest: &Honest, kind: &str, text: &str) -> bool {
    let witnesses = [honest.witness.verifier().clone()];
    match kind {
        "parsed note" => Note::parse(text.as_bytes()).is_ok(),
        "verified note" => {
            let keys = [honest.log.verifier().clone(), witnesses[0].clone()];
            Note::parse(text.as_bytes()).is_ok_and(|note| note.verify(&keys).is_ok())
        }
        "checkpoint" => Checkpoint::parse(text).is_ok(),
        "key" => VerifierKey::from_text(text).is_ok(),
        "parsed proof" => TlogProof::parse(text.as_bytes()).is_ok(),
        "verified proof" => TlogProof::parse(text.as_bytes()).is_ok_and(|proof| {
            proof.verify(&honest.leaf, honest.log.verifier(), &witnesses).is_ok()
        }),
        _ => panic!("{kind}"),
    }
}

fn python(honest: &Honest, cases: &[(&str, String)]) -> Option<Vec<bool>> {
    let keys = [honest.log.verifier().to_string(), honest.witness.verifier().to_string()];
    let child = Command::new("python3")
        .args(["-B", "-c", &format!("import sys; sys.path.insert(0, sys.argv[1])\n{JUDGE}")])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../verifiers/python/src"))
        .args(keys)
        .arg(hex::encode(honest.leaf))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("there is no python3 here: the verifier in Python was not tested");
            return None;
        }
        Err(error) => panic!("python3: {error}"),
    };
    let input: String =
        cases.iter().map(|case| format!("{}\n", serde_json::to_string(case).unwrap())).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "1").collect())
}

/// Characters that the test inserts into valid texts: valid characters, and characters that
/// resemble valid characters.
const NEAR: [char; 24] = [
    '\n', '\r', '\t', ' ', '\u{a0}', '\u{2003}', '\u{200b}', '\u{85}', '\u{7f}', '\0', '\u{1f}',
    '+', '=', '/', '-', '_', '—', '–', '0', '1', '9', 'A', 'B', '٣',
];

#[test]
fn both_accept_the_same() {
    let honest = honest();
    let mut cases: Vec<(&str, String)> = Vec::new();
    for text in &honest.texts {
        KINDS.iter().for_each(|kind| cases.push((kind, text.clone())));
    }
    let edits = prop::collection::vec(
        (any::<prop::sample::Index>(), 0..4u8, prop::sample::select(&NEAR[..])),
        1..4,
    );
    let mut runner = TestRunner::deterministic();
    for round in 0..1_500 {
        let mut text: Vec<char> = honest.texts[round % honest.texts.len()].chars().collect();
        for (at, how, character) in edits.new_tree(&mut runner).unwrap().current() {
            let at = at.index(text.len() + 1);
            match how {
                0 => text.insert(at, character),
                1 if at < text.len() => text[at] = character,
                2 if at < text.len() => drop(text.remove(at)),
                // Duplicates a line.
                _ => {
                    let start = text[..at]
                        .iter()
                        .rposition(|c| *c == '\n')
                        .map_or(0, |newline| newline + 1);
                    let end = text[at..]
                        .iter()
                        .position(|c| *c == '\n')
                        .map_or(text.len(), |newline| at + newline + 1);
                    let line = text[start..end].to_vec();
                    text.splice(start..start, line);
                }
            }
        }
        let text: String = text.into_iter().collect();
        KINDS.iter().for_each(|kind| cases.push((kind, text.clone())));
    }
    let Some(theirs) = python(&honest, &cases) else { return };
    assert_eq!(theirs.len(), cases.len());
    let mut accepted = BTreeMap::new();
    for ((kind, text), theirs) in cases.iter().zip(theirs) {
        let ours = accepts(&honest, kind, text);
        assert_eq!(
            ours, theirs,
            "the crate says {ours} of this {kind}, Python {theirs}:\n{text:?}"
        );
        *accepted.entry(*kind).or_insert(0) += usize::from(ours);
    }
    // For each kind of text, both implementations must accept the valid original and at least one
    // changed text.
    assert!(
        accepted.len() == KINDS.len() && accepted.values().all(|&count| count > 1),
        "{accepted:?}"
    );
}
