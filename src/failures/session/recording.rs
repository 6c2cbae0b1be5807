//! Keeps an error callback of lead_audit at the bottom of PostgreSQL's list of error callbacks
//! (`error_context_stack`). lead_audit's callback handles errors outside of statements on watched
//! tables. This module also decides whether an error may be recorded.

use super::activation;
use super::statement_scope::error_callbacks;
use crate::actor;
use crate::capture;
use crate::failures::queue;
use crate::pg::new_context;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    /// lead_audit's callback at the bottom of the list of error callbacks, or null before the first
    /// call of `make_base`.
    static BASE: Cell<*mut pg_sys::ErrorContextCallback> =
        const { Cell::new(std::ptr::null_mut()) };
    /// The memory context for the copies of an error and of its rejected row.
    static MEMORY: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// Puts the callback for errors outside of statements on watched tables into PostgreSQL's list of
/// error callbacks, if the list is empty. PostgreSQL empties the list of error callbacks after an
/// error.
#[inline]
pub fn keep_base() {
    // SAFETY: the code changes the list of error callbacks only if the list is empty, and the
    // callback lives as long as the process.
    unsafe {
        if pg_sys::error_context_stack.is_null() {
            queue::end_recording();
            if BASE.get().is_null() {
                make_base();
            }
            // If the library is not preloaded, BASE stays null, and the list of error callbacks
            // stays empty.
            pg_sys::error_context_stack = BASE.get();
        }
    }
}

#[cold]
fn make_base() {
    let Some(callbacks) = error_callbacks() else { return };
    actor::remember_client_addr();
    // SAFETY: TopMemoryContext is live, and the new context is never deleted.
    MEMORY.set(unsafe { new_context(pg_sys::TopMemoryContext, c"lead_audit error being raised") });
    BASE.set(Box::into_raw(Box::new(pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(callbacks.outside_of_statements),
        arg: std::ptr::null_mut(),
    })));
    capture::set_outermost_callback(BASE.get());
}

/// Begins to make the record of an error. Returns the memory context into which the caller copies
/// the error, or null if the error cannot be recorded. If the result is not null, the caller must
/// later call [`end_record`].
pub fn begin_record() -> pg_sys::MemoryContext {
    // SAFETY: the code only reads variables of the session.
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

/// Ends the making of a record. Frees the copies of the error and of the rejected row.
pub fn end_record() {
    queue::end_recording();
    if !MEMORY.get().is_null() {
        // SAFETY: the memory context belongs to this module, and nothing points into the context
        // any more.
        unsafe { pg_sys::MemoryContextReset(MEMORY.get()) };
    }
}

/// Resets the state of this module. The function is called when a transaction has committed or
/// rolled back, or when a subtransaction has been rolled back.
pub fn abort() {
    queue::end_recording();
    keep_base();
}
