//! In-database tests, one file for each behaviour. Each test runs as a superuser in a transaction
//! that is rolled back, in a database that contains only the extension. `helpers` contains the
//! functions that all tests use.

mod changed_entries;
mod changed_tree;
mod context;
mod ddl_guard;
mod enable;
mod entry_order;
mod helpers;
mod hostile_names;
mod hostile_owners;
mod installation;
mod invalid_bytes;
mod library_version;
mod on_error;
mod partitions;
mod privileges;
mod rollback;
mod row_changes;
mod row_keys;
mod sealing;
mod settings;
mod sql_statements;
mod values;
mod writer;
