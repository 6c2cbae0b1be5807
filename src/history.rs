//! Finds entries by a key that the caller writes, for `lead_audit.history()` and related functions.
//! The functions themselves are in sql/80_query.sql. Computes the columns of lead_audit.log.

mod key;
mod log_values;

pub use key::{key_of, key_types};
