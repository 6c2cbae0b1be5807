//! Finds entries by a key that the caller writes, for `lead_audit.history()` and related functions.
//! The functions themselves are in sql/80_query.sql.

mod key;

pub use key::{key_of, key_types};
