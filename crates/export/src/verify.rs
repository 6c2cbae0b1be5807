//! Judges exports: compares every line of every file with the keys and checkpoints that the
//! verifier trusts.
//!
//! Lines are read in blocks. Each line is parsed and hashed on its own, in parallel ([`line`]). The
//! lines are then processed in sequence ([`chain`], [`batch`]). The sequential part decides which
//! checkpoint includes an entry and whether the entry is the expected one, and computes the tree's
//! right edge. An honest entry is dropped as soon as its leaf is appended to the edge. If a
//! checkpoint's entries have a fault, they are kept until the last one was read, to describe the
//! fault.

mod batch;
mod chain;
mod fault;
mod line;
mod report;
mod run;
mod trust;

pub use fault::{Fault, FaultKind};
pub use report::{Report, Verdict};
pub use run::{Progress, Source, VerifyError, verify};
pub use trust::{Known, Trust, TrustError};
