//! Writes exports to plain or compressed files. The records have the order that `docs/FORMAT.md`
//! defines. This module can also continue the file of an interrupted export.
//!
//! Verifiers do not trust the writer. The writer writes inconsistent data as they are stored. For a
//! changed, damaged or missing entry, the writer adds the leaf that the tree has at the position of
//! the entry.

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
