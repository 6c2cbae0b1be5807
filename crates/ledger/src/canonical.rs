//! Canonical JSON: the one text that a JSON value has in an entry.
//!
//! Key order and string escaping are those of RFC 8785. Numbers are not: RFC 8785 sends them
//! through a double, which loses what PostgreSQL's `numeric` keeps, so here a number is its exact
//! decimal text. There is no value tree in this module, on purpose: the writer appends to the
//! caller's buffer, the checker reads the text once.

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
