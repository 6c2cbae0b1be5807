//! The records of a selection: some entries, each with its proof.

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
    /// Begins an export. `checkpoint` is the one that the proofs lead to; None if there is none
    /// yet.
    ///
    /// # Errors
    /// Those of writing.
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

    /// What is written to.
    pub fn output(&self) -> &Output<W> {
        &self.output
    }

    /// Writes a proof that the tree of `from_size` leaves became the one that the proofs lead to.
    ///
    /// # Errors
    /// Those of writing.
    pub fn consistency(&mut self, from_size: u64, hashes: Vec<Hash>) -> io::Result<()> {
        self.output.write(&Record::Consistency { from_size, hashes })
    }

    /// Writes an entry that a checkpoint took. `sealed` is the leaf hash that the tree has for it.
    /// The indexes have to ascend.
    ///
    /// # Errors
    /// Those of writing.
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

    /// Writes an entry that no checkpoint took; `inserted` if none can.
    ///
    /// # Errors
    /// Those of writing.
    pub fn unsealed(&mut self, id: i64, stored: &StoredEntry, inserted: bool) -> io::Result<()> {
        write_unsealed(&mut self.output, id, stored, inserted)
    }

    /// Ends the export.
    ///
    /// # Errors
    /// Those of writing.
    pub fn end(mut self) -> io::Result<Output<W>> {
        write_end(&mut self.output, self.tree_size)?;
        Ok(self.output)
    }
}
