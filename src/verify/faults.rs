//! What verification found.

use ledger::merkle::Hash;
use std::collections::{HashMap, HashSet};

/// One fault: the entry's id, its kind, what is wrong. Faults of the tree that are not of one entry
/// have no id.
pub type Row = (Option<i64>, String, String);

/// How many leaves that differ are kept to tell what happened to them.
const KEPT: usize = 100_000;

/// An entry that is not what its leaf says.
#[derive(Debug)]
pub struct Mismatch {
    /// The entry's id.
    pub id: i64,
    /// Index of its leaf.
    pub leaf: u64,
    /// The leaf hash of the checksum that is stored with it; `None`, if there is no entry, or no
    /// checksum of 32 bytes.
    pub found: Option<Hash>,
    /// The leaf hash in the tree; `None`, if there is none.
    pub stored: Option<Hash>,
    /// What its columns and its checksum say, if they do not agree.
    pub own_fault: Option<(&'static str, String)>,
}

/// Faults as they are found.
#[derive(Default)]
pub struct Faults {
    rows: Vec<Row>,
    mismatches: Vec<Mismatch>,
    /// Leaves of which the checkpoints say that the tree is wrong and the entry is right.
    wrong_leaves: HashSet<u64>,
}

impl Faults {
    /// A fault of an entry.
    pub fn of_entry(&mut self, id: i64, kind: &str, detail: String) {
        self.rows.push((Some(id), kind.to_owned(), detail));
    }

    /// A fault of the tree.
    pub fn of_tree(&mut self, kind: &str, detail: String) {
        self.rows.push((None, kind.to_owned(), detail));
    }

    /// An entry that is not what its leaf says.
    pub fn mismatch(&mut self, mismatch: Mismatch) {
        self.mismatches.push(mismatch);
        if self.mismatches.len() > KEPT {
            self.explain_mismatches();
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len() + self.mismatches.len()
    }

    /// By leaf, what the entries say where the tree says something else.
    pub fn leaves_of_entries(&self) -> HashMap<u64, Hash> {
        self.mismatches
            .iter()
            .filter_map(|mismatch| Some((mismatch.leaf, mismatch.found?)))
            .collect()
    }

    /// The checkpoints say that the entries are right in these leaves, and the tree is wrong.
    pub fn blame_tree(&mut self, leaves: impl Iterator<Item = u64>) {
        self.wrong_leaves.extend(leaves);
    }

    /// Tells of each mismatch what happened: where the content of one entry is found in the place
    /// of another, they were exchanged.
    fn explain_mismatches(&mut self) {
        let mismatches = std::mem::take(&mut self.mismatches);
        let sealed_as: HashMap<Hash, i64> =
            mismatches.iter().filter_map(|one| Some((one.stored?, one.id))).collect();
        for one in mismatches {
            let row = if self.wrong_leaves.contains(&one.leaf) {
                (
                    "tree_leaf",
                    format!(
                        "leaf {} of the tree is not that of this entry, which its checkpoint confirms",
                        one.leaf
                    ),
                )
            } else if one.stored.is_none() && one.found.is_some() && one.own_fault.is_none() {
                (
                    "tree_leaf",
                    format!("leaf {} of the tree, that of this entry, is missing", one.leaf),
                )
            } else if let Some(other) = one.found.and_then(|found| sealed_as.get(&found)) {
                (
                    "reordered",
                    format!(
                        "in the place of this entry is the one that was sealed as entry {other}"
                    ),
                )
            } else if let Some((kind, detail)) = one.own_fault {
                (kind, detail)
            } else if one.found.is_none() {
                ("deleted", format!("the entry was sealed as leaf {} and is gone", one.leaf))
            } else {
                let detail =
                    "the entry was changed together with its checksum: another one was sealed";
                ("rewritten", format!("{detail} as leaf {}", one.leaf))
            };
            self.rows.push((Some(one.id), row.0.to_owned(), row.1));
        }
    }

    /// All of them: those of entries in the order of ids, then those of the tree.
    pub fn into_rows(mut self) -> Vec<Row> {
        self.explain_mismatches();
        self.rows.sort_by_key(|(id, ..)| (id.is_none(), *id));
        self.rows
    }
}
