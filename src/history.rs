//! `lead_audit.history()` and its relatives find entries by the key that their caller writes. The
//! functions themselves are in sql/80_query.sql.

mod key;

pub use key::{key_of, key_types};
