//! Implements the format of the audit trail, which `docs/FORMAT.md` defines byte by byte. This
//! crate does not depend on PostgreSQL.
//!
//! The extension writes entries with this crate, and every verifier in Rust checks entries with
//! this crate. Therefore the hashed bytes have only one definition in Rust. This crate hashes the
//! text of a JSON column exactly as it is stored.
//!
//! * [`canonical`] – canonical JSON: writes strings, orders keys, checks stored texts
//! * [`time`] – the text of a timestamp
//! * [`Entry`] – one row of `lead_audit.entry`, its preimage and its checksum
//! * [`EntryColumn`] – the columns of `lead_audit.entry`
//! * [`Fault`] – the faults that [`Entry::verify`] can find
//! * [`KeyChange`] – the content of a KEY entry, which states a change of the log's key or origin
//! * [`key_hash`], [`leaf_hash`] – the key hash and the leaf of an entry
//! * [`IdRanges`] – a set of ids, such as the ids of the entries of a checkpoint
//! * [`merkle`] – the Merkle tree over the entries: its root, its tiles, its proofs (RFC 6962)
//! * [`checkpoint`] – origin, size and root of the tree (C2SP tlog-checkpoint)
//! * [`note`] – the signed form of a checkpoint, and the texts of keys (C2SP signed-note)
//! * [`cosignature`] – a witness's signature under a checkpoint (C2SP tlog-cosignature)
//! * [`tlog_proof`] – a proof for a third party that one entry is in the log (C2SP tlog-proof)

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
