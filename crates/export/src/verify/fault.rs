//! Defines the faults that verification reports.

use std::fmt;

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// An entry that was changed after it was written.
    Changed,
    /// An entry that is missing, or a missing part of the tree.
    Missing,
    /// An entry that the log never sealed.
    Inserted,
    /// An entry at a wrong position.
    Reordered,
    /// An entry or checkpoint that occurs twice.
    Duplicated,
    /// A checkpoint that does not match its entries.
    CheckpointChanged,
    /// A checkpoint whose signature is bad or missing.
    SignatureBad,
    /// A history that contradicts a history that the verifier knows.
    Forked,
    /// A history that ends before a checkpoint that the verifier kept.
    GoneBack,
    /// A line that is not allowed at its position.
    Malformed,
    /// A file that ends before its export is complete.
    Truncated,
    /// An entry of which this version does not know some part. The unknown part is not a fault, but
    /// it prevents the verdict "intact".
    NotJudged,
}

impl FaultKind {
    /// Returns the name of the kind of fault, for people and programs.
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

/// A fault that verification found. Text that a fault quotes from a file is escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The name of the file that has the fault.
    pub file: String,
    /// The number of the line, if the fault concerns a line.
    pub line: Option<u64>,
    /// The first and the last id of the affected entries. Both ids are equal if only one entry is
    /// affected.
    pub ids: Option<(i64, i64)>,
    /// The tree size of the affected checkpoint.
    pub tree_size: Option<u64>,
    /// A description of the fault, for people.
    pub detail: String,
}

/// Writes the fault as one line: `changed: entry 17: the checksum does not match (export.ndjson,
/// line 12)`.
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
