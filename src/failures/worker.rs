//! Turns records into entries, in the worker. `writer` makes the entries. For an error before
//! PostgreSQL knew the table (in parsing, in binding a parameter), `resolve` finds the table from
//! the statement's text.

mod lock_budget;
mod resolve;
mod writer;

pub use writer::{drain, load_names};
