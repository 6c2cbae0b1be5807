//! What verification finds.

use std::fmt;

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// An entry is not as it was written.
    Changed,
    /// An entry, or a part of the tree, is not there.
    Missing,
    /// An entry is there that the log never took.
    Inserted,
    /// An entry is in another place than its own.
    Reordered,
    /// An entry or checkpoint is there twice.
    Duplicated,
    /// A checkpoint is not the one of its entries.
    CheckpointChanged,
    /// A checkpoint's signature is bad or not there.
    SignatureBad,
    /// The history is another one than the one that was known.
    Forked,
    /// The history ends before a checkpoint that was known.
    GoneBack,
    /// A line is not what can stand there.
    Malformed,
    /// The file ends before the export does.
    Truncated,
    /// An entry has something that this version does not know. No fault, but a reason not to say
    /// that all is intact.
    NotJudged,
}

impl FaultKind {
    /// Its name, for people and machines.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Changed => "changed",
            FaultKind::Missing => "missing",
            FaultKind::Inserted => "inserted",
            FaultKind::Reordered => "reordered",
            FaultKind::Duplicated => "duplicated",
            FaultKind::CheckpointChanged => "checkpoint changed",
            FaultKind::SignatureBad => "signature bad",
            FaultKind::Forked => "history forked",
            FaultKind::GoneBack => "history gone back",
            FaultKind::Malformed => "malformed",
            FaultKind::Truncated => "truncated",
            FaultKind::NotJudged => "not judged",
        }
    }
}

/// One fault. What it shows of a file is escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The file.
    pub file: String,
    /// The line, where it is about one.
    pub line: Option<u64>,
    /// First and last id of the entries that it is about; the same for one entry.
    pub ids: Option<(i64, i64)>,
    /// The tree size of the checkpoint that it is about.
    pub tree_size: Option<u64>,
    /// What is wrong, for people.
    pub detail: String,
}

/// One line: `changed: entry 17: the checksum does not match (export.ndjson, line 12)`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match self.ids {
            Some((from, to)) if from == to => write!(f, ": entry {from}")?,
            Some((from, to)) => write!(f, ": entries {from} to {to}")?,
            None => {}
        }
        if let (Some(size), None) = (self.tree_size, self.ids) {
            write!(f, ": checkpoint {size}")?;
        }
        write!(f, ": {} ({}", self.detail, self.file)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        f.write_str(")")
    }
}
