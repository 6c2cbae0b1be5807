//! Failures in the worker: `write` makes entries of records. For errors that came before PostgreSQL
//! knew the table (in parsing, in binding a parameter), `resolve` finds it out from the statement's
//! text.

mod lock_budget;
mod resolve;
mod writer;

pub use writer::{drain, load_names};
