//! Writes a history: each checkpoint, followed by the records of its entries.

use super::{Output, StoredEntry};
use crate::record::{CheckpointRecord, Damaged, End, Header, Record, Start};
use ledger::leaf_hash;
use ledger::merkle::{Frontier, Hash};
use ledger::{IdRange, IdRanges};
use std::collections::HashMap;
use std::io::{self, Write};

/// Number of leaves after which the writer adds the right edge to a checkpoint. After a damaged
/// part of a file, a verifier can compute roots from the next right edge on.
const EDGE_EVERY: u64 = 4096;

/// A row of `lead_audit.checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct StoredCheckpoint {
    pub tree_size: u64,
    pub root: Hash,
    pub entry_ids: IdRanges,
    pub sealed_at: i64,
    pub note: String,
}

/// Writes a history.
pub struct HistoryWriter<W: Write> {
    output: Output<W>,
    /// The right edge of the tree (the roots of its perfect subtrees), computed from the stored
    /// leaves.
    edge: Frontier,
    /// Number of leaves since the writer last added a right edge.
    since_edge: u64,
    pending: Option<PendingCheckpoint>,
}

/// The checkpoint whose entries the writer is writing.
struct PendingCheckpoint {
    leaves: Vec<Hash>,
    /// The ranges of the ids that the writer has not written yet. The last element is the range
    /// that contains the next id.
    waiting: Vec<IdRange>,
    /// The id that was written last.
    last: Option<i64>,
    /// Number of leaves for which a line was written.
    placed: usize,
    /// The index of each leaf in `leaves`. The value is None if there are as many ids as leaves,
    /// because then each leaf belongs to the id at the same position.
    places: Option<HashMap<Hash, usize>>,
}

impl<W: Write> HistoryWriter<W> {
    /// Begins an export of a history.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn begin(
        mut output: Output<W>,
        header: Header,
        edge: Frontier,
        note: Option<String>,
    ) -> io::Result<Self> {
        output.begin_export();
        output.write(&Record::Export(header))?;
        let start = Start { tree_size: edge.size(), edge: edge.hashes().to_vec(), note };
        output.write(&Record::Start(start))?;
        Ok(Self::resume(output, edge))
    }

    /// Continues an interrupted export. The file must end at a position that `find_resume_point`
    /// has found.
    pub fn resume(output: Output<W>, edge: Frontier) -> Self {
        HistoryWriter { output, edge, since_edge: 0, pending: None }
    }

    /// Returns the output to which the history is written.
    pub fn output(&self) -> &Output<W> {
        &self.output
    }

    /// Writes a proof that the tree of the preceding record extends the tree of `from_size` leaves.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn consistency(&mut self, from_size: u64, hashes: Vec<Hash>) -> io::Result<()> {
        self.output.write(&Record::Consistency { from_size, hashes })
    }

    /// Writes a checkpoint, and begins to write its entries. `leaves` contains the stored leaves
    /// from the current tree size to the size of the checkpoint. `stored_edge` is called only if
    /// the leaves do not yield the root of the checkpoint. `stored_edge` reads the right edge from
    /// the stored upper levels of the tree.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn checkpoint(
        &mut self,
        stored: StoredCheckpoint,
        leaves: Vec<Hash>,
        stored_edge: impl FnOnce() -> Option<Frontier>,
    ) -> io::Result<()> {
        leaves.iter().for_each(|leaf| self.edge.push(*leaf));
        self.since_edge += leaves.len() as u64;
        let mut with_edge = self.since_edge >= EDGE_EVERY;
        if self.edge.root() != stored.root || self.edge.size() != stored.tree_size {
            with_edge = false;
            // If `stored_edge` returns None, the writer continues with the right edge that it
            // computed from the leaves. The verifier then finds that the leaves do not yield the
            // root of the checkpoint.
            if let Some(edge) = stored_edge()
                .filter(|edge| edge.size() == stored.tree_size && edge.root() == stored.root)
            {
                self.edge = edge;
                with_edge = true;
            }
        }
        if with_edge {
            self.since_edge = 0;
        }
        let edge = with_edge.then(|| self.edge.hashes().to_vec());
        let StoredCheckpoint { tree_size, root, entry_ids, sealed_at, note } = stored;
        let fits = entry_ids.count() == leaves.len() as u64;
        let places =
            (!fits).then(|| leaves.iter().enumerate().map(|(i, leaf)| (*leaf, i)).collect());
        let waiting = entry_ids.ranges().iter().rev().copied().collect();
        self.pending = Some(PendingCheckpoint { leaves, waiting, last: None, placed: 0, places });
        self.output.write(&Record::Checkpoint(CheckpointRecord {
            tree_size,
            root,
            entry_ids,
            sealed_at,
            note,
            edge,
        }))
    }

    /// Writes the next entry of the checkpoint. Each id must belong to the checkpoint, and the ids
    /// must ascend. An id can occur twice if `lead_audit.entry` has lost its primary key. If an id
    /// occurs twice, the writer writes both rows, so that the verifier finds the duplicate.
    ///
    /// # Errors
    /// Fails if writing fails, if the id does not belong to the checkpoint, or if the id is lower
    /// than the previous id.
    pub fn entry(&mut self, id: i64, stored: &StoredEntry) -> io::Result<()> {
        if let Some(pending) = &mut self.pending {
            if pending.last.replace(id) == Some(id) {
                return self.sealed(id, stored, None);
            }
            if pending.places.is_some() {
                // If the number of ids differs from the number of leaves, the ranges can contain
                // very many ids, so `skip_before` skips whole ranges.
                pending.skip_before(id);
            }
        }
        loop {
            let Some(pending) = &mut self.pending else { return Err(out_of_order(id)) };
            match pending.next_id().ok_or_else(|| out_of_order(id))? {
                next if next < id => self.missing(Some(next))?,
                next if next == id => break,
                _ => return Err(out_of_order(id)),
            }
        }
        let Some(pending) = &mut self.pending else { return Err(out_of_order(id)) };
        let mut sealed = None;
        match &pending.places {
            None => {
                sealed = pending.leaves.get(pending.placed).copied();
                pending.placed += 1;
            }
            // If the number of ids differs from the number of leaves, only the entry's own leaf
            // shows the position of the entry.
            Some(places) => {
                let own = stored.leaf().and_then(|leaf| places.get(&leaf).copied());
                if let Some(place) = own.filter(|&place| place >= pending.placed) {
                    let lost = pending.placed..place;
                    pending.placed = place + 1;
                    for leaf in &pending.leaves[lost] {
                        self.output.write(&Record::Missing { id: None, leaf: Some(*leaf) })?;
                    }
                }
            }
        }
        self.sealed(id, stored, sealed)
    }

    /// Writes an entry. `sealed` is the leaf that the tree has at the position of the entry.
    fn sealed(&mut self, id: i64, stored: &StoredEntry, sealed: Option<Hash>) -> io::Result<()> {
        if let StoredEntry::Entry { preimage, checksum } = stored {
            let leaf = sealed.filter(|leaf| *leaf != leaf_hash(checksum));
            return self.output.write(&Record::Sealed {
                checksum: *checksum,
                entry: preimage,
                leaf,
                place: None,
            });
        }
        stored.instead(id, sealed).map_or(Ok(()), |record| self.output.write(&record))
    }

    /// Writes a record `missing` for the next entry of the checkpoint, whose id is `id`.
    fn missing(&mut self, id: Option<i64>) -> io::Result<()> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        if pending.places.is_some() {
            // If the number of ids differs from the number of leaves, `entry` and `end_checkpoint`
            // write the missing leaves.
            return Ok(());
        }
        let leaf = pending.leaves.get(pending.placed).copied();
        pending.placed += 1;
        self.output.write(&Record::Missing { id, leaf })
    }

    /// Ends the checkpoint. Writes a record `missing` for each leaf of the checkpoint that has no
    /// record yet.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn end_checkpoint(&mut self) -> io::Result<()> {
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        while pending.placed < pending.leaves.len() {
            let id = if pending.places.is_none() { pending.next_id() } else { None };
            self.output
                .write(&Record::Missing { id, leaf: Some(pending.leaves[pending.placed]) })?;
            pending.placed += 1;
        }
        self.output.border()
    }

    /// Writes an unsealed entry. `inserted` means that no checkpoint can ever include the entry.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn unsealed(&mut self, id: i64, stored: &StoredEntry, inserted: bool) -> io::Result<()> {
        write_unsealed(&mut self.output, id, stored, inserted)
    }

    /// Ends the export. `tree_size` is the tree size of the last checkpoint.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn end(mut self, tree_size: u64) -> io::Result<Output<W>> {
        write_end(&mut self.output, tree_size)?;
        Ok(self.output)
    }
}

impl PendingCheckpoint {
    /// Skips all waiting ids below `id`.
    fn skip_before(&mut self, id: i64) {
        while let Some(IdRange { first, last }) = self.waiting.pop() {
            if last >= id {
                self.waiting.push(IdRange { first: first.max(id), last });
                break;
            }
        }
    }

    /// Removes the lowest waiting id, and returns it.
    fn next_id(&mut self) -> Option<i64> {
        let IdRange { first, last } = self.waiting.pop()?;
        if first < last {
            self.waiting.push(IdRange { first: first + 1, last });
        }
        Some(first)
    }
}

pub(super) fn write_unsealed<W: Write>(
    output: &mut Output<W>,
    id: i64,
    stored: &StoredEntry,
    inserted: bool,
) -> io::Result<()> {
    match stored {
        StoredEntry::Entry { preimage, checksum } if inserted => {
            output.write(&Record::Inserted { checksum: *checksum, entry: preimage })
        }
        StoredEntry::Entry { preimage, checksum } => {
            output.write(&Record::Unsealed { checksum: *checksum, entry: preimage })
        }
        // An inserted row with an unknown column is written as a record `damaged`, because an
        // inserted row is always a fault.
        StoredEntry::Unknown { .. } if inserted => {
            let fault = "no checkpoint took it, and none can; it has a value in an unknown column"
                .to_owned();
            output.write(&Record::Damaged(Damaged { id: Some(id), fault, leaf: None }))
        }
        StoredEntry::Damaged(_) | StoredEntry::Unknown { .. } => {
            stored.instead(id, None).map_or(Ok(()), |record| output.write(&record))
        }
    }
}

pub(super) fn write_end<W: Write>(output: &mut Output<W>, tree_size: u64) -> io::Result<()> {
    let lines = output.lines();
    output.write(&Record::End(End { lines, tree_size }))
}

fn out_of_order(id: i64) -> io::Error {
    io::Error::other(format!("the database gave entry {id} out of order"))
}
