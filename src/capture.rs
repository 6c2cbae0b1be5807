//! Turns the call of an audit trigger into an entry. The module `trigger` makes a `RowEvent` from
//! PostgreSQL's call of the trigger function. The module `row_layout` caches the columns of each
//! relation, with an encoder for each column. The module `encode` writes column values as JSON. The
//! module `crate::entries` receives the entry and writes it to the log.
//!
//! The module `replica_role` decides which writes of logical replication are recorded. The module
//! `truncate` handles TRUNCATE triggers. An UPDATE that moves a row to another partition fires the
//! audit trigger twice, as a DELETE and as an INSERT. The module `partition_move` joins these two
//! events into one event.

mod encode;
mod foreign_code;
pub mod jsonb;
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
pub use output_settings::MoneyTypes;
pub use partition_move::{subtransaction_commits, transaction_ends};
pub use replica_role::{ORIGIN_ONLY, set_outermost_callback};
pub use row_event::{RowEvent, RowOperation, RowTexts, record_row, row_texts, statement_ends};
pub use row_layout::{column_names, encoder_for, primary_key, relation_changed};

/// Drops the pending moves of a rolled-back subtransaction, and the row counts of its TRUNCATEs.
pub fn subtransaction_aborts(own: pgrx::pg_sys::SubTransactionId) {
    partition_move::subtransaction_aborts(own);
    truncate::subtransaction_aborts(own);
}
