//! Collects the entries of one checkpoint while the verifier reads these entries.
//!
//! As long as the entries follow in the expected order, [`PendingCheckpoint::arrive`] returns their
//! leaves at once. From the first unexpected entry on, [`PendingCheckpoint`] keeps all entries.
//! Only after the last entry of the checkpoint can the verifier tell whether an entry is missing,
//! is out of place, or does not belong to the checkpoint.

use super::line::{EntryLine, Signers};
use ledger::IdRanges;
use ledger::KeyChange;
use ledger::merkle::{Frontier, Hash};
use std::collections::{BTreeMap, HashMap};

/// Maximum number of entries that a [`PendingCheckpoint`] keeps.
const MAX_KEPT: usize = 1 << 20;

/// Maximum number of malformed lines that a [`PendingCheckpoint`] keeps.
const MAX_MALFORMED: usize = 64;

/// A checkpoint of which the verifier has not read all entries yet, with the entries that the
/// verifier keeps in memory.
pub(super) struct PendingCheckpoint {
    pub tree_size: u64,
    pub root: Hash,
    /// The origin and signers of the checkpoint's note. The origin and signers are judged after all
    /// entries of the checkpoint were read. The value is None if the note cannot be read.
    pub said: Option<Said>,
    /// Whether a known key has signed the checkpoint.
    pub signed: bool,
    /// The changes of the log's key and origin that the checkpoint's entries record.
    pub key_changes: Vec<KeyChange>,
    pub edge: Option<Vec<Hash>>,
    pub ids: IdRanges,
    pub line: u64,
    /// Number of leaves that the checkpoint adds to the tree.
    pub leaves: u64,
    /// Whether the number of ids in `ids` equals `leaves`. If the numbers differ, `ids` cannot be
    /// the ids of the added leaves.
    pub plausible: bool,
    /// The index of a range in `ids`, and the next expected id, which is in this range.
    next: Option<(usize, i64)>,
    /// All entries that were read from the first unexpected entry on.
    kept: Vec<Arrival>,
    /// Number of entries that were not kept because `MAX_KEPT` entries were kept already.
    pub dropped: u64,
    /// The malformed lines that were kept, each as the number of the line and the error.
    pub malformed: Vec<(u64, String)>,
}

/// The origin and the signers in a checkpoint's note.
pub(super) struct Said {
    pub origin: String,
    /// The signers of the note. The value is None if a signature is bad. The verifier has already
    /// reported the bad signature.
    pub signers: Option<Signers>,
}

/// The facts about one entry that [`PendingCheckpoint`] keeps. If another record stands in the
/// place of the entry, the facts are those of this record.
struct Arrival {
    id: Option<i64>,
    line: u64,
    leaf: Option<Hash>,
    other_leaf: Option<Box<Hash>>,
}

/// An id, and the number of the line that contains it.
pub(super) type IdLine = (i64, u64);

/// The verdict on the entries of a checkpoint.
#[derive(Default)]
pub(super) struct BatchResult {
    /// The ids of the checkpoint for which no entry was read.
    pub missing: IdRanges,
    /// Entries that do not belong to the checkpoint, each with its id, line and leaf.
    pub extra: Vec<(Option<i64>, u64, Option<Hash>)>,
    /// The ids of which more than one entry was read, each with the line of the repeated entry.
    pub duplicated: Vec<IdLine>,
    /// The ids that are not in ascending order. This list is the smallest set of ids that must move
    /// to restore the ascending order.
    pub reordered: Vec<IdLine>,
    /// The leaves of the kept entries in the order of their ids. The value is None if a leaf is
    /// unknown. Several sequences of leaves can be possible. The field contains the first sequence
    /// that yields the root, or the first possible sequence if none yields the root.
    pub leaves: Option<Vec<Hash>>,
}

impl PendingCheckpoint {
    /// Returns the `PendingCheckpoint` of a checkpoint of which no entry was read yet.
    pub fn new(tree_size: u64, root: Hash, said: Option<Said>, ids: IdRanges, line: u64) -> Self {
        let next = ids.ranges().first().map(|range| (0, range.first));
        let (edge, leaves, kept, malformed) = (None, ids.count(), Vec::new(), Vec::new());
        let (signed, plausible, dropped, key_changes) = (false, true, 0, Vec::new());
        PendingCheckpoint {
            tree_size,
            root,
            said,
            signed,
            key_changes,
            edge,
            ids,
            line,
            leaves,
            plausible,
            next,
            kept,
            dropped,
            malformed,
        }
    }

    /// Makes every further entry an unexpected entry.
    pub fn expect_nothing(&mut self) {
        self.next = None;
    }

    /// Returns whether one entry was read for each id, in the order of the ids, and no other line
    /// was read.
    pub fn is_complete(&self) -> bool {
        self.next.is_none() && self.kept.is_empty() && self.malformed.is_empty()
    }

    /// Returns whether a further entry is expected.
    pub fn waits(&self) -> bool {
        self.next.is_some()
    }

    /// Returns how many entries are kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Adds an entry that was read. Returns the leaf of the entry if the entry is the next expected
    /// one and has only one possible leaf. Keeps any other entry, and returns None.
    pub fn arrive(&mut self, entry: EntryLine, line: u64) -> Option<Hash> {
        if self.kept.is_empty()
            && self.plausible
            && let (Some((range, id)), Some(leaf), None) = (self.next, entry.leaf, entry.other_leaf)
            && entry.id == Some(id)
        {
            let ranges = self.ids.ranges();
            self.next = if id < ranges[range].last {
                Some((range, id + 1))
            } else {
                ranges.get(range + 1).map(|next| (range + 1, next.first))
            };
            return Some(leaf);
        }
        if self.kept.len() == MAX_KEPT {
            self.dropped += 1;
        } else {
            let other_leaf = entry.other_leaf.map(Box::new);
            self.kept.push(Arrival { id: entry.id, line, leaf: entry.leaf, other_leaf });
        }
        None
    }

    /// Keeps a malformed line. Returns false if `MAX_MALFORMED` lines are kept already.
    pub fn malformed(&mut self, line: u64, detail: String) -> bool {
        let room = self.malformed.len() < MAX_MALFORMED;
        if room {
            self.malformed.push((line, detail));
        }
        room
    }

    /// Returns the ids whose leaves `arrive` has not returned.
    fn remaining(&self) -> IdRanges {
        let Some((range, id)) = self.next else { return IdRanges::new() };
        let mut remaining = IdRanges::new();
        for (i, ids) in self.ids.ranges().iter().enumerate().skip(range) {
            // The ranges ascend and do not touch each other, so each insertion appends a range.
            remaining.insert_range(if i == range { id } else { ids.first }, ids.last);
        }
        remaining
    }

    /// Judges the kept entries, after the last entry of the checkpoint was read. `edge` is the
    /// tree's right edge before the first kept entry.
    pub fn finish(&mut self, edge: Option<&Frontier>) -> BatchResult {
        let kept = std::mem::take(&mut self.kept);
        if !self.plausible {
            // If `plausible` is false, the ids of the checkpoint are wrong. The leaves can still be
            // complete, in the order in which they were read.
            let leaves = (kept.len() as u64 == self.leaves)
                .then(|| kept.iter().map(|arrival| arrival.leaf).collect())
                .flatten();
            return BatchResult { leaves, ..BatchResult::default() };
        }
        let remaining = self.remaining();
        let mut result = BatchResult::default();
        let mut by_id: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        let mut order: Vec<(i64, u64)> = Vec::new();
        for (i, arrival) in kept.iter().enumerate() {
            match arrival.id {
                Some(id) if remaining.contains(id) => {
                    let occurrences = by_id.entry(id).or_default();
                    if occurrences.is_empty() {
                        order.push((id, arrival.line))
                    } else {
                        result.duplicated.push((id, arrival.line))
                    }
                    occurrences.push(i);
                }
                Some(id) if self.ids.contains(id) => result.duplicated.push((id, arrival.line)),
                id => result.extra.push((id, arrival.line, arrival.leaf)),
            }
        }
        let mut arrived = IdRanges::new();
        by_id.keys().for_each(|&id| _ = arrived.insert(id));
        result.missing = remaining.without(&arrived);
        result.reordered = out_of_order(&order);
        if result.missing.is_empty() {
            result.leaves = self.leaves_that_fit(&by_id, &kept, edge);
        }
        result
    }

    /// Returns the leaves of the checkpoint in the order of their ids. An entry has several
    /// possible leaves if it was read twice, or if its checksum does not match its columns. If
    /// there are only few possible sequences of leaves, the function searches for a sequence that
    /// yields the root.
    fn leaves_that_fit(
        &self,
        by_id: &BTreeMap<i64, Vec<usize>>,
        kept: &[Arrival],
        edge: Option<&Frontier>,
    ) -> Option<Vec<Hash>> {
        let mut leaves = Vec::with_capacity(by_id.len());
        let mut choices: HashMap<usize, Vec<Hash>> = HashMap::new();
        for occurrences in by_id.values() {
            let mut candidates: Vec<Hash> = Vec::new();
            let arrivals = || occurrences.iter().map(|&i| &kept[i]);
            for leaf in arrivals()
                .filter_map(|a| a.leaf)
                .chain(arrivals().filter_map(|a| a.other_leaf.as_deref().copied()))
            {
                if !candidates.contains(&leaf) && candidates.len() < 8 {
                    candidates.push(leaf);
                }
            }
            if candidates.len() > 1 {
                choices.insert(leaves.len(), candidates.clone());
            }
            leaves.push(*candidates.first()?);
        }
        let Some(edge) = edge else { return Some(leaves) };
        let fits = |leaves: &[Hash]| {
            let mut tried = edge.clone();
            leaves.iter().for_each(|leaf| tried.push(*leaf));
            tried.root() == self.root
        };
        let combinations =
            choices.values().try_fold(1usize, |product, choice| product.checked_mul(choice.len()));
        let cheap = combinations.is_some_and(|count| count.saturating_mul(leaves.len()) <= 1 << 22);
        if choices.is_empty() || !cheap || fits(&leaves) {
            return Some(leaves);
        }
        let places: Vec<usize> = choices.keys().copied().collect();
        for mut number in 1..combinations.unwrap_or(0) {
            let mut tried = leaves.clone();
            for place in &places {
                let choice = &choices[place];
                tried[*place] = choice[number % choice.len()];
                number /= choice.len();
            }
            if fits(&tried) {
                return Some(tried);
            }
        }
        Some(leaves)
    }
}

/// Returns the smallest set of entries that must be removed so that the remaining ids ascend. The
/// remaining entries are a longest ascending subsequence.
fn out_of_order(order: &[IdLine]) -> Vec<IdLine> {
    if order.is_sorted() {
        return Vec::new();
    }
    // `ends[n]` is the index at which an ascending subsequence of `n + 1` ids ends. If several
    // subsequences have this length, `ends` refers to the subsequence with the lowest last id.
    // `before[i]` is the index of the previous id in the subsequence that ends at index `i`.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(order.len());
    for (i, (id, _)) in order.iter().enumerate() {
        let length = ends.partition_point(|&end| order[end].0 < *id);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() { ends.push(i) } else { ends[length] = i }
    }
    let mut in_order = vec![false; order.len()];
    let mut at = ends.last().copied();
    while let Some(i) = at {
        in_order[i] = true;
        at = before[i];
    }
    order.iter().zip(in_order).filter(|(_, in_order)| !in_order).map(|(place, _)| *place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_moved_is_the_one_that_is_named() {
        let of = |ids: &[i64]| {
            let order: Vec<_> = ids.iter().map(|&id| (id, 0)).collect();
            out_of_order(&order).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(of(&[1, 2, 3]), [0; 0]);
        assert_eq!(of(&[2, 3, 4, 1, 5]), [1]);
        assert_eq!(of(&[1, 5, 2, 3, 4]), [5]);
        assert_eq!(of(&[]), [0; 0]);
        assert_eq!(of(&[3, 2, 1]).len(), 2);
    }
}
