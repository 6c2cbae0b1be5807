//! Exports of the audit trail: `docs/FORMAT.md`, "The export", in Rust, independent of PostgreSQL.
//!
//! An export is lines of canonical JSON. Trust comes only from its signed checkpoints, or from a
//! checkpoint that the verifier already had; all other parts are untrusted. This crate reads
//! hostile files: [`read::Limits`] bounds the memory, no code recurses, and all output from a file
//! is escaped.
//!
//! * [`Record`] – one line
//! * [`write`] – writes lines to a file, plain or compressed, and continues an interrupted file
//! * [`read`] – reads lines from a file, plain or compressed, in blocks
//! * [`verify`] – judges the lines: reports faults by the entry's id, and undecided questions

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
