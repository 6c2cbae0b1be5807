//! Collects the faults that verification finds.

use ledger::merkle::Hash;
use std::collections::{HashMap, HashSet};

/// One fault: the entry's id, the kind of fault and the detail. The id is `None` for a fault of the
/// tree that concerns no single entry.
pub type Row = (Option<i64>, String, String);

/// Maximum number of mismatches in memory. If memory contains more mismatches, verification turns
/// them into faults at once, and not only at its end.
const KEPT: usize = 100_000;

/// An entry that is missing or differs from its leaf.
#[derive(Debug)]
pub struct Mismatch {
    /// The entry's id.
    pub id: i64,
    /// The index of the entry's leaf.
    pub leaf: u64,
    /// The leaf hash of the entry's stored checksum. The field is `None` if the entry is missing,
    /// or if its checksum does not have 32 bytes.
    pub found: Option<Hash>,
    /// The leaf hash in the stored tree. The field is `None` if the leaf is missing in the stored
    /// tree.
    pub stored: Option<Hash>,
    /// The kind and the detail of the entry's own fault, if the entry has one. An own fault, for
    /// example a wrong checksum, does not depend on the leaf.
    pub own_fault: Option<(&'static str, String)>,
}

/// The faults that verification has found so far.
#[derive(Default)]
pub struct Faults {
    rows: Vec<Row>,
    mismatches: Vec<Mismatch>,
    /// The indexes of the stored leaves that are wrong. If the leaf hash of the entry replaces the
    /// wrong stored leaf, the tree has the root that the checkpoint states.
    wrong_leaves: HashSet<u64>,
}

impl Faults {
    /// Adds a fault of an entry.
    pub fn of_entry(&mut self, id: i64, kind: &str, detail: String) {
        self.rows.push((Some(id), kind.to_owned(), detail));
    }

    /// Adds a fault of the tree.
    pub fn of_tree(&mut self, kind: &str, detail: String) {
        self.rows.push((None, kind.to_owned(), detail));
    }

    /// Adds an entry that is missing or differs from its leaf.
    pub fn mismatch(&mut self, mismatch: Mismatch) {
        self.mismatches.push(mismatch);
        if self.mismatches.len() > KEPT {
            self.explain_mismatches();
        }
    }

    /// Returns the number of faults.
    pub fn len(&self) -> usize {
        self.rows.len() + self.mismatches.len()
    }

    /// Returns the leaf hashes of the entries that differ from their leaves, by the index of the
    /// leaf.
    pub fn leaves_of_entries(&self) -> HashMap<u64, Hash> {
        self.mismatches
            .iter()
            .filter_map(|mismatch| Some((mismatch.leaf, mismatch.found?)))
            .collect()
    }

    /// Marks the stored leaves with these indexes as wrong. The function is called when a
    /// checkpoint confirms the entries and not these stored leaves.
    pub fn blame_tree(&mut self, leaves: impl Iterator<Item = u64>) {
        self.wrong_leaves.extend(leaves);
    }

    /// Adds a fault for each mismatch. For example, the fault is `reordered` if the entry has the
    /// leaf hash that was sealed for an entry with another id.
    fn explain_mismatches(&mut self) {
        let mismatches = std::mem::take(&mut self.mismatches);
        let sealed_as: HashMap<Hash, i64> =
            mismatches.iter().filter_map(|one| Some((one.stored?, one.id))).collect();
        for one in mismatches {
            let row = if self.wrong_leaves.contains(&one.leaf) {
                (
                    "tree_leaf",
                    format!(
                        "leaf {} of the tree is not that of this entry, which its checkpoint \
                         confirms",
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

    /// Returns all faults: first the faults of entries in the order of ids, then the faults of the
    /// tree.
    pub fn into_rows(mut self) -> Vec<Row> {
        self.explain_mismatches();
        self.rows.sort_by_key(|(id, ..)| (id.is_none(), *id));
        self.rows
    }
}
