//! In-database tests, one file for each behaviour. Each test runs as a superuser in a transaction
//! that is rolled back, in a database that contains only the extension. `helpers` contains the
//! functions that all tests use.

mod capture;
mod changed_entries;
mod changed_tree;
mod context;
mod ddl_guard;
mod helpers;
mod hostile_names;
mod hostile_owners;
mod install;
mod invalid_bytes;
mod log_table;
mod on_error;
mod order;
mod partitions;
mod privileges;
mod rollback;
mod row_keys;
mod sealing;
mod sql_statements;
mod switches;
mod values;
mod versions;
