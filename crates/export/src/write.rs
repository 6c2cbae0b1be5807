//! Writes exports to a plain or compressed file, with the records in the order of `docs/FORMAT.md`.
//! Continues an interrupted file.
//!
//! Verifiers do not trust the writer. If the stored data are inconsistent, the writer writes them
//! as they are, and adds enough data to identify the entry.

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
