//! One line of an export: `parse` reads it, strictly, `write` writes it. `docs/FORMAT.md`, "The
//! export", is what this implements.

mod parse;
mod write;

use ledger::canonical::NotCanonical;
use ledger::merkle::Hash;
use ledger::{IdRanges, IdRangesError};
use thiserror::Error;

/// The version of the export format that this crate writes and reads.
pub const VERSION: u64 = 1;

/// One line of an export. What is long is borrowed from the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// What this is: the first line.
    Export(Header),
    /// The tree before the first entry.
    Start(Start),
    /// Proves that an older tree became the one of the record before it.
    Consistency {
        /// Leaves of the older tree.
        from_size: u64,
        /// The consistency proof.
        hashes: Vec<Hash>,
    },
    /// A checkpoint. In a history the entries that it took follow.
    Checkpoint(CheckpointRecord),
    /// An entry that a checkpoint took.
    Sealed {
        /// The checksum that is stored with it.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
        /// The leaf hash that is in the tree, where that is not the one that the checksum gives.
        leaf: Option<Hash>,
        /// In a selection: where in the tree it is.
        place: Option<Place>,
    },
    /// An entry that no checkpoint took yet.
    Unsealed {
        /// The checksum that is stored with it.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
    },
    /// An entry that no checkpoint took and no later one can take: it was added behind the log's
    /// back.
    Inserted {
        /// The checksum that is stored with it.
        checksum: Hash,
        /// Its preimage.
        entry: &'a str,
    },
    /// An entry that its checkpoint took and that is not there any more.
    Missing {
        /// Its id, if the checkpoint still says it.
        id: Option<i64>,
        /// Its leaf hash, if the tree still has it.
        leaf: Option<Hash>,
    },
    /// What is stored in the place of an entry and is none.
    Damaged(Damaged),
    /// An entry that this version cannot write down.
    Unknown(Unknown),
    /// The last line.
    End(End),
}

/// What an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// When it was begun, in microseconds since 2000. Information only.
    pub exported_at: i64,
    /// Which of the two forms.
    pub kind: Kind,
    /// The origin of the log, where it is known: there may be no checkpoint yet.
    pub origin: Option<String>,
    /// Of a selection: what was selected, for people.
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
    /// Leaves in it.
    pub tree_size: u64,
    /// Its right edge.
    pub edge: Vec<Hash>,
    /// The note of its checkpoint; None only for the empty tree.
    pub note: Option<String>,
}

/// One row of `lead_audit.checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Leaves in the tree, as it is stored beside the note.
    pub tree_size: u64,
    /// The root, as it is stored beside the note.
    pub root: Hash,
    /// The ids of the entries that it took.
    pub entry_ids: IdRanges,
    /// When, in microseconds since 2000. Information only.
    pub sealed_at: i64,
    /// The signed note, or the text alone.
    pub note: String,
    /// The right edge of the tree, every now and then.
    pub edge: Option<Vec<Hash>>,
}

/// Where an entry is in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which leaf, from 0.
    pub index: u64,
    /// The inclusion proof.
    pub proof: Vec<Hash>,
}

/// What is stored in the place of an entry and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Its id, if it has one.
    pub id: Option<i64>,
    /// Why it is no entry.
    pub fault: String,
    /// The leaf hash that is in the tree, if it has one for it.
    pub leaf: Option<Hash>,
}

/// An entry with a value in a column that the exporter does not know: no fault, but nobody can
/// judge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The column.
    pub column: String,
    /// The entry's id.
    pub id: Option<i64>,
    /// The leaf hash that is in the tree, if it has one for it.
    pub leaf: Option<Hash>,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How many lines of the export are before this one.
    pub lines: u64,
    /// Leaves in the tree that it ends with.
    pub tree_size: u64,
}

/// Why a line is not one of an export.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The line is not canonical JSON.
    #[error("not canonical JSON: {0}")]
    NotCanonical(#[from] NotCanonical),
    /// The line is JSON, but no record begins like it.
    #[error("not a record of an export")]
    Unknown,
    /// The export is of a version that this program does not read.
    #[error("an export of version {0}: this program reads version {VERSION}")]
    Version(u64),
    /// A member is missing, or there is one more.
    #[error("the members of this record are not those that it has to have")]
    Members,
    /// A member has a value that it cannot have.
    #[error("the value of {0:?} is not one that it can have")]
    Value(&'static str),
    /// The ids of a checkpoint.
    #[error("the value of \"entry_ids\" is {0}")]
    EntryIds(#[from] IdRangesError),
}

#[cfg(test)]
mod tests;
