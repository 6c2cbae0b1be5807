//! Defines [`Record`], the content of one line of an export (`docs/FORMAT.md`, "The export").
//! `parse` strictly reads a record from a line, and `write` writes a record as a line.

mod parse;
mod write;

use ledger::canonical::NotCanonical;
use ledger::merkle::Hash;
use ledger::{IdRanges, IdRangesError};
use thiserror::Error;

/// The version of the export format that this crate writes and reads.
pub const VERSION: u64 = 1;

/// The content of one line of an export. Long values are slices of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first line, which describes the export.
    Export(Header),
    /// The tree at the start of the export, before the first entry.
    Start(Start),
    /// A proof that the tree of the preceding record extends an older tree.
    Consistency {
        /// Number of leaves in the older tree.
        from_size: u64,
        /// The consistency proof.
        hashes: Vec<Hash>,
    },
    /// A checkpoint. In a history, the entries of the checkpoint follow after this record.
    Checkpoint(CheckpointRecord),
    /// An entry that a checkpoint includes.
    Sealed {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// The preimage of the entry.
        entry: &'a str,
        /// The leaf that the tree has at the position of the entry. The value is None if this leaf
        /// is the leaf of `checksum`.
        leaf: Option<Hash>,
        /// The position of the entry in the tree. Only the entries of a selection contain their
        /// position.
        place: Option<Place>,
    },
    /// An entry that is not sealed yet.
    Unsealed {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// The preimage of the entry.
        entry: &'a str,
    },
    /// An entry that no checkpoint includes or can include in the future. Somebody inserted this
    /// entry without the extension.
    Inserted {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// The preimage of the entry.
        entry: &'a str,
    },
    /// An entry that a checkpoint includes, but that the database does not have.
    Missing {
        /// The id of the missing entry, if it can be determined.
        id: Option<i64>,
        /// The leaf of the missing entry, if the stored tree contains it.
        leaf: Option<Hash>,
    },
    /// A row of `lead_audit.entry` that is not a valid entry.
    Damaged(Damaged),
    /// An entry with a column that this version does not know. This version cannot write the
    /// preimage of the entry.
    Unknown(Unknown),
    /// The last line of an export.
    End(End),
}

/// The content of the first line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The time when the export began, in microseconds since 2000. Verification ignores this time.
    pub exported_at: i64,
    /// The form of the export: a history or a selection.
    pub kind: Kind,
    /// The origin of the log. The value is None if the log has no checkpoint that states an origin.
    pub origin: Option<String>,
    /// A description of the selected entries, for people. The value is None in a history.
    pub selection: Option<String>,
}

/// The two kinds of exports.
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
    /// The right edge of the tree: the roots of its perfect subtrees, from left to right.
    pub edge: Vec<Hash>,
    /// The note of this tree's checkpoint. The note is None only for the empty tree.
    pub note: Option<String>,
}

/// One row of `lead_audit.checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Number of leaves in the tree, from the column `tree_size` and not from the note.
    pub tree_size: u64,
    /// The root of the tree, from the column `root` and not from the note.
    pub root: Hash,
    /// The ids of the entries that this checkpoint added to the tree.
    pub entry_ids: IdRanges,
    /// The time of sealing, in microseconds since 2000. Verification ignores this time.
    pub sealed_at: i64,
    /// The signed note of the checkpoint. In an unsigned log, the note is the text of the
    /// checkpoint without signatures.
    pub note: String,
    /// The right edge of the tree: the roots of its perfect subtrees, from left to right. Only some
    /// checkpoints of an export contain the right edge.
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

/// A row of `lead_audit.entry` that is not a valid entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The row's id, if the row has an id.
    pub id: Option<i64>,
    /// The reason why the row is not a valid entry.
    pub fault: String,
    /// The leaf that the tree has at the position of the row. The value is None if the row has no
    /// known position.
    pub leaf: Option<Hash>,
}

/// An entry with a value in a column that the exporter does not know. The unknown column is not a
/// fault, but the entry cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The name of the unknown column.
    pub column: String,
    /// The entry's id.
    pub id: Option<i64>,
    /// The leaf that the tree has at the position of the entry. The value is None if the entry has
    /// no known position.
    pub leaf: Option<Hash>,
}

/// The content of the last line of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Number of lines of the export before this last line.
    pub lines: u64,
    /// Number of leaves in the tree at the end of the export.
    pub tree_size: u64,
}

/// The reasons why `Record::parse` refuses a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The line is not canonical JSON.
    #[error("not canonical JSON: {0}")]
    NotCanonical(#[from] NotCanonical),
    /// The line is canonical JSON, but not a record that this version knows.
    #[error("not a record of an export")]
    Unknown,
    /// The line begins an export whose format version this program cannot read.
    #[error("an export of version {0}: this program reads version {VERSION}")]
    Version(u64),
    /// The record lacks a member, or has a superfluous member.
    #[error("the members of this record are not those that it has to have")]
    Members,
    /// The member of this name has an invalid value.
    #[error("the value of {0:?} is not one that it can have")]
    Value(&'static str),
    /// The ids of a checkpoint are invalid.
    #[error("the value of \"entry_ids\" is {0}")]
    EntryIds(#[from] IdRangesError),
}

#[cfg(test)]
mod tests;
