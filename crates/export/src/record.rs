//! One line of an export, per `docs/FORMAT.md`, "The export". `parse` reads it strictly, `write`
//! writes it.

mod parse;
mod write;

use ledger::canonical::NotCanonical;
use ledger::merkle::Hash;
use ledger::{IdRanges, IdRangesError};
use thiserror::Error;

/// The version of the export format that this crate writes and reads.
pub const VERSION: u64 = 1;

/// One line of an export. Long parts are borrowed from the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first line, which describes the export.
    Export(Header),
    /// The tree before the first entry.
    Start(Start),
    /// Proves that the tree of the previous record extends an older tree.
    Consistency {
        /// Number of leaves in the older tree.
        from_size: u64,
        /// The consistency proof.
        hashes: Vec<Hash>,
    },
    /// A checkpoint. In a history its entries follow.
    Checkpoint(CheckpointRecord),
    /// An entry of a checkpoint.
    Sealed {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
        /// The leaf hash in the tree, if it differs from the checksum's leaf hash.
        leaf: Option<Hash>,
        /// In a selection: the position of the entry in the tree.
        place: Option<Place>,
    },
    /// An entry that is not sealed yet.
    Unsealed {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
    },
    /// An entry that is in no checkpoint and never can be: somebody inserted it by hand.
    Inserted {
        /// The stored checksum of the entry.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
    },
    /// An entry that its checkpoint includes, but that no longer exists.
    Missing {
        /// Its id, if the checkpoint still has it.
        id: Option<i64>,
        /// Its leaf hash, if the tree still has it.
        leaf: Option<Hash>,
    },
    /// A row in the place of an entry that is not a valid entry.
    Damaged(Damaged),
    /// An entry that this version cannot write as a preimage.
    Unknown(Unknown),
    /// The last line.
    End(End),
}

/// The first line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Start of the export, in microseconds since 2000. Information only.
    pub exported_at: i64,
    /// The form of the export.
    pub kind: Kind,
    /// The origin of the log, if known: there may be no checkpoint yet.
    pub origin: Option<String>,
    /// In a selection: a description of the selected entries, for display.
    pub selection: Option<String>,
}

/// The two forms of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every entry from one tree size to another, in the order of the tree.
    History,
    /// Some entries, each with its inclusion proof.
    Selection,
}

/// The tree before the first entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Number of leaves in the tree.
    pub tree_size: u64,
    /// The right edge of the tree.
    pub edge: Vec<Hash>,
    /// The note of its checkpoint; None only for the empty tree.
    pub note: Option<String>,
}

/// One row of `lead_audit.checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Number of leaves in the tree, as stored beside the note.
    pub tree_size: u64,
    /// The root, as stored beside the note.
    pub root: Hash,
    /// The ids of the entries in the checkpoint.
    pub entry_ids: IdRanges,
    /// Time of sealing, in microseconds since 2000. Information only.
    pub sealed_at: i64,
    /// The signed note, or the bare text of an unsigned checkpoint.
    pub note: String,
    /// The right edge of the tree. Only some checkpoints have it.
    pub edge: Option<Vec<Hash>>,
}

/// The position of an entry in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Index of the leaf, from 0.
    pub index: u64,
    /// The inclusion proof.
    pub proof: Vec<Hash>,
}

/// A row in the place of an entry that is not a valid entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The row's id, if it has one.
    pub id: Option<i64>,
    /// The reason why it is not an entry.
    pub fault: String,
    /// The leaf hash in the tree, if the tree has one for it.
    pub leaf: Option<Hash>,
}

/// An entry with a value in a column that the exporter does not know. This is not a fault, but the
/// entry cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The unknown column.
    pub column: String,
    /// The entry's id.
    pub id: Option<i64>,
    /// The leaf hash in the tree, if the tree has one for it.
    pub leaf: Option<Hash>,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Number of lines of the export before this one.
    pub lines: u64,
    /// Number of leaves in the tree at the end.
    pub tree_size: u64,
}

/// The errors of a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The line is not canonical JSON.
    #[error("not canonical JSON: {0}")]
    NotCanonical(#[from] NotCanonical),
    /// The line is JSON, but not a known record.
    #[error("not a record of an export")]
    Unknown,
    /// This program does not read exports of this version.
    #[error("an export of version {0}: this program reads version {VERSION}")]
    Version(u64),
    /// A member is missing or superfluous.
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
