//! Defines the result of verification.

use super::FaultKind;
use ledger::merkle::Hash;
use std::collections::BTreeMap;

/// The verdict of verification. The number of the verdict is the exit status of `lead-audit
/// verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Verdict 0: all sealed entries are unchanged, and a trusted key or a kept checkpoint vouches
    /// for them.
    Intact,
    /// Verdict 1: verification found faults.
    Tampered,
    /// Verdict 2: verification found no fault, but nothing vouches for the entries, or some part
    /// could not be judged.
    CouldNotTell,
}

/// The result of verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The origin of the log.
    pub origin: Option<String>,
    /// Number of leaves in the tree before the first entry. The value is None if no export was
    /// read.
    pub from_size: Option<u64>,
    /// Number of leaves in the tree at the end of the exports.
    pub tree_size: u64,
    /// The root of the tree at the end of the exports. The value is None if the root could not be
    /// computed.
    pub root: Option<Hash>,
    /// Number of sealed entries.
    pub entries: u64,
    /// Number of unsealed entries.
    pub unsealed: u64,
    /// Number of checkpoints.
    pub checkpoints: u64,
    /// Number of checkpoints signed by a known key.
    pub signed: u64,
    /// Number of kept checkpoints whose tree is part of this history.
    pub known_matched: u64,
    /// The kept checkpoints that could not be compared with the tree, each with the reason.
    pub known_unjudged: Vec<String>,
    /// Size of the largest tree for which a signature or a kept checkpoint vouches.
    pub vouched: Option<u64>,
    /// Number of faults of each kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Number of entries of which this version does not know some part.
    pub not_judged: u64,
    /// Whether all exports are selections without sealed entries. A selection without sealed
    /// entries proves nothing.
    pub is_empty_selection: bool,
    /// The tree size from which on the log's key is unknown. The value is None if the key is always
    /// known, or if a kept checkpoint vouches for the entries after the change of the key.
    pub key_unknown_from: Option<u64>,
    /// The questions that verification could not decide, as sentences for people.
    pub remarks: Vec<String>,
    /// The reason why reading ended before the end of the input. Verification did not judge the
    /// lines after this position.
    pub incomplete: Option<String>,
    /// Number of bytes that were read, counted without compression.
    pub bytes: u64,
    /// Number of lines that were read.
    pub lines: u64,
}

impl Report {
    /// Returns the number of faults.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Returns whether a trusted key or a kept checkpoint vouches for some of the verified entries.
    fn is_vouched(&self) -> bool {
        let from = self.from_size.unwrap_or(0);
        // A checkpoint at the start of the history does not vouch for later entries.
        self.vouched.is_some_and(|vouched| vouched > from || self.tree_size == from)
    }

    /// Returns the verdict.
    pub fn verdict(&self) -> Verdict {
        if self.fault_count() > 0 {
            Verdict::Tampered
        } else if self.incomplete.is_some()
            || self.not_judged > 0
            || self.is_empty_selection
            || self.key_unknown_from.is_some()
            || !self.is_vouched()
        {
            Verdict::CouldNotTell
        } else {
            Verdict::Intact
        }
    }
}
