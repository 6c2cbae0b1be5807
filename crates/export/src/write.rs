//! Writing exports: records in the order that `docs/FORMAT.md` asks for, to a file that is plain or
//! compressed, and going on with a file that was broken off.
//!
//! The writer is not believed by anyone. Where what is stored does not fit together it writes down
//! what is stored, with what is needed to say which entry it is.

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
