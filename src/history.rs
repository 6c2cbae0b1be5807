//! Converts the row keys that users pass to `lead_audit.history()` and related functions
//! (sql/80_query.sql). These SQL functions find the entries of a row by the converted key. The
//! module `log_values` computes the JSON columns of the view lead_audit.log.

mod key;
mod log_values;

pub use key::{key_of, key_types};
