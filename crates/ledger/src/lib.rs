//! What an audit entry *is*, to the byte: `docs/FORMAT.md` in Rust, and nothing of Postgres.
//!
//! The extension writes with this crate and every verifier reads with it, so that there is one
//! definition of what is hashed. It never re-serialises what it is given: JSON columns are hashed
//! as the text that is stored.
//!
//! * [`canonical`] – the JSON text that is hashed: writing strings, ordering keys, checking a
//!   stored text
//! * [`time`] – the text of an instant
//! * [`Entry`] – one row of `lead_audit.entry`, its preimage and its checksum
//! * [`EntryColumn`] – the columns of that table
//! * [`Fault`] – what [`Entry::verify`] can find wrong with it
//! * [`KeyChange`] – what an entry says by which the log changes its key or origin
//! * [`key_hash`], [`leaf_hash`] – the two other hashes of the format
//! * [`IdRanges`] – the ids that a checkpoint took
//! * [`merkle`] – the tree over the entries: its root, its tiles, its proofs (RFC 6962)
//! * [`checkpoint`] – what a log says of its tree: origin, size, root (C2SP tlog-checkpoint)
//! * [`note`] – how it is signed, and the texts of keys (C2SP signed-note)
//! * [`cosignature`] – how a witness confirms it (C2SP tlog-cosignature)
//! * [`tlog_proof`] – one entry shown to a third party (C2SP tlog-proof)

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
