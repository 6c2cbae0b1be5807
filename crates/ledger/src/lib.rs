//! Defines an audit entry byte by byte: `docs/FORMAT.md` in Rust, independent of PostgreSQL.
//!
//! The extension uses this crate to write entries, and every verifier in Rust uses it to read them,
//! so one definition fixes the hashed bytes. The crate never re-serialises its input: it hashes
//! JSON columns as their stored text.
//!
//! * [`canonical`] – the hashed JSON text: writes strings, orders keys, checks a stored text
//! * [`time`] – the text of a timestamp
//! * [`Entry`] – one row of `lead_audit.entry`, its preimage and its checksum
//! * [`EntryColumn`] – the columns of `lead_audit.entry`
//! * [`Fault`] – the faults that [`Entry::verify`] can find
//! * [`KeyChange`] – the content of an entry that changes the log's key or origin
//! * [`key_hash`], [`leaf_hash`] – the two hashes of the format other than the checksum
//! * [`IdRanges`] – a set of ids, such as the ids of the entries of a checkpoint
//! * [`merkle`] – the tree over the entries: its root, its tiles, its proofs (RFC 6962)
//! * [`checkpoint`] – origin, size and root of the tree (C2SP tlog-checkpoint)
//! * [`note`] – the signed form of a checkpoint, and the texts of keys (C2SP signed-note)
//! * [`cosignature`] – a witness's signature under a checkpoint (C2SP tlog-cosignature)
//! * [`tlog_proof`] – a proof to a third party that one entry is in the log (C2SP tlog-proof)

pub mod canonical;
pub mod checkpoint;
mod columns;
pub mod cosignature;
mod decimal;
mod encoding;
mod entry;
mod hash;
mod id_ranges;
mod key_change;
pub mod merkle;
pub mod note;
mod sink;
pub mod time;
pub mod tlog_proof;
mod verify;

pub use canonical::NotCanonical;
pub use columns::{ColumnType, EntryColumn};
pub use decimal::{parse_integer, write_i64};
pub use entry::{Entry, FORMAT, write_uuid};
pub use hash::{key_hash, leaf_hash};
pub use id_ranges::{IdRange, IdRanges, IdRangesError};
pub use key_change::KeyChange;
pub use sink::Sink;
pub use verify::Fault;
