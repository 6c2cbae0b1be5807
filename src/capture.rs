//! From the trigger to the entry. A row takes one way: `trigger` makes a `row_event` of what
//! PostgreSQL passes; `row_layout` knows how rows of the table are written, and `encode` writes
//! their values; `crate::entries` takes the finished entry.
//!
//! `truncate` is the same for TRUNCATE. `partition_move` makes one event of the two that an UPDATE
//! of the partition key fires.

mod encode;
mod foreign_code;
pub mod jsonb;
mod money;
mod numeric;
mod output_settings;
mod partition_move;
mod row_event;
mod row_image;
mod row_layout;
mod trigger;
mod truncate;
mod type_search;

pub use foreign_code::{ForeignCode, casts_changed, readable_type};
pub use money::MoneyTypes;
pub use partition_move::{subtransaction_aborts, subtransaction_commits, transaction_ends};
pub use row_event::{RowEvent, RowOperation, RowTexts, record_row, row_texts, statement_ends};
pub use row_layout::{column_names, encoder_for, primary_key, relation_changed};
