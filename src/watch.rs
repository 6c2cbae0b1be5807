//! What watching a table needs beyond SQL: its baseline, the entries about its watching, the DDL guard, and finding
//! `leads` when the extension is created. The rest is in sql/60_watching.sql and sql/70_ddl_guard.sql.

mod baseline;
mod catalog;
mod check;
mod command;
mod ddl;
mod leads;
mod registry;
mod statement;

pub use check::{INTERVAL as CHECK_INTERVAL, relation_changed, tick as check};
pub use statement::CommandScope;
