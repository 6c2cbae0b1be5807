//! Keeps a callback at the bottom of PostgreSQL's list of error callbacks, and decides whether an
//! error may be recorded.

use super::activation;
use super::statement_scope::error_callbacks;
use crate::actor;
use crate::capture;
use crate::failures::queue;
use crate::pg::new_context;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    static BASE: Cell<*mut pg_sys::ErrorContextCallback> =
        const { Cell::new(std::ptr::null_mut()) };
    /// Holds the copy of the error and its rows.
    static MEMORY: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// Puts the callback for errors outside of statements at the bottom of the list. PostgreSQL empties
/// the list after an error.
#[inline]
pub fn keep_base() {
    // SAFETY: the list is empty, and the callback lives as long as the process.
    unsafe {
        if pg_sys::error_context_stack.is_null() {
            queue::end_recording();
            if BASE.get().is_null() {
                make_base();
            }
            // BASE is null without callbacks, and the list stays empty.
            pg_sys::error_context_stack = BASE.get();
        }
    }
}

#[cold]
fn make_base() {
    let Some(callbacks) = error_callbacks() else { return };
    actor::remember_client_addr();
    // SAFETY: makes a new context that is never deleted.
    MEMORY.set(unsafe { new_context(pg_sys::TopMemoryContext, c"lead_audit error being raised") });
    BASE.set(Box::into_raw(Box::new(pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(callbacks.outside_of_statements),
        arg: std::ptr::null_mut(),
    })));
    capture::set_outermost_callback(BASE.get());
}

/// Returns the memory context to copy the error into, or null if the error may not be recorded.
/// Call `end_record` after it.
pub fn begin_record() -> pg_sys::MemoryContext {
    // SAFETY: reads variables of the session.
    let is_possible = unsafe {
        !queue::is_recording()
            && pg_sys::CritSectionCount == 0
            && !pg_sys::proc_exit_inprogress
            && pg_sys::IsTransactionState()
            && !MEMORY.get().is_null()
            && activation::is_active()
    };
    if !is_possible {
        return std::ptr::null_mut();
    }
    queue::begin_recording();
    MEMORY.get()
}

/// Frees the copy of the error and its rows after the record is made.
pub fn end_record() {
    queue::end_recording();
    if !MEMORY.get().is_null() {
        // SAFETY: the context belongs to this module, and nothing points into it any more.
        unsafe { pg_sys::MemoryContextReset(MEMORY.get()) };
    }
}

/// Resets the state at an abort.
pub fn abort() {
    queue::end_recording();
    keep_base();
}
