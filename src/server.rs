//! Postgres behind small safe wrappers, named after what Postgres calls them. Everything above this module is told of an
//! error as a value or by unwinding; nothing here keeps state of its own.

mod allocator;
mod error;
mod extension;
mod foreign_call;
mod id_scan;
mod lock;
mod memory;
mod names;
mod plan;
mod relation;
mod scan;
mod search_path;
mod sequence;
mod snapshot;
mod subtransaction;
mod text;
mod triggers;
mod user;

pub use error::{ServerError, packed_sqlstate_text, sqlstate_text};
pub use extension::{extension_version, hold_extension};
pub use foreign_call::call_foreign;
pub use id_scan::IdScan;
pub use lock::lock_task;
pub use memory::{RowMemory, in_context, new_context};
pub use names::{attribute_name, relation_name, schema_name};
pub use plan::{Plan, with_spi};
pub use relation::{OpenRelation, attribute};
pub use scan::{for_each_row, leaves, partition_ancestors};
pub use search_path::with_search_path;
pub use sequence::next_value;
pub use snapshot::NewestSnapshot;
pub use subtransaction::{TransactionEnd, current_subtransaction, in_subtransaction, trigger_depth};
pub use text::{Hash32, NotWritten, Text, TextWriter, borrowed_text, capped, detoasted, out_of_memory, parse_uuid};
pub use triggers::watch_of_triggers;
pub use user::{
    as_owner_restricted, as_user, current_database, is_template, may_create_databases, owns_database, owns_relation, role_name,
};
