//! Compares the crate `export` with `verifiers/python`, a second verifier that was written from
//! docs/FORMAT.md alone. Both verifiers must accept honest exports, must reject tampered exports,
//! and must reach the same verdict on randomly changed bytes.

mod common;

use common::{Log, entry, parts, run};
use export::verify::{Trust, Verdict};
use proptest::prelude::{any, prop};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::path::{Path, PathBuf};
use std::process::Command;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../verifiers/python/src/lead_audit_verifier")
}

fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        eprintln!("there is no python3 here: the verifier in Python was not tested");
    }
    found
}

/// The keys and checkpoints that a verifier knows.
#[derive(Clone, Default)]
struct Knows {
    key: bool,
    /// Further public keys that the verifier knows, each as the name and the seed of the key.
    keys: Vec<(&'static str, u8)>,
    kept: Vec<String>,
    older: bool,
}

fn with_key() -> Knows {
    Knows { key: true, ..Knows::default() }
}

fn with_kept(note: &str) -> Knows {
    Knows { kept: vec![note.to_owned()], ..Knows::default() }
}

/// Returns the output and the exit status of the Python verifier for these files.
fn python(files: &[&[u8]], knows: &Knows) -> (String, i32) {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: String, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut command = Command::new("python3");
    command.arg(script()).arg("export");
    if knows.key {
        command.arg("--key").arg(common::key().verifier().to_string());
    }
    for &(name, seed) in &knows.keys {
        command.arg("--key").arg(common::key_of(name, seed).verifier().to_string());
    }
    for (i, note) in knows.kept.iter().enumerate() {
        command.arg("--checkpoint").arg(write(format!("kept{i}"), note.as_bytes()));
    }
    if knows.older {
        command.arg("--older");
    }
    for (i, file) in files.iter().enumerate() {
        command.arg(write(format!("file{i}"), file));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (said, output.status.code().unwrap())
}

fn rust(files: &[&[u8]], knows: &Knows) -> Verdict {
    let mut trust = Trust::default();
    if knows.key {
        trust.trust_key(common::key().verifier().clone()).unwrap();
    }
    for &(name, seed) in &knows.keys {
        trust.trust_key(common::key_of(name, seed).verifier().clone()).unwrap();
    }
    for note in &knows.kept {
        trust.know(note.as_bytes(), "kept", &[]).unwrap();
    }
    trust.older = knows.older;
    run(files, &trust).verdict()
}

#[track_caller]
fn both_say(verdict: Verdict, files: &[&[u8]], knows: &Knows) {
    assert_eq!(rust(files, knows), verdict, "the crate");
    let (said, status) = python(files, knows);
    let expected = match verdict {
        Verdict::Intact => 0,
        Verdict::Tampered => 1,
        Verdict::CouldNotTell => 2,
    };
    assert_eq!(status, expected, "{said}");
    assert!(!said.contains("Traceback"), "{said}");
}

fn log() -> Log {
    let mut log = Log::of(&[&[1, 2, 4], &[3, 5, 7, 8, 9], &[10, 11, 12, 13, 14, 15]]);
    log.add(16);
    log.add(18);
    log
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| format!("{line}\n")).collect()
}

fn line_of(lines: &[String], id: i64) -> usize {
    lines
        .iter()
        .position(|line| {
            line.starts_with("{\"checksum\"") && line.contains(&format!(",\"id\":{id},"))
        })
        .unwrap()
}

#[test]
fn honest_exports() {
    if !has_python() {
        return;
    }
    let log = log();
    let whole = log.whole();
    let pieces = [log.history(0, 3, &[]), log.history(3, 8, &[]), log.history(8, 14, &[3])];
    let bytes: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
    both_say(Verdict::Intact, &[whole.as_bytes()], &with_key());
    both_say(Verdict::Intact, &bytes, &with_key());
    both_say(Verdict::Intact, &[pieces.concat().as_bytes()], &with_key());
    both_say(Verdict::CouldNotTell, &[whole.as_bytes()], &Knows::default());
    for size in [3, 8, 14] {
        both_say(Verdict::Intact, &[whole.as_bytes()], &with_kept(log.note_at(size)));
    }
    both_say(
        Verdict::Intact,
        &bytes[2..],
        &Knows { kept: vec![log.note_at(3).into(), log.note_at(14).into()], ..with_key() },
    );
    both_say(Verdict::CouldNotTell, &bytes[1..2], &with_kept(log.note_at(3)));
    let selection = log.selection(&[2, 3, 15], &[8]);
    both_say(Verdict::Intact, &[selection.as_bytes()], &with_key());
    both_say(Verdict::Intact, &[selection.as_bytes()], &with_kept(log.note_at(8)));
    both_say(Verdict::CouldNotTell, &[log.selection(&[], &[]).as_bytes()], &with_key());
    let mut unsigned = Log::new();
    unsigned.signed = false;
    (1..=5).for_each(|id| unsigned.add(id));
    unsigned.seal(&[1, 2, 3, 4, 5]);
    both_say(Verdict::Intact, &[unsigned.whole().as_bytes()], &with_kept(unsigned.note_at(5)));
    both_say(Verdict::CouldNotTell, &[Log::new().whole().as_bytes()], &with_key());
    // Python's library has no zstd before version 3.14, so the Python verifier tells the user to
    // decompress the file.
    let (said, status) = python(&[b"\x28\xb5\x2f\xfd\x00"], &with_key());
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("zstd -dc"), "{said}");
    let (said, status) =
        python(&[b"/"], &Knows { kept: vec!["no checkpoint".into()], ..Knows::default() });
    assert_eq!(status, 2, "{said}");
}

#[test]
fn changed_entries() {
    if !has_python() {
        return;
    }
    let log = log();
    let honest = lines(&log.whole());
    for id in [1, 3, 9, 10, 15, 16] {
        let at = line_of(&honest, id);
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut changed = honest.clone();
            change(&mut changed);
            both_say(Verdict::Tampered, &[changed.concat().as_bytes()], &with_key());
        };
        with(&|lines| lines[at] = lines[at].replace("u-17", "u-18"));
        with(&|lines| drop(lines.remove(at)));
        with(&|lines| lines.insert(at, honest[at].clone()));
        with(&|lines| lines.swap(at, at + 1));
        with(&|lines| {
            lines[at] = lines[at]
                .replace("\"entry\":{", "\"entry\": {")
                .replace("\"unsealed\":{", "\"unsealed\": {")
        });
        if id < 16 {
            // In the export, the line of a changed entry contains the leaf that was sealed. A
            // forger removes this leaf from the line, and writes a matching checksum into the line.
            let parts = parts(&entry(id, "eve"));
            with(&|lines| {
                lines[at] = format!(
                    "{{\"checksum\":\"{}\",\"entry\":{}}}\n",
                    parts.checksum, parts.preimage
                )
            });
            // Writes a forged line with the sealed leaf, which is not the leaf of the changed
            // entry.
            let leaf = hex::encode(common::leaf(&log.entries[&id]));
            with(&|lines| {
                lines[at] = format!(
                    "{{\"checksum\":\"{}\",\"entry\":{},\"leaf\":\"{leaf}\"}}\n",
                    parts.checksum, parts.preimage
                );
            });
            let mut lost = log.clone();
            lost.entries.remove(&id);
            both_say(Verdict::Tampered, &[lost.whole().as_bytes()], &with_key());
        }
    }
    let parts = parts(&entry(6, "eve"));
    let mut more = honest.clone();
    more.insert(
        line_of(&honest, 7),
        format!("{{\"checksum\":\"{}\",\"entry\":{}}}\n", parts.checksum, parts.preimage),
    );
    both_say(Verdict::Tampered, &[more.concat().as_bytes()], &with_key());
}

#[test]
fn changed_checkpoints_and_histories() {
    if !has_python() {
        return;
    }
    let honest = log();
    let whole = lines(&honest.whole());
    for at in (0..whole.len()).filter(|&at| whole[at].starts_with("{\"checkpoint\"")) {
        let mut less = whole.clone();
        less.remove(at);
        both_say(Verdict::Tampered, &[less.concat().as_bytes()], &with_key());
    }
    let strip = |log: &mut Log, which: usize| {
        let checkpoint = &log.checkpoints[which];
        log.checkpoints[which].note =
            common::note(common::ORIGIN, checkpoint.tree_size, checkpoint.root, false);
    };
    for which in 0..3 {
        let mut stripped = honest.clone();
        strip(&mut stripped, which);
        let verdict = if which == 0 { Verdict::Intact } else { Verdict::Tampered };
        both_say(verdict, &[stripped.whole().as_bytes()], &with_key());
    }
    // Makes a forged history that is consistent and signed with the log's key, but differs from the
    // kept checkpoint.
    let mut forged = Log::new();
    for (i, ids) in
        [vec![1, 2, 4], vec![3, 5, 7, 8, 9], vec![10, 11, 12, 13, 14, 15]].into_iter().enumerate()
    {
        ids.iter().for_each(|&id| forged.add(id));
        if i == 1 {
            forged.entries.insert(5, entry(5, "nobody"));
        }
        forged.seal(&ids);
    }
    both_say(Verdict::Intact, &[forged.whole().as_bytes()], &with_key());
    both_say(Verdict::Tampered, &[forged.whole().as_bytes()], &with_kept(honest.note_at(8)));
    both_say(
        Verdict::Tampered,
        &[forged.whole().as_bytes()],
        &Knows { kept: vec![honest.note_at(14).into()], ..with_key() },
    );
    both_say(
        Verdict::Tampered,
        &[forged.history(8, 14, &[3]).as_bytes(), honest.whole().as_bytes()],
        &with_key(),
    );
    // Seals entry 2 in two checkpoints. The two checkpoints are first in one export, and then in
    // two consecutive exports.
    let twice = Log::of(&[&[1, 2], &[2, 3]]);
    both_say(Verdict::Tampered, &[twice.whole().as_bytes()], &with_key());
    both_say(
        Verdict::Tampered,
        &[twice.history(0, 2, &[]).as_bytes(), twice.history(2, 4, &[]).as_bytes()],
        &with_key(),
    );
    // Makes an export without the newest entries.
    let cut = honest.history(0, 8, &[]);
    let knows = Knows { kept: vec![honest.note_at(14).into()], ..with_key() };
    both_say(Verdict::Tampered, &[cut.as_bytes()], &knows);
    both_say(Verdict::Intact, &[cut.as_bytes()], &Knows { older: true, ..knows });
    for keep in [1, 2, 3, 7, whole.len() - 1] {
        both_say(Verdict::Tampered, &[whole[..keep].concat().as_bytes()], &with_key());
    }
    both_say(Verdict::Tampered, &[b""], &with_key());
    both_say(Verdict::Tampered, &[b"hello\n"], &with_key());
    both_say(
        Verdict::Tampered,
        &[&[honest.history(0, 3, &[]).as_bytes(), honest.history(8, 14, &[]).as_bytes()].concat()],
        &with_key(),
    );
}

#[test]
fn changed_selections() {
    if !has_python() {
        return;
    }
    let log = log();
    let honest = lines(&log.selection(&[2, 3, 15], &[8]));
    for (id, other) in [(2, 4), (3, 9), (15, 14)] {
        let parts = parts(&log.entries[&other]);
        let at = line_of(&honest, id);
        let mut changed = honest.clone();
        let rest = changed[at].split_once(",\"index\"").unwrap().1.to_owned();
        changed[at] = format!(
            "{{\"checksum\":\"{}\",\"entry\":{},\"index\"{rest}",
            parts.checksum, parts.preimage
        );
        both_say(Verdict::Tampered, &[changed.concat().as_bytes()], &with_key());
        let mut less = honest.clone();
        less.remove(at);
        both_say(Verdict::Tampered, &[less.concat().as_bytes()], &with_key());
    }
    let other = Log::of(&[&[1, 2, 4], &[3, 5, 6, 7, 8]]);
    both_say(Verdict::Tampered, &[honest.concat().as_bytes()], &with_kept(other.note_at(8)));
}

/// Checks that both verifiers reach the same verdict on randomly changed bytes. The environment
/// variable LEAD_AUDIT_PYTHON_CASES sets the number of cases, by default 40.
#[test]
fn both_verifiers_reach_the_same_verdict() {
    if !has_python() {
        return;
    }
    let cases = std::env::var("LEAD_AUDIT_PYTHON_CASES").map_or(40, |cases| cases.parse().unwrap());
    let log = log();
    let texts = [log.whole(), log.selection(&[2, 3, 15], &[8]), log.history(3, 14, &[])];
    let knows = Knows { kept: vec![log.note_at(8).into()], ..with_key() };
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4u8, b' '..=b'~');
    let mut runner = TestRunner::deterministic();
    let mut tampered = 0;
    for _ in 0..cases {
        let (text, at, how, byte) = edit.new_tree(&mut runner).unwrap().current();
        let text = text.get(&texts);
        let mut changed = text.as_bytes().to_vec();
        let at = at.index(changed.len());
        match how {
            0 => changed[at] = byte,
            1 => changed.insert(at, byte),
            2 => drop(changed.remove(at)),
            _ => {
                // Replaces a hexadecimal digit by another digit, so that more of the changed lines
                // can still be parsed.
                let near = changed[at..]
                    .iter()
                    .position(u8::is_ascii_hexdigit)
                    .map_or(at, |after| at + after);
                changed[near] = if changed[near] == b'1' { b'2' } else { b'1' };
            }
        }
        let verdict = rust(&[&changed], &knows);
        let (said, status) = python(&[&changed], &knows);
        let expected = [Verdict::Intact, Verdict::Tampered, Verdict::CouldNotTell][status as usize];
        assert_eq!(
            expected,
            verdict,
            "{said}\nbyte {at}, {how}, {byte}:\n{}",
            String::from_utf8_lossy(&changed)
        );
        tampered += usize::from(verdict == Verdict::Tampered);
    }
    assert!(tampered * 2 > cases, "{tampered} of {cases}");
}

const BEFORE: &str = "lead_audit/7d4c1f0e-52a9-4b7e-9d3b-0c6f5e1a2b84";
const AFTER: &str = "example.com/sales";

#[test]
fn changes_of_key_and_origin() {
    if !has_python() {
        return;
    }
    let grow = |log: &mut Log, ids: &[i64]| {
        ids.iter().for_each(|&id| log.add(id));
        log.seal(ids);
    };
    for with_former in [true, false] {
        let mut log = Log::new();
        (log.origin, log.signed) = (BEFORE.into(), false);
        grow(&mut log, &[1, 2]);
        log.change_key(3, common::ORIGIN, Some(7), with_former);
        grow(&mut log, &[4, 5]);
        log.change_key(6, common::ORIGIN, Some(8), with_former);
        grow(&mut log, &[7, 8]);
        log.change_key(9, AFTER, Some(9), with_former);
        grow(&mut log, &[10, 11]);
        let all = vec![(common::ORIGIN, 7), (common::ORIGIN, 8), (AFTER, 9)];
        let knows = |keys: &[(&'static str, u8)]| Knows { keys: keys.to_vec(), ..Knows::default() };
        let whole = log.whole();
        both_say(Verdict::Intact, &[whole.as_bytes()], &knows(&all));
        both_say(Verdict::Intact, &[whole.as_bytes()], &knows(&all[2..]));
        both_say(Verdict::CouldNotTell, &[whole.as_bytes()], &Knows::default());
        for size in [2, 3, 6, 9, 11] {
            both_say(Verdict::Intact, &[whole.as_bytes()], &with_kept(log.note_at(size)));
        }
        for (old, size) in [(&all[..1], 6), (&all[1..2], 9)] {
            both_say(Verdict::CouldNotTell, &[whole.as_bytes()], &knows(old));
            both_say(Verdict::CouldNotTell, &[log.history(0, size, &[]).as_bytes()], &knows(old));
            let with_newest = Knows { kept: vec![log.note_at(11).into()], ..knows(old) };
            both_say(Verdict::Intact, &[whole.as_bytes()], &with_newest);
        }
        for at in [2, 3, 5, 6, 8, 9] {
            let pieces = [log.history(0, at, &[]), log.history(at, 11, &[])];
            let bytes: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            both_say(Verdict::Intact, &bytes, &knows(&all[2..]));
            both_say(Verdict::CouldNotTell, &bytes[1..], &knows(&all[..1]));
        }
        let selection = log.selection(&[2, 6, 11], &[]);
        both_say(Verdict::Intact, &[selection.as_bytes()], &knows(&all[2..]));
        both_say(Verdict::CouldNotTell, &[selection.as_bytes()], &knows(&all[..1]));
        // Both verifiers must find a change of the KEY entry.
        let honest = lines(&whole);
        let at = line_of(&honest, 6);
        let mut changed = honest.clone();
        changed[at] = changed[at].replace("\"old_origin\":\"example", "\"old_origin\":\"Example");
        both_say(Verdict::Tampered, &[changed.concat().as_bytes()], &knows(&all));
    }
    // Both verifiers must find a forged change of the origin without a KEY entry, with any
    // signature.
    for (signed, former) in
        [(false, None), (true, None), (false, Some((common::ORIGIN.to_owned(), 7)))]
    {
        let mut forged = log();
        let last = forged.checkpoints.pop().unwrap();
        forged.leaves.truncate(8);
        (forged.origin, forged.signed, forged.seed, forged.former) =
            ("evil".into(), signed, 9, former);
        forged.seal(&last.entry_ids.iter().collect::<Vec<_>>());
        both_say(Verdict::Tampered, &[forged.whole().as_bytes()], &with_key());
        both_say(Verdict::Tampered, &[forged.whole().as_bytes()], &with_kept(forged.note_at(3)));
        let selection = forged.selection(&[1], &[]);
        let verdict = if signed { Verdict::CouldNotTell } else { Verdict::Tampered };
        both_say(verdict, &[selection.as_bytes()], &with_key());
    }
    // Versions of the extension before 1.1 wrote no KEY entry for a change of the key. A
    // later checkpoint with a signature of a known key confirms that the log changed its key.
    let mut legacy = Log::new();
    (legacy.origin, legacy.signed) = (BEFORE.into(), false);
    grow(&mut legacy, &[1]);
    (legacy.origin, legacy.signed) = (common::ORIGIN.into(), true);
    grow(&mut legacy, &[2]);
    both_say(Verdict::Tampered, &[legacy.whole().as_bytes()], &with_key());
    grow(&mut legacy, &[3]);
    both_say(Verdict::Intact, &[legacy.whole().as_bytes()], &with_key());
}

#[test]
fn unknown_parts_are_not_judged() {
    if !has_python() {
        return;
    }
    let other = "{\"export\":{\"exported_at\":\"2000-01-01T00:00:00.000000Z\",\"kind\":\"archive\",\"version\":2}}\n{\"x\":1}\nhello\n";
    both_say(Verdict::CouldNotTell, &[other.as_bytes()], &with_key());
    for (from, to) in [
        ("\"user_id\":\"u-17\"", "\"user_id\":\"u-17\",\"user_zone\":1"),
        ("\"format\":1", "\"format\":2"),
    ] {
        let mut log = Log::new();
        let preimage = parts(&entry(1, "u-17")).preimage.replace(from, to);
        let checksum: [u8; 32] =
            sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&preimage))
                .into();
        log.entries.insert(1, export::write::StoredEntry::Entry { preimage, checksum });
        log.add(2);
        log.seal(&[1, 2]);
        for text in [log.whole(), log.selection(&[1, 2], &[])] {
            both_say(Verdict::CouldNotTell, &[text.as_bytes()], &with_key());
            both_say(
                Verdict::Tampered,
                &[text.replacen("u-17", "u-18", 1).as_bytes()],
                &with_key(),
            );
        }
    }
    for (checksum, verdict) in [(None, Verdict::CouldNotTell), (Some([1; 32]), Verdict::Tampered)] {
        let mut log = log();
        let checksum = checksum
            .or_else(|| hex::decode(parts(&log.entries[&5]).checksum).unwrap().try_into().ok());
        for id in [5, 16] {
            log.entries.insert(
                id,
                export::write::StoredEntry::Unknown { column: "extra".into(), checksum },
            );
        }
        both_say(verdict, &[log.whole().as_bytes()], &with_key());
        both_say(verdict, &[log.selection(&[5, 7], &[]).as_bytes()], &with_key());
    }
}

#[test]
fn values_nested_deeply() {
    if !has_python() {
        return;
    }
    for depth in [500, 5000] {
        let row = format!("{{\"id\":1,\"j\":{}1{}}}", "[{\"a\":".repeat(depth), "}]".repeat(depth));
        let watched = ledger::Entry {
            operation: "SNAPSHOT",
            outcome: "ok",
            row_values: Some(&row),
            id: 1,
            ..Default::default()
        };
        let checksum = watched.checksum(&mut Vec::new());
        let mut log = Log::new();
        log.entries.insert(1, export::write::read_stored(&watched, Some(&checksum), None));
        log.seal(&[1]);
        both_say(Verdict::Intact, &[log.whole().as_bytes()], &with_key());
        let changed = log.whole().replacen("[{\"a\":1", "[{\"a\":2", 1);
        both_say(Verdict::Tampered, &[changed.as_bytes()], &with_key());
    }
}
