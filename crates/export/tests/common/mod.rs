//! Makes a log in memory, and writes exports of this log.
#![allow(dead_code, reason = "each test uses its part")]

use export::read::{Limits, open_reader};
use export::verify::{Fault, Report, Source, Trust, Verdict, verify};
use export::write::{
    Compression, HistoryWriter, Output, SelectionWriter, StoredCheckpoint, StoredEntry, read_stored,
};
use export::{Header, Kind, Place};
use ledger::IdRanges;
use ledger::checkpoint::Checkpoint;
use ledger::merkle::{Frontier, Hash, TileWriter, consistency_proof, inclusion_proof};
use ledger::note::SigningKey;
use ledger::{Entry, KeyChange};
use std::collections::BTreeMap;
use std::io::Cursor;

pub const ORIGIN: &str = "example.com/leads";

pub fn key() -> SigningKey {
    key_of(ORIGIN, 7)
}

/// Returns a key with this name that is derived from the seed.
pub fn key_of(name: &str, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, &[seed; 32]).unwrap()
}

/// The entries of a log, and the tree that contains them.
#[derive(Clone, Debug)]
pub struct Log {
    pub entries: BTreeMap<i64, StoredEntry>,
    pub leaves: Vec<Hash>,
    pub checkpoints: Vec<StoredCheckpoint>,
    pub signed: bool,
    /// The origin of the log, which is also the name of its key.
    pub origin: String,
    pub seed: u8,
    /// Name and seed of a second key, which also signs the next checkpoint.
    pub former: Option<(String, u8)>,
}

impl Log {
    pub fn new() -> Self {
        let (entries, leaves, checkpoints) = (BTreeMap::new(), Vec::new(), Vec::new());
        Log {
            entries,
            leaves,
            checkpoints,
            signed: true,
            origin: ORIGIN.into(),
            seed: 7,
            former: None,
        }
    }

    /// Returns a log with one checkpoint for each list of ids in `batches`.
    pub fn of(batches: &[&[i64]]) -> Self {
        let mut log = Self::new();
        for batch in batches {
            batch.iter().for_each(|&id| log.add(id));
            log.seal(batch);
        }
        log
    }

    pub fn add(&mut self, id: i64) {
        self.entries.insert(id, entry(id, "u-17"));
    }

    pub fn seal(&mut self, ids: &[i64]) {
        let ids: IdRanges = ids.iter().copied().collect();
        let sealed: Vec<Hash> = ids.iter().map(|id| leaf(&self.entries[&id])).collect();
        self.leaves.extend(sealed);
        let (tree_size, root) =
            (self.leaves.len() as u64, self.edge(self.leaves.len() as u64).root());
        let checkpoint = Checkpoint::new(&*self.origin, tree_size, root).unwrap();
        let mut note = ledger::note::Note::new(checkpoint.to_string()).unwrap();
        if self.signed {
            note.add(key_of(&self.origin, self.seed).sign(note.text())).unwrap();
        }
        if let Some((name, seed)) = self.former.take() {
            note.add(key_of(&name, seed).sign(note.text())).unwrap();
        }
        let note = note.to_string();
        let sealed_at = 839_000_000_000_000 + 1_000_000 * tree_size as i64;
        self.checkpoints.push(StoredCheckpoint {
            tree_size,
            root,
            entry_ids: ids,
            sealed_at,
            note,
        });
    }

    /// Changes the origin and the key of the log, and seals the KEY entry of the change. If
    /// `with_former` is true, the old key also signs the checkpoint of the KEY entry.
    pub fn change_key(&mut self, id: i64, origin: &str, seed: Option<u8>, with_former: bool) {
        let public =
            |log: &Log| log.signed.then(|| key_of(&log.origin, log.seed).verifier().to_string());
        let (old_origin, old_key) = (self.origin.clone(), public(self));
        self.former = (with_former && self.signed).then(|| (self.origin.clone(), self.seed));
        (self.origin, self.signed) = (origin.to_owned(), seed.is_some());
        self.seed = seed.unwrap_or(self.seed);
        let change =
            KeyChange { old_origin, old_key, new_origin: origin.to_owned(), new_key: public(self) };
        self.entries.insert(id, key_entry(id, &change));
        self.seal(&[id]);
    }

    pub fn edge(&self, size: u64) -> Frontier {
        let mut edge = Frontier::new();
        self.leaves[..size as usize].iter().for_each(|leaf| edge.push(*leaf));
        edge
    }

    pub fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn header(&self, kind: Kind, to: u64) -> Header {
        let last = self.checkpoints.iter().rfind(|checkpoint| checkpoint.tree_size <= to);
        let origin = last.map(|last| last.note.split_once('\n').unwrap_or_default().0.to_owned());
        Header { exported_at: 839_000_100_000_000, kind, origin, selection: None }
    }

    /// Returns the export of a history from the tree size `from` to the tree size `to`. If `to` is
    /// the newest size, the export contains the unsealed entries too.
    pub fn history(&self, from: u64, to: u64, older: &[u64]) -> String {
        String::from_utf8(self.history_into(
            from,
            to,
            older,
            Output::new(Vec::new(), Compression::None, 0).unwrap(),
        ))
        .unwrap()
    }

    pub fn history_into(
        &self,
        from: u64,
        to: u64,
        older: &[u64],
        output: Output<Vec<u8>>,
    ) -> Vec<u8> {
        let note = self
            .checkpoints
            .iter()
            .find(|checkpoint| checkpoint.tree_size == from)
            .map(|checkpoint| checkpoint.note.clone());
        let mut writer =
            HistoryWriter::begin(output, self.header(Kind::History, to), self.edge(from), note)
                .unwrap();
        for &older in older {
            writer.consistency(older, self.consistency(older, from)).unwrap();
        }
        self.write_on(writer, from, to)
    }

    /// Returns the rest of an interrupted export. The file is complete up to the tree size `from`.
    pub fn rest_into(&self, from: u64, output: Output<Vec<u8>>) -> Vec<u8> {
        self.write_on(HistoryWriter::resume(output, self.edge(from)), from, self.size())
    }

    fn write_on(&self, mut writer: HistoryWriter<Vec<u8>>, from: u64, to: u64) -> Vec<u8> {
        let mut size = from;
        for checkpoint in self
            .checkpoints
            .iter()
            .filter(|checkpoint| checkpoint.tree_size > from && checkpoint.tree_size <= to)
        {
            let leaves = self.leaves[size as usize..checkpoint.tree_size as usize].to_vec();
            let (ids, next) = (checkpoint.entry_ids.clone(), checkpoint.tree_size);
            writer.checkpoint(checkpoint.clone(), leaves, || None).unwrap();
            for id in ids.iter() {
                if let Some(stored) = self.entries.get(&id) {
                    writer.entry(id, stored).unwrap();
                }
            }
            writer.end_checkpoint().unwrap();
            size = next;
        }
        if to == self.size() {
            for (id, stored) in &self.entries {
                if !self.checkpoints.iter().any(|checkpoint| checkpoint.entry_ids.contains(*id)) {
                    writer.unsealed(*id, stored, false).unwrap();
                }
            }
        }
        writer.end(size).unwrap().finish().unwrap()
    }

    pub fn whole(&self) -> String {
        self.history(0, self.size(), &[])
    }

    pub fn selection(&self, ids: &[i64], older: &[u64]) -> String {
        let output = Output::new(Vec::new(), Compression::None, 0).unwrap();
        let checkpoint = self.checkpoints.last().cloned();
        let mut writer =
            SelectionWriter::begin(output, self.header(Kind::Selection, self.size()), checkpoint)
                .unwrap();
        for &older in older {
            writer.consistency(older, self.consistency(older, self.size())).unwrap();
        }
        let mut size = 0;
        for checkpoint in &self.checkpoints {
            for (index, id) in (size..).zip(checkpoint.entry_ids.iter()) {
                if ids.contains(&id) {
                    let proof = inclusion_proof(&self.tiles(), index, self.size()).unwrap();
                    writer
                        .entry(
                            id,
                            &self.entries[&id],
                            Place { index, proof },
                            self.leaves[index as usize],
                        )
                        .unwrap();
                }
            }
            size = checkpoint.tree_size;
        }
        String::from_utf8(writer.end().unwrap().finish().unwrap()).unwrap()
    }

    fn tiles(&self) -> BTreeMap<ledger::merkle::TileId, Vec<Hash>> {
        let mut tiles = TileWriter::new();
        self.leaves.iter().for_each(|leaf| tiles.push(*leaf));
        tiles.take_changed().into_iter().collect()
    }

    fn consistency(&self, from: u64, to: u64) -> Vec<Hash> {
        consistency_proof(&self.tiles(), from, to).unwrap()
    }

    pub fn note_at(&self, size: u64) -> &str {
        &self.checkpoints.iter().find(|checkpoint| checkpoint.tree_size == size).unwrap().note
    }
}

pub fn note(origin: &str, size: u64, root: Hash, signed: bool) -> String {
    let checkpoint = Checkpoint::new(origin, size, root).unwrap();
    if signed { checkpoint.sign(&key()).unwrap().to_string() } else { checkpoint.to_string() }
}

/// Returns an entry in the form in which the extension writes it.
pub fn entry(id: i64, user: &str) -> StoredEntry {
    let watch_id = *b"0123456789abcdef";
    let (key, row) = (
        format!(r#"{{"id":{id}}}"#),
        format!(r#"{{"email":"é\"{id}@example.com","id":{id},"price":1.10}}"#),
    );
    let entry = Entry {
        id,
        txid: 700 + id as u64,
        occurred_at: 839_000_000_000_000 + id * 1000,
        watch_id: Some(watch_id),
        key_hash: Some(ledger::key_hash(&watch_id, key.as_bytes())),
        relation: Some(16_412),
        backend_pid: Some(4711),
        table_schema: Some("public"),
        table_name: Some("leads"),
        operation: "INSERT",
        outcome: "ok",
        row_key: Some(&key),
        row_values: Some(&row),
        user_id: Some(user),
        ..Entry::default()
    };
    let checksum = entry.checksum(&mut Vec::new());
    read_stored(&entry, Some(&checksum), None)
}

/// Returns the KEY entry of a change of key or origin.
pub fn key_entry(id: i64, change: &KeyChange) -> StoredEntry {
    let details = change.to_details();
    let entry = Entry {
        id,
        txid: 700 + id as u64,
        occurred_at: 839_000_000_000_000 + id * 1000,
        operation: KeyChange::OPERATION,
        outcome: "ok",
        details: Some(&details),
        ..Entry::default()
    };
    let checksum = entry.checksum(&mut Vec::new());
    read_stored(&entry, Some(&checksum), None)
}

pub fn leaf(stored: &StoredEntry) -> Hash {
    stored.leaf().unwrap()
}

/// The result of verifying exports.
pub struct Outcome {
    pub report: Report,
    pub faults: Vec<Fault>,
}

impl Outcome {
    /// Returns the kind and the ids of each fault that was found.
    pub fn named(&self) -> Vec<(&'static str, Option<(i64, i64)>)> {
        self.faults.iter().map(|fault| (fault.kind.name(), fault.ids)).collect()
    }

    pub fn verdict(&self) -> Verdict {
        self.report.verdict()
    }

    pub fn shown(&self) -> String {
        let faults: Vec<_> = self.faults.iter().map(ToString::to_string).collect();
        format!("{}\n{:#?}", faults.join("\n"), self.report)
    }
}

pub fn limits() -> Limits {
    Limits { line: 1 << 20, block: 700 }
}

pub fn run(files: &[&[u8]], trust: &Trust) -> Outcome {
    let sources = files.iter().enumerate().map(|(i, file)| Source {
        name: format!("file{}", i + 1),
        reader: open_reader(Cursor::new(file.to_vec())).unwrap(),
    });
    let mut faults = Vec::new();
    let report =
        verify(sources.collect(), trust, limits(), &mut |fault| faults.push(fault), &mut |_| {})
            .unwrap();
    assert_eq!(report.fault_count() + report.not_judged, faults.len() as u64);
    Outcome { report, faults }
}

pub fn with_key() -> Trust {
    let mut trust = Trust::default();
    trust.trust_key(key().verifier().clone()).unwrap();
    trust
}

pub fn with_checkpoint(note: &str) -> Trust {
    let mut trust = Trust::default();
    trust.know(note.as_bytes(), "kept", &[]).unwrap();
    trust
}

/// The preimage and the checksum of an entry, as a line of an export contains them.
pub struct Parts {
    pub preimage: String,
    pub checksum: String,
}

pub fn parts(stored: &StoredEntry) -> Parts {
    match stored {
        StoredEntry::Entry { preimage, checksum } => {
            Parts { preimage: preimage.clone(), checksum: hex::encode(checksum) }
        }
        other => panic!("{other:?}"),
    }
}
