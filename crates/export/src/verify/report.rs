//! What verification comes to.

use super::FaultKind;
use ledger::merkle::Hash;
use std::collections::BTreeMap;

/// The verdict, which is also the exit status of `lead-audit verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 0: everything that was sealed is as it was, and something from outside vouches for it.
    Intact,
    /// 1: there are faults.
    Tampered,
    /// 2: there is no fault, but nothing vouches for that, or not everything could be judged.
    CouldNotTell,
}

/// What verification comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The log.
    pub origin: Option<String>,
    /// Leaves in the tree before the first entry; None if no export was read.
    pub from_size: Option<u64>,
    /// Leaves in the tree at the end.
    pub tree_size: u64,
    /// The root there, if it was worked out.
    pub root: Option<Hash>,
    /// Sealed entries.
    pub entries: u64,
    /// Entries that no checkpoint took.
    pub unsealed: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Those that a known key has signed.
    pub signed: u64,
    /// Kept checkpoints that are part of this history.
    pub known_matched: u64,
    /// Kept checkpoints of which nothing could be said, and why.
    pub known_unjudged: Vec<String>,
    /// The largest tree that a signature or a kept checkpoint vouches for.
    pub vouched: Option<u64>,
    /// Faults, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Entries with something that this version does not know.
    pub not_judged: u64,
    /// There are only selections, and no sealed entry in any of them: nothing was proven.
    pub is_empty_selection: bool,
    /// The tree size from which on the log has a key that is not known, where nothing else vouches
    /// for what follows.
    pub key_unknown_from: Option<u64>,
    /// What could not be told, for people.
    pub remarks: Vec<String>,
    /// Reading ended before the end, and why: what follows was not judged.
    pub incomplete: Option<String>,
    /// Bytes read, uncompressed.
    pub bytes: u64,
    /// Lines read.
    pub lines: u64,
}

impl Report {
    /// How many faults there are.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Whether something from outside vouches for any of what was verified.
    fn is_vouched(&self) -> bool {
        let from = self.from_size.unwrap_or(0);
        // A checkpoint at the very beginning says nothing of what follows.
        self.vouched.is_some_and(|vouched| vouched > from || self.tree_size == from)
    }

    /// The verdict.
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
