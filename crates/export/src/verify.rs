//! Verifies exports: checks every line of every file against the keys and checkpoints that the
//! verifier trusts.
//!
//! The verifier reads lines in blocks. [`line`] parses and hashes each line separately, so many
//! lines can be processed in parallel. [`chain`] and [`pending_checkpoint`] process the lines in
//! sequence. The sequential processing decides which checkpoint includes an entry and whether the
//! entry is the expected one. The sequential processing also computes the tree's right edge, which
//! is the roots of its perfect subtrees. An entry without a fault is dropped from memory when its
//! leaf is appended to the right edge. If an entry is unexpected, the verifier keeps the further
//! entries of the checkpoint in memory, to describe the fault after the last entry.

mod chain;
mod fault;
mod line;
mod pending_checkpoint;
mod report;
mod run;
mod trust;

pub use fault::{Fault, FaultKind};
pub use report::{Report, Verdict};
pub use run::{Progress, Source, VerifyError, verify};
pub use trust::{Known, Trust, TrustError};
