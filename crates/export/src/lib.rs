//! Exports of the audit trail: `docs/FORMAT.md`, "The export", in Rust, independent of PostgreSQL.
//!
//! An export consists of lines of canonical JSON. A verifier trusts an export only because of its
//! signed checkpoints, or because of a checkpoint that the verifier had before. All other parts are
//! untrusted. This crate reads hostile files: [`read::Limits`] bounds the memory, no code recurses,
//! and all text from a file is escaped before it is shown.
//!
//! * [`Record`] – the content of one line
//! * [`write`] – writes lines to a file, plain or compressed, and continues an interrupted file
//! * [`read`] – reads lines from a file, plain or compressed, in blocks
//! * [`verify`] – judges the lines: reports each fault with the entry's id, and reports undecided
//!   questions

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
