//! The result of verification.

use super::FaultKind;
use ledger::merkle::Hash;
use std::collections::BTreeMap;

/// The verdict. Its number is also the exit status of `lead-audit verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 0: all sealed entries are unchanged, and a trusted key or a kept checkpoint vouches for
    /// them.
    Intact,
    /// 1: there are faults.
    Tampered,
    /// 2: there is no fault, but nothing vouches for the entries, or a part could not be judged.
    CouldNotTell,
}

/// The result of verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The origin of the log.
    pub origin: Option<String>,
    /// Number of leaves in the tree before the first entry. None if no export was read.
    pub from_size: Option<u64>,
    /// Number of leaves in the tree at the end.
    pub tree_size: u64,
    /// The root of the tree at the end, if it could be computed.
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
    /// The kept checkpoints that could not be compared, each with the reason.
    pub known_unjudged: Vec<String>,
    /// Size of the largest tree for which a signature or a kept checkpoint vouches.
    pub vouched: Option<u64>,
    /// Number of faults, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Number of entries with a part that this version does not know.
    pub not_judged: u64,
    /// Whether all exports are selections without sealed entries, so that nothing was proven.
    pub is_empty_selection: bool,
    /// The tree size from which on the log uses an unknown key. None if a kept checkpoint vouches
    /// for the entries after the change.
    pub key_unknown_from: Option<u64>,
    /// The undecided questions, for people.
    pub remarks: Vec<String>,
    /// The reason why reading ended early. The lines that follow were not judged.
    pub incomplete: Option<String>,
    /// Number of bytes that were read, uncompressed.
    pub bytes: u64,
    /// Number of lines that were read.
    pub lines: u64,
}

impl Report {
    /// Returns the number of faults.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Returns whether a trusted key or a kept checkpoint vouches for any of the verified entries.
    fn is_vouched(&self) -> bool {
        let from = self.from_size.unwrap_or(0);
        // A checkpoint at the start of the history does not vouch for the entries that follow.
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
