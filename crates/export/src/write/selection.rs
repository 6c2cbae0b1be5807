//! Writes a selection: some entries, each with its inclusion proof.

use super::history::{write_end, write_unsealed};
use super::{Output, StoredCheckpoint, StoredEntry};
use crate::record::{CheckpointRecord, Header, Place, Record};
use ledger::leaf_hash;
use ledger::merkle::Hash;
use std::io::{self, Write};

/// Writes a selection.
pub struct SelectionWriter<W: Write> {
    output: Output<W>,
    tree_size: u64,
}

impl<W: Write> SelectionWriter<W> {
    /// Begins an export of a selection. The inclusion proofs lead to the root of `checkpoint`.
    /// `checkpoint` is None if the log has no checkpoint yet.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn begin(
        mut output: Output<W>,
        header: Header,
        checkpoint: Option<StoredCheckpoint>,
    ) -> io::Result<Self> {
        output.begin_export();
        output.write(&Record::Export(header))?;
        let tree_size = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.tree_size);
        if let Some(StoredCheckpoint { tree_size, root, entry_ids, sealed_at, note }) = checkpoint {
            let record =
                CheckpointRecord { tree_size, root, entry_ids, sealed_at, note, edge: None };
            output.write(&Record::Checkpoint(record))?;
        }
        Ok(SelectionWriter { output, tree_size })
    }

    /// Returns the output to which the selection is written.
    pub fn output(&self) -> &Output<W> {
        &self.output
    }

    /// Writes a proof that the tree of the selection's checkpoint extends the tree of `from_size`
    /// leaves.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn consistency(&mut self, from_size: u64, hashes: Vec<Hash>) -> io::Result<()> {
        self.output.write(&Record::Consistency { from_size, hashes })
    }

    /// Writes a sealed entry. `sealed` is the leaf that the tree has at the position of the entry.
    /// The caller must write the entries in ascending order of their indexes.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn entry(
        &mut self,
        id: i64,
        stored: &StoredEntry,
        place: Place,
        sealed: Hash,
    ) -> io::Result<()> {
        if let StoredEntry::Entry { preimage, checksum } = stored {
            let leaf = Some(sealed).filter(|leaf| *leaf != leaf_hash(checksum));
            return self.output.write(&Record::Sealed {
                checksum: *checksum,
                entry: preimage,
                leaf,
                place: Some(place),
            });
        }
        stored.instead(id, Some(sealed)).map_or(Ok(()), |record| self.output.write(&record))
    }

    /// Writes an unsealed entry. `inserted` means that no checkpoint can ever include the entry.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn unsealed(&mut self, id: i64, stored: &StoredEntry, inserted: bool) -> io::Result<()> {
        write_unsealed(&mut self.output, id, stored, inserted)
    }

    /// Ends the export.
    ///
    /// # Errors
    /// Fails if writing fails.
    pub fn end(mut self) -> io::Result<Output<W>> {
        write_end(&mut self.output, self.tree_size)?;
        Ok(self.output)
    }
}
