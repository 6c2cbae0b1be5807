//! Judging exports: every line of every file, against what whoever verifies knows from elsewhere.
//!
//! Lines are read in blocks, parsed and hashed in parallel ([`line`]), and then followed one after
//! the other: which checkpoint took an entry, whether it is the one that should be here, and the
//! tree's right edge ([`chain`], [`batch`]). Honest entries are forgotten as soon as they are
//! hashed into the edge; only a batch in which something is wrong is kept until its end, to say
//! what it is.

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
