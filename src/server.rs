//! Postgres behind small safe wrappers, named after what Postgres calls them. Everything above this module is told of an
//! error as a value or by unwinding; nothing here keeps state of its own.

mod allocator;
mod error;
mod extension;
mod id_scan;
mod lock;
mod memory;
mod plan;
mod relation;
mod scan;
mod sequence;
mod snapshot;
mod subtransaction;
mod text;
mod triggers;
mod user;

pub use error::{ServerError, packed_sqlstate_text, sqlstate_text};
pub use extension::extension_version;
pub use id_scan::IdScan;
pub use lock::lock_task;
pub use memory::{RowMemory, in_context, new_context};
pub use plan::{Plan, with_spi};
pub use relation::{OpenRelation, attribute};
pub use scan::{for_each_row, leaves, partition_ancestors};
pub use sequence::next_value;
pub use snapshot::NewestSnapshot;
pub use subtransaction::{TransactionEnd, current_subtransaction, in_subtransaction, trigger_depth};
pub use text::{Text, borrowed_text, capped, detoasted, parse_uuid};
pub use triggers::watch_of_triggers;
pub use user::{as_owner_restricted, as_user, current_database, may_create_databases, owns_database, owns_relation, role_name};
