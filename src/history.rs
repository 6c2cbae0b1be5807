//! Converts a row key from the form in which a user passes it, so that `lead_audit.history()` and
//! related functions (sql/80_query.sql) can find the entries of the row. The module `log_values`
//! computes the JSON columns of the view lead_audit.log.

mod key;
mod log_values;

pub use key::{key_of, key_types};
