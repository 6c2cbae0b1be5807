//! Tests the examples of exports in docs/FORMAT.md, section 18, which
//! `verifiers/python/tests/tree_examples.py` generates. The crate `export` must find the examples
//! intact, must find changes in them, and must write the same bytes.

mod common;

use common::{Outcome, limits};
use export::read::open_reader;
use export::verify::{Source, Trust, Verdict, verify};
use export::write::{
    Compression, HistoryWriter, Output, SelectionWriter, StoredCheckpoint, StoredEntry,
};
use export::{Header, Kind, Place};
use ledger::IdRanges;
use ledger::checkpoint::Checkpoint;
use ledger::leaf_hash;
use ledger::merkle::{Frontier, Hash, TileId, TileWriter, consistency_proof, inclusion_proof};
use ledger::note::{SigningKey, VerifierKey};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/FORMAT.md"))
        .unwrap()
}

/// Returns the contents of the fenced blocks in docs/FORMAT.md that have this info string.
fn blocks(info: &str) -> Vec<String> {
    let (page, fence) = (page(), format!("\n```{info}\n"));
    let blocks = page.split(&fence).skip(1);
    blocks.map(|rest| rest.split("\n```").next().unwrap().to_owned() + "\n").collect()
}

fn block(info: &str) -> String {
    let mut blocks = blocks(info);
    assert_eq!(blocks.len(), 1, "{info}");
    blocks.remove(0)
}

/// Returns a value from the first block with the info string `text key` in docs/FORMAT.md, section
/// 14.
fn key(what: &str) -> String {
    let block = &blocks("text key")[0];
    block.lines().find_map(|line| line.strip_prefix(what)).unwrap().trim().to_owned()
}

fn run(file: &str, trust: &Trust) -> Outcome {
    let source = Source {
        name: "example".into(),
        reader: open_reader(Cursor::new(file.as_bytes().to_vec())).unwrap(),
    };
    let mut faults = Vec::new();
    let report =
        verify(vec![source], trust, limits(), &mut |fault| faults.push(fault), &mut |_| {})
            .unwrap();
    Outcome { report, faults }
}

fn trust(key_known: bool, kept: &[&str]) -> Trust {
    let mut trust = Trust::default();
    if key_known {
        trust.trust_key(VerifierKey::from_text(&key("verifier")).unwrap()).unwrap();
    }
    for note in kept {
        trust.know(note.as_bytes(), "kept", &[]).unwrap();
    }
    trust
}

/// The log of docs/FORMAT.md, section 15: preimages with their checksums, leaves and tiles.
struct Log {
    entries: Vec<(String, Hash)>,
    leaves: Vec<Hash>,
    tiles: BTreeMap<TileId, Vec<Hash>>,
    key: SigningKey,
}

fn log() -> Log {
    // The checkpoint seals the examples 1, 2, 3, 4 and 6, and does not seal example 5.
    let (preimages, hashes) = (blocks("text preimage"), blocks("text hashes"));
    let checksum = |block: &str| -> Hash {
        let line = block.lines().find_map(|line| line.strip_prefix("checksum")).unwrap();
        hex::decode(line.trim()).unwrap().try_into().unwrap()
    };
    let entries: Vec<_> = [0, 1, 2, 3, 5, 4]
        .iter()
        .map(|&i| (preimages[i].trim_end_matches('\n').to_owned(), checksum(&hashes[i])))
        .collect();
    let leaves: Vec<Hash> = entries[..5].iter().map(|(_, checksum)| leaf_hash(checksum)).collect();
    let mut tiles = TileWriter::new();
    leaves.iter().for_each(|leaf| tiles.push(*leaf));
    let key = SigningKey::from_text(&key("signing")).unwrap();
    Log { entries, leaves, tiles: tiles.take_changed().into_iter().collect(), key }
}

impl Log {
    fn stored(&self, i: usize) -> StoredEntry {
        let (preimage, checksum) = self.entries[i].clone();
        StoredEntry::Entry { preimage, checksum }
    }

    fn checkpoint(&self, size: usize, ids: &[i64]) -> StoredCheckpoint {
        let mut edge = Frontier::new();
        self.leaves[..size].iter().for_each(|leaf| edge.push(*leaf));
        let (tree_size, root) = (size as u64, edge.root());
        let note = Checkpoint::new("example.com/crm", tree_size, root)
            .unwrap()
            .sign(&self.key)
            .unwrap()
            .to_string();
        StoredCheckpoint {
            tree_size,
            root,
            entry_ids: ids.iter().copied().collect::<IdRanges>(),
            sealed_at: NEW_YEAR,
            note,
        }
    }
}

/// The time 2026-01-01T00:00:00Z, in microseconds since 2000.
const NEW_YEAR: i64 = 9_497 * 86_400_000_000;

fn header(kind: Kind, selection: Option<&str>) -> Header {
    Header {
        exported_at: NEW_YEAR,
        kind,
        origin: Some("example.com/crm".into()),
        selection: selection.map(str::to_owned),
    }
}

#[test]
fn the_examples_are_intact() {
    let log = log();
    let notes = [log.checkpoint(3, &[1, 2, 3]).note, log.checkpoint(5, &[4, 5]).note];
    for (info, entries, unsealed) in [("json history", 5, 1), ("json selection", 1, 0)] {
        let text = block(info);
        for trust in [
            trust(true, &[]),
            trust(false, &[&notes[0]]),
            trust(false, &[&notes[1]]),
            trust(true, &[&notes[0], &notes[1]]),
        ] {
            let outcome = run(&text, &trust);
            assert_eq!(outcome.verdict(), Verdict::Intact, "{}", outcome.shown());
            assert_eq!((outcome.report.entries, outcome.report.unsealed), (entries, unsealed));
        }
        assert_eq!(run(&text, &trust(false, &[])).verdict(), Verdict::CouldNotTell);
        assert_eq!(
            run(&text.replacen("lead_app", "lead_apq", 1), &trust(true, &[])).verdict(),
            Verdict::Tampered
        );
    }
}

#[test]
fn the_crate_writes_the_examples() {
    let log = log();
    let output = || Output::new(Vec::new(), Compression::None, 0).unwrap();
    let mut writer =
        HistoryWriter::begin(output(), header(Kind::History, None), Frontier::new(), None).unwrap();
    for (from, size, ids) in [(0, 3, &[1, 2, 3][..]), (3, 5, &[4, 5])] {
        writer
            .checkpoint(log.checkpoint(size, ids), log.leaves[from..size].to_vec(), || None)
            .unwrap();
        (from..size).zip(ids).for_each(|(i, id)| writer.entry(*id, &log.stored(i)).unwrap());
        writer.end_checkpoint().unwrap();
    }
    writer.unsealed(i64::MAX, &log.stored(5), false).unwrap();
    let written = writer.end(5).unwrap().finish().unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), block("json history"));

    let header = header(Kind::Selection, Some("entry 3"));
    let mut writer =
        SelectionWriter::begin(output(), header, Some(log.checkpoint(5, &[4, 5]))).unwrap();
    writer.consistency(3, consistency_proof(&log.tiles, 3, 5).unwrap()).unwrap();
    let place = Place { index: 2, proof: inclusion_proof(&log.tiles, 2, 5).unwrap() };
    writer.entry(3, &log.stored(2), place, log.leaves[2]).unwrap();
    let written = writer.end().unwrap().finish().unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), block("json selection"));
}
