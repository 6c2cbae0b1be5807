//! Defines canonical JSON, in which each JSON value has exactly one text.
//!
//! The order of keys and the escaping of strings are those of RFC 8785. Numbers differ from RFC
//! 8785, which converts each number to a double and thereby loses digits of PostgreSQL's `numeric`.
//! In canonical JSON, a number is its exact decimal text. This module deliberately builds no tree
//! of JSON values: its writer appends to the caller's buffer, and its checker reads the text once.

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
