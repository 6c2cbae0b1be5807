//! In-database tests, a file for each behaviour. Each test runs in a transaction of its own that is
//! rolled back, as superuser in a database that has nothing but the extension. `trail` is what they
//! share.

mod capture;
mod changed_entries;
mod changed_tree;
mod context;
mod ddl_guard;
mod hostile_names;
mod hostile_owners;
mod install;
mod invalid_bytes;
mod keys;
mod log_table;
mod on_error;
mod order;
mod partitions;
mod privileges;
mod rollback;
mod sealing;
mod sql_statements;
mod switches;
mod trail;
mod values;
mod versions;
