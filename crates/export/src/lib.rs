//! Exports of the audit trail: `docs/FORMAT.md`, "The export", in Rust, and nothing of Postgres.
//!
//! An export is lines of canonical JSON. What vouches for it are the signed checkpoints in it, or a
//! checkpoint that whoever verifies it had before; nothing else in it is believed. Everything here
//! reads hostile files: memory is bounded by [`read::Limits`], nothing recurses, and whatever is
//! shown of a file is escaped.
//!
//! * [`Record`] – one line
//! * [`write`] – writing lines to a file, plain or compressed, and going on with a broken one
//! * [`read`] – lines from a file, plain or compressed, in blocks
//! * [`verify`] – judging them: faults by the entry's id, and what could not be told

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
