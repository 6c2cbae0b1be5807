//! What an audit entry *is*, to the byte: `docs/FORMAT.md` in Rust, and nothing of Postgres.
//!
//! The extension writes with this crate and every verifier reads with it, so that there is one definition of what is
//! hashed. It never re-serialises what it is given: JSON columns are hashed as the text that is stored.
//!
//! * [`canonical`] – the JSON text that is hashed: writing strings, ordering keys, checking a stored text
//! * [`time`] – the text of an instant
//! * [`Entry`] – one row of `lead_audit.entry`, its preimage and its checksum
//! * [`Fault`] – what [`Entry::verify`] can find wrong with it
//! * [`key_hash`], [`leaf_hash`] – the two other hashes of the format

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod canonical;
mod decimal;
mod entry;
mod hash;
pub mod time;
mod verify;

pub use canonical::NotCanonical;
pub use decimal::write_i64;
pub use entry::{Entry, FORMAT, write_uuid};
pub use hash::{key_hash, leaf_hash};
pub use verify::Fault;
