//! Finds entries by a key that the caller gives, for `lead_audit.history()` and related functions,
//! which are defined in sql/80_query.sql. Also computes the JSON columns of the view
//! lead_audit.log.

mod key;
mod log_values;

pub use key::{key_of, key_types};
