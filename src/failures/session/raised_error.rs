//! Copies the fields of a PostgreSQL error. The copy of each text has at most `TEXT_LIMIT` bytes,
//! which is the maximum length of a text in a record.

use crate::failures::queue::record::{TEXT_LIMIT, capped_c};
use crate::pg::{capped, packed_sqlstate_text};
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};

/// The fields of an error from which the error's record is made.
pub struct RaisedError {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub constraint: Option<String>,
    pub column: Option<String>,
    pub schema: Option<String>,
    pub table: Option<String>,
    pub position: i32,
    pub internal_position: i32,
    /// The internal query of the error. The value is null, or a C string that lives as long as
    /// PostgreSQL's copy of the error.
    pub internal_query: *const c_char,
}

impl RaisedError {
    /// Copies the fields of an error.
    ///
    /// # Safety
    /// The error's texts must be C strings or null, and must outlive the result.
    pub unsafe fn of(data: &pg_sys::ErrorData) -> Self {
        // SAFETY: the texts are C strings or null (see # Safety).
        let text = |text: *const c_char| unsafe { capped_c(text, TEXT_LIMIT) };
        RaisedError {
            code: packed_sqlstate_text(data.sqlerrcode),
            message: text(data.message).unwrap_or_default(),
            detail: text(data.detail),
            constraint: text(data.constraint_name),
            column: text(data.column_name),
            schema: text(data.schema_name),
            table: text(data.table_name),
            position: data.cursorpos,
            internal_position: data.internalpos,
            internal_query: data.internalquery,
        }
    }

    /// Returns whether the error names the table with this schema and this name.
    pub fn names(&self, schema: &str, table: &str) -> bool {
        self.schema.as_deref() == Some(schema) && self.table.as_deref() == Some(table)
    }
}

/// Returns the SQLSTATE and the message of an error that PostgreSQL is reporting, in the form that
/// records contain.
pub fn code_and_message(data: &pg_sys::ErrorData) -> (String, String) {
    // SAFETY: `data` is PostgreSQL's own copy of the error, so its message is a C string or null.
    let message = unsafe { capped_c(data.message, TEXT_LIMIT) };
    (packed_sqlstate_text(data.sqlerrcode), message.unwrap_or_default())
}

/// Returns whether an error names the table with this schema and this name.
///
/// # Safety
/// The error's names must be C strings or null.
pub unsafe fn error_names(data: &pg_sys::ErrorData, schema: &str, table: &CStr) -> bool {
    // SAFETY: the names are C strings or null (see # Safety).
    unsafe {
        !data.schema_name.is_null()
            && !data.table_name.is_null()
            && CStr::from_ptr(data.schema_name).to_bytes() == schema.as_bytes()
            && CStr::from_ptr(data.table_name) == table
    }
}

/// Cuts a text to `TEXT_LIMIT`, the maximum length of a text in a record.
pub fn limited(text: &str) -> String {
    capped(text.as_bytes(), TEXT_LIMIT)
}
