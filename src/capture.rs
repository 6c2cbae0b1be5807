//! From the trigger to the entry: which table (plan), what was in the row (encode, numeric, row_image), what happened (event).

mod encode;
mod foreign_code;
pub mod jsonb;
mod money;
mod numeric;
mod output_settings;
mod partition_move;
mod plan_cache;
mod row_event;
mod row_image;
mod row_layout;
mod trigger;
mod truncate;

pub use encode::write_text;
pub use foreign_code::ForeignCode;
pub use money::MoneyTypes;
pub use partition_move::{settle_statement, subtransaction_aborts, subtransaction_commits, transaction_ends};
pub use plan_cache::relation_changed;
pub use row_event::{RowEvent, RowOperation, RowTexts, record_row, row_texts};
pub use row_layout::{column_names, encoder_for, primary_key};
