//! Wraps PostgreSQL in safe functions and types, which are named after PostgreSQL's terms. The
//! functions of this module return an error of PostgreSQL as a value, or raise the error by
//! unwinding. In this module, only the allocator and the signal handlers have static variables.

mod allocator;
mod background_process;
mod catalog;
mod error;
mod extension;
mod foreign_call;
mod id_scan;
mod memory;
mod relation;
mod spi;
mod text;
mod transaction;
mod user;
mod utility_call;

pub use background_process::{
    NextTurn, handle_signals, in_extension_transaction, in_transaction, must_stop,
    set_signal_handler, wait,
};
pub use catalog::{catalog_column, relation_named};
pub use error::{ServerError, capped, packed_sqlstate_text, sqlstate_text};
pub use extension::{extension_owner, extension_version, hold_extension};
pub use foreign_call::call_foreign;
pub use id_scan::IdScan;
pub use memory::{RowMemory, in_context, new_context};
pub use relation::{
    OpenRelation, attribute, attribute_name, for_each_row, leaves, next_value, partition_ancestors,
    relation_name, schema_name, watch_of_triggers,
};
pub use spi::{SpiPlan, with_spi, with_tid_scans};
pub use text::{
    Hash32, NotWritten, OutputFunction, Text, TextWriter, borrowed_text, detoasted, out_of_memory,
    output_text, parse_uuid,
};
pub use transaction::{
    NewestSnapshot, TransactionEnd, current_subtransaction, in_subtransaction, lock_task,
    trigger_depth,
};
pub use user::{
    as_owner_restricted, as_user, as_user_restricted, current_database, current_role, is_superuser,
    is_template, may_create_databases, owns_database, owns_relation, role_name, with_search_path,
};
pub use utility_call::UtilityCall;
