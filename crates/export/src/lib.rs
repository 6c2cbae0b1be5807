//! Writes, reads and verifies exports of the audit trail, without PostgreSQL. `docs/FORMAT.md`,
//! "The export", defines the format of exports.
//!
//! An export consists of lines of canonical JSON. A verifier trusts only the signed checkpoints of
//! an export, and checkpoints that the verifier had before. The verifier trusts no other part of an
//! export. This crate reads hostile files. [`read::Limits`] bounds the memory, and no function of
//! this crate is recursive. All text from a file is escaped before it is shown.
//!
//! * [`Record`] – the content of one line of an export
//! * [`write`] – writes lines to a plain or compressed file, and continues an interrupted file
//! * [`read`] – reads lines in blocks from a plain or compressed file
//! * [`verify`] – judges the lines, and reports each fault with the entry's id and each question
//!   that remains undecided

mod columns;
mod entry_text;
pub mod read;
mod record;
pub mod verify;
pub mod write;

pub use columns::{EntryFault, judge_entry};
pub use entry_text::EntryColumns;
pub use ledger::canonical::unescape;
pub use record::{
    CheckpointRecord, Damaged, End, Header, Kind, Place, Record, RecordError, Start, Unknown,
};
