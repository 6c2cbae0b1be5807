//! Canonical JSON: the only text of a JSON value in an entry.
//!
//! Key order and string escaping are those of RFC 8785. Numbers differ: RFC 8785 converts each
//! number to a double, which loses digits of PostgreSQL's `numeric`. Here a number is written as
//! its exact decimal text. This module deliberately builds no tree of JSON values: the writer
//! appends to the caller's buffer, and the checker reads the text once.

mod bytes;
mod check;
mod members;
mod order;
mod unescape;
mod write;

pub use bytes::{is_text, percent_encoded, write_bytes_value};
pub(crate) use check::check_str;
pub use check::{NotCanonical, Reason, check};
pub use members::{Members, members};
pub use order::{compare_key_bytes, compare_keys};
pub use unescape::unescape;
pub use write::{write_string, write_string_bytes};
