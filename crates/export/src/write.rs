//! Writes exports: records in the order of `docs/FORMAT.md`, to a plain or compressed file. Can
//! continue an interrupted file.
//!
//! Verifiers do not trust the writer. If stored data are inconsistent, it writes them as they are,
//! with enough context to identify the entry.

mod history;
mod output;
mod resume;
mod selection;
mod stored;

pub use history::{HistoryWriter, StoredCheckpoint};
pub use output::{Compression, Output};
pub use resume::{ResumeError, ResumePoint, find_resume_point};
pub use selection::SelectionWriter;
pub use stored::{StoredEntry, read_stored};
