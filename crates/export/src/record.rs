//! One line of an export (`docs/FORMAT.md`, "The export"). `parse` reads a line strictly, and
//! `write` writes it.

mod parse;
mod write;

use ledger::canonical::NotCanonical;
use ledger::merkle::Hash;
use ledger::{IdRanges, IdRangesError};
use thiserror::Error;

/// The version of the export format that this crate writes and reads.
pub const VERSION: u64 = 1;

/// The content of one line of an export. Long parts are borrowed from the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first line, which describes the export.
    Export(Header),
    /// The tree at the start of the export, before the first entry.
    Start(Start),
    /// A proof that the tree of the record before it extends an older tree.
    Consistency {
        /// Number of leaves in the older tree.
        from_size: u64,
        /// The consistency proof.
        hashes: Vec<Hash>,
    },
    /// A checkpoint. In a history, its entries follow after it.
    Checkpoint(CheckpointRecord),
    /// An entry of a checkpoint.
    Sealed {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// The preimage of the entry.
        entry: &'a str,
        /// The leaf in the tree at the position of the entry, if it differs from the leaf of
        /// `checksum`.
        leaf: Option<Hash>,
        /// In a selection: the position of the entry in the tree.
        place: Option<Place>,
    },
    /// An entry that is not sealed yet.
    Unsealed {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// The preimage of the entry.
        entry: &'a str,
    },
    /// An entry that is in no checkpoint, and that no later checkpoint can include: somebody
    /// inserted it behind the extension's back.
    Inserted {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// The preimage of the entry.
        entry: &'a str,
    },
    /// An entry that its checkpoint includes but that the database no longer has.
    Missing {
        /// The id of the entry, if the checkpoint still has the id.
        id: Option<i64>,
        /// The leaf of the entry, if the tree still has the leaf.
        leaf: Option<Hash>,
    },
    /// A row that stands where an entry belongs but is not a valid entry.
    Damaged(Damaged),
    /// An entry of which this version cannot write the preimage.
    Unknown(Unknown),
    /// The last line.
    End(End),
}

/// The first line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The time when the export began, in microseconds since 2000. Not verified.
    pub exported_at: i64,
    /// The form of the export: a history or a selection.
    pub kind: Kind,
    /// The origin of the log. None if the origin is not known, because there may be no checkpoint
    /// yet.
    pub origin: Option<String>,
    /// In a selection: a description of which entries were selected, for display.
    pub selection: Option<String>,
}

/// The two forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every entry between two tree sizes, in the order of the tree.
    History,
    /// Some entries, each with its inclusion proof.
    Selection,
}

/// The tree at the start of the export, before the first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Number of leaves in the tree.
    pub tree_size: u64,
    /// The right edge of the tree.
    pub edge: Vec<Hash>,
    /// The note of this tree's checkpoint. None only for the empty tree.
    pub note: Option<String>,
}

/// One row of `lead_audit.checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Number of leaves in the tree, as stored in the row outside of the note.
    pub tree_size: u64,
    /// The root of the tree, as stored in the row outside of the note.
    pub root: Hash,
    /// The ids of the entries in the checkpoint.
    pub entry_ids: IdRanges,
    /// The time of sealing, in microseconds since 2000. Not verified.
    pub sealed_at: i64,
    /// The signed note. For an unsigned log, the text of the checkpoint.
    pub note: String,
    /// The right edge of the tree. Only some checkpoints of an export have it.
    pub edge: Option<Vec<Hash>>,
}

/// The position of an entry in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Index of the entry's leaf, counted from 0.
    pub index: u64,
    /// The inclusion proof for the leaf.
    pub proof: Vec<Hash>,
}

/// A row that stands where an entry belongs but is not a valid entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The row's id, if it has one.
    pub id: Option<i64>,
    /// The reason why the row is not an entry.
    pub fault: String,
    /// The leaf in the tree at the position of the row, if there is one.
    pub leaf: Option<Hash>,
}

/// An entry with a value in a column that the exporter does not know. The value is not a fault, but
/// the entry cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The unknown column.
    pub column: String,
    /// The entry's id.
    pub id: Option<i64>,
    /// The leaf in the tree at the position of the entry, if there is one.
    pub leaf: Option<Hash>,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Number of lines of the export before this line.
    pub lines: u64,
    /// Number of leaves in the tree at the end of the export.
    pub tree_size: u64,
}

/// The reasons why a line is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The line is not canonical JSON.
    #[error("not canonical JSON: {0}")]
    NotCanonical(#[from] NotCanonical),
    /// The line is JSON, but not a known record.
    #[error("not a record of an export")]
    Unknown,
    /// The line begins an export of a version that this program does not read.
    #[error("an export of version {0}: this program reads version {VERSION}")]
    Version(u64),
    /// The record lacks a member, or has a superfluous member.
    #[error("the members of this record are not those that it has to have")]
    Members,
    /// A member has an invalid value.
    #[error("the value of {0:?} is not one that it can have")]
    Value(&'static str),
    /// The ids of a checkpoint are invalid.
    #[error("the value of \"entry_ids\" is {0}")]
    EntryIds(#[from] IdRangesError),
}

#[cfg(test)]
mod tests;
