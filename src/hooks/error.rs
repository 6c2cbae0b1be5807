//! Handles an error while it is raised, and again when it is reported.
//!
//! PostgreSQL calls its error callbacks while the error is on top of its error stack, for every
//! cause, lack of memory included. A guard would be wrong here: to turn a second error into a panic
//! it empties that stack, and the first error is lost. So the callback has two parts. The first
//! part copies the error. If it runs out of memory, that new error replaces the first, as elsewhere
//! in PostgreSQL. It calls no Rust code with values to drop. The second part makes a record of the
//! copy. It calls no function of PostgreSQL that can raise an error.

use crate::failures::{self, ErrorCallbacks, RejectedRow, StatementScope};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_void;

thread_local! {
    static PREVIOUS_EMIT_LOG: Cell<pg_sys::emit_log_hook_type> = const { Cell::new(None) };
}

mod raw {
    unsafe extern "C-unwind" {
        // The function that pgrx binds, without pgrx's guard.
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

// Unguarded: a guard empties the error stack (see above). Neither this function nor `record` can
// panic.
unsafe extern "C-unwind" fn error_in_statement(argument: *mut c_void) {
    let scope = argument.cast::<StatementScope>();
    // Each error gets one record, made by the innermost scope.
    if failures::innermost_scope() == scope {
        // SAFETY: the scope is in the list, so it is live.
        unsafe { record(scope) }
    }
}

// Unguarded: for the reason that `error_in_statement` has.
unsafe extern "C-unwind" fn error_outside_of_statements(_argument: *mut c_void) {
    // PostgreSQL calls this callback last. If a scope exists, it has already made the record.
    if failures::innermost_scope().is_null() {
        // SAFETY: null means that no scope exists.
        unsafe { record(std::ptr::null_mut()) }
    }
}

/// # Safety
/// `scope` must be null or a scope in PostgreSQL's list.
unsafe fn record(scope: *mut StatementScope) {
    let mut row = RejectedRow::none();
    // SAFETY: called while an error is raised. The memory context belongs to this library and is
    // reset after the record is made. A further error leaves this frame at once, and it holds no
    // values to drop.
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
    // SAFETY: `record` passes a live scope or null, the copy of the error, and the rows that it
    // copied.
    unsafe { failures::error_raised(scope.as_ref(), &*error, &*row) }
}

/// The error is about to be reported to the server's log and to the client, so no code has caught
/// it. From now on the record is final: a client that has seen its error finds the record in the
/// queue or in the server's log.
unsafe extern "C-unwind" fn emit_log(data: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes the live error. The session's state keeps the text while it is
    // written.
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
    // SAFETY: `data` is the live error, as in `emit_log`.
    unsafe { failures::error_is_final(&*data) }
}
