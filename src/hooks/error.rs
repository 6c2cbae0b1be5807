//! Handles an error at the time when it is raised, and again when it is reported.
//!
//! PostgreSQL calls its error callbacks for every error, while the error is on top of the error
//! stack, even if memory is exhausted. An error callback must have no guard (`pg_guard`). If the
//! callback raised a second error, a guard would empty the error stack to turn the second error
//! into a panic. With an empty error stack, the error for which PostgreSQL called the callback
//! would be lost. The error callback of lead_audit therefore has two parts. The first part of the
//! callback copies the error, and calls no Rust code that has values to drop. If memory is
//! exhausted while the first part of the callback copies the error, the out-of-memory error
//! replaces the original error. An error in one of PostgreSQL's own error callbacks also replaces
//! the original error. The second part of the callback makes a record from the copy of the error.
//! The second part of the callback calls no function of PostgreSQL that can raise an error.

use crate::failures::{self, ErrorCallbacks, RejectedRow, StatementScope};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_void;

thread_local! {
    static PREVIOUS_EMIT_LOG: Cell<pg_sys::emit_log_hook_type> = const { Cell::new(None) };
}

mod raw {
    unsafe extern "C-unwind" {
        // pgrx's own binding of this function has a guard (`pg_guard_ffi_boundary`), which must not
        // run in an error callback.
        pub fn CopyErrorData() -> *mut pgrx::pg_sys::ErrorData;
    }
}

pub fn install() {
    failures::set_error_callbacks(ErrorCallbacks {
        in_statement: error_in_statement,
        outside_of_statements: error_outside_of_statements,
    });
    // SAFETY: `install` is called once, while the library is being loaded. The hook functions exist
    // for the life of the process.
    unsafe {
        PREVIOUS_EMIT_LOG.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(emit_log);
    }
}

// Unguarded: a guard would empty the error stack (see the head of this file). Neither this function
// nor `record` can panic.
unsafe extern "C-unwind" fn error_in_statement(argument: *mut c_void) {
    let scope = argument.cast::<StatementScope>();
    // PostgreSQL calls the error callbacks of all open statement scopes. Only the callback of the
    // innermost scope makes a record, so each error gets one record.
    if failures::innermost_scope() == scope {
        // SAFETY: the statement scope is in the list of error callbacks, so it is live.
        unsafe { record(scope) }
    }
}

// Unguarded: a guard would empty the error stack (see the head of this file).
unsafe extern "C-unwind" fn error_outside_of_statements(_argument: *mut c_void) {
    // PostgreSQL calls this error callback after the callbacks of all statement scopes. If a
    // statement scope is open, the callback of the innermost scope has already made the record.
    if failures::innermost_scope().is_null() {
        // SAFETY: a null pointer is a valid argument, and means that no statement scope is open.
        unsafe { record(std::ptr::null_mut()) }
    }
}

/// # Safety
/// `scope` must be null, or a statement scope in PostgreSQL's list of error callbacks.
unsafe fn record(scope: *mut StatementScope) {
    let mut row = RejectedRow::none();
    // SAFETY: an error is being raised, so CopyErrorData has an error to copy. The memory context
    // belongs to this library, and is reset after the record has been made. If a second error is
    // raised, it jumps over the frame of this function, which holds no values to drop.
    unsafe {
        let memory = failures::begin_record();
        if memory.is_null() {
            return;
        }
        let former = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = memory;
        let error = raw::CopyErrorData();
        if (*error).elevel >= pgrx::PgLogLevel::ERROR as i32 {
            row.locate(scope, error);
            row.copy();
            pg_sys::CurrentMemoryContext = former;
            failed(scope, error, &raw const row);
        }
        pg_sys::CurrentMemoryContext = former;
        failures::end_record();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn failed(
    scope: *mut StatementScope,
    error: *const pg_sys::ErrorData,
    row: *const RejectedRow,
) {
    // SAFETY: `record` passes a live scope or null, the live copy of the error, and a live
    // `RejectedRow`.
    unsafe { failures::error_raised(scope.as_ref(), &*error, &*row) }
}

/// Confirms the record of an error before PostgreSQL reports the error to the server's log and to
/// the client. An error that PostgreSQL reports was not caught by any code, so the record of the
/// error is final. When the client sees the error, the record of the error is in the queue or in
/// the server's log.
unsafe extern "C-unwind" fn emit_log(data: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes the live error. `unqueued` points to a line that the state of the
    // session owns. The line stays valid until the code has written it to the server's log.
    unsafe {
        if (*data).elevel >= pgrx::PgLogLevel::ERROR as i32 {
            let unqueued = final_record(data);
            if !unqueued.is_null() {
                failures::write_to_server_log(unqueued);
                failures::end_record();
            }
        }
        if let Some(previous) = PREVIOUS_EMIT_LOG.get() {
            previous(data);
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn final_record(
    data: *const pg_sys::ErrorData,
) -> *const std::ffi::c_char {
    // SAFETY: `data` is the live error that `emit_log` passes.
    unsafe { failures::error_is_final(&*data) }
}
