//! An error is being raised, and later reported.
//!
//! PostgreSQL calls the functions in its list of error callbacks while the error is on top of its
//! stack, whatever raised it, be it a lack of memory. A guard would be wrong here: to turn a second
//! error into a panic it empties that stack, the first error with it. So the callback is in two
//! parts. The first copies the error, and may itself run out of memory: that error then takes the
//! place of the one being raised, as anywhere in PostgreSQL. It calls no Rust code that has
//! something to drop. The second part, which makes a record of the copy, calls nothing of
//! PostgreSQL that can raise an error.

use crate::failures::{self, ErrorCallbacks, FailingRow, StatementScope};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_void;

thread_local! {
    static PREVIOUS_EMIT_LOG: Cell<pg_sys::emit_log_hook_type> = const { Cell::new(None) };
}

mod raw {
    unsafe extern "C-unwind" {
        // The same function as pgrx binds, without its guard.
        pub fn CopyErrorData() -> *mut pgrx::pg_sys::ErrorData;
    }
}

pub fn install() {
    failures::set_error_callbacks(ErrorCallbacks {
        in_statement: error_in_statement,
        outside_of_statements: error_outside_of_statements,
    });
    // SAFETY: called once, while the library is loaded; hooks stay for the life of the process.
    unsafe {
        PREVIOUS_EMIT_LOG.set(pg_sys::emit_log_hook);
        pg_sys::emit_log_hook = Some(emit_log);
    }
}

// Unguarded: a guard empties the stack of errors (see above). Neither this nor what `record` calls
// can panic.
unsafe extern "C-unwind" fn error_in_statement(argument: *mut c_void) {
    let scope = argument.cast::<StatementScope>();
    // One error, one record: the innermost statement's.
    if failures::innermost_scope() == scope {
        // SAFETY: the scope is live: it is in the list.
        unsafe { record(scope) }
    }
}

// Unguarded: as `error_in_statement`.
unsafe extern "C-unwind" fn error_outside_of_statements(_argument: *mut c_void) {
    // Called last, whatever was under way. A scope has made its record.
    if failures::innermost_scope().is_null() {
        // SAFETY: null says that there is no scope.
        unsafe { record(std::ptr::null_mut()) }
    }
}

/// # Safety
/// `scope` must be null or a scope in PostgreSQL's list.
unsafe fn record(scope: *mut StatementScope) {
    let mut row = FailingRow::none();
    // SAFETY: called while an error is being raised. The memory context is one of ours, emptied
    // when the record is made. An error in here leaves the frame at once; nothing in it is to be
    // dropped.
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
    row: *const FailingRow,
) {
    // SAFETY: the function above passes a live scope or null, the copy of the error, and rows that
    // it has copied.
    unsafe { failures::error_raised(scope.as_ref(), &*error, &*row) }
}

/// The error is about to be reported to the server's log and to the client: whoever could have
/// caught it has not. A client that has seen its error finds the record in the queue, or in the
/// server's log.
unsafe extern "C-unwind" fn emit_log(data: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes the error, which is live. The text is kept by the session's state
    // while it is written.
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
    // SAFETY: as above.
    unsafe { failures::error_is_final(&*data) }
}
