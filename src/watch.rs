//! Contains the Rust code for watched tables: the baseline, the entries of enable() and disable(),
//! the DDL guard, and the start of watching the table `leads` at CREATE EXTENSION. The SQL code for
//! watched tables is in sql/60_watching.sql and sql/70_ddl_guard.sql.

mod audit_triggers;
mod baseline;
mod catalog;
mod check_watched;
mod command_effects;
mod command_text;
mod ddl_guard;
mod leads;
mod nested_writes;
mod registry;

pub use audit_triggers::{call_begins, call_ends, concerns_call, restricts_calls};
pub use check_watched::{INTERVAL as CHECK_INTERVAL, relation_changed, tick as check};
pub use command_text::CommandScope;
pub use nested_writes::{copy_begins, statement_ends, subtransaction_aborts, transaction_ends};
