//! From the trigger to the entry: which table (plan), what was in the row (encode, numeric, row_image), what happened (event).

mod encode;
mod event;
mod foreign_code;
mod jsonb;
mod key;
mod money;
mod moved;
mod numeric;
mod pinned;
mod plan;
mod plan_cache;
mod row_image;
mod trigger;
mod truncate;
mod type_search;

pub use event::{RowEvent, RowOperation, RowTexts, record_row, row_texts};
pub use foreign_code::ForeignCode;
pub use key::{key_of, key_types};
pub use moved::{settle_statement, subtransaction_aborts, subtransaction_commits, transaction_ends};
pub use plan_cache::relation_changed;
