//! From the trigger to the entry: which table (plan), what was in the row (encode, numeric, row_image), what happened (event).

mod encode;
mod event;
mod jsonb;
mod key;
mod moved;
mod numeric;
mod pinned;
mod plan;
mod plan_cache;
mod row_image;
mod trigger;
mod truncate;

pub use event::{RowEvent, RowOperation, RowTexts, record_row, row_texts};
pub use key::key_of;
pub use moved::{follow_transactions, settle_statement};
pub use plan_cache::follow_relation_changes;
