//! Judges exports: every line of every file, against the verifier's own knowledge.
//!
//! Lines are read in blocks, parsed and hashed in parallel ([`line`]), and then processed in
//! sequence: which checkpoint includes an entry, whether the entry is the expected one, and the
//! tree's right edge ([`chain`], [`batch`]). Honest entries are dropped as soon as they are hashed
//! into the edge. Only a batch with a fault is kept until its end, to describe the fault.

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
