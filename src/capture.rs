//! Turns the call of a trigger into an entry. `trigger` makes a `row_event` from PostgreSQL's call.
//! `row_layout` caches the columns of the table, each with its encoder. `encode` writes the values.
//! `crate::entries` receives the finished entry.
//!
//! `replica_role` decides which writes of logical replication are recorded. `truncate` handles
//! TRUNCATE. An UPDATE of the partition key fires a DELETE and an INSERT trigger: `partition_move`
//! joins the two events into one.

mod encode;
mod foreign_code;
pub mod jsonb;
mod money;
mod numeric;
mod output_settings;
mod partition_move;
mod replica_role;
mod row_event;
mod row_image;
mod row_layout;
mod trigger;
mod truncate;
mod type_search;

pub use foreign_code::{ForeignCode, casts_changed, readable_type};
pub use money::MoneyTypes;
pub use partition_move::{subtransaction_commits, transaction_ends};
pub use replica_role::{ORIGIN_ONLY, set_outermost_callback};
pub use row_event::{RowEvent, RowOperation, RowTexts, record_row, row_texts, statement_ends};
pub use row_layout::{column_names, encoder_for, primary_key, relation_changed};

/// A subtransaction was rolled back: drops its moves and its counts of truncated rows.
pub fn subtransaction_aborts(own: pgrx::pg_sys::SubTransactionId) {
    partition_move::subtransaction_aborts(own);
    truncate::subtransaction_aborts(own);
}
