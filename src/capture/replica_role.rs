//! Decides which writes in the replica role (session_replication_role) are recorded.
//!
//! Audit triggers are ENABLE ALWAYS, so PostgreSQL calls them in every replication role. A table
//! that was enabled without `replica => true` usually gets no entries for writes of logical
//! replication, because the publishing database has recorded these writes. The owner of a
//! subscription chooses the publishing database, and can choose a database that has recorded
//! nothing. The library therefore records the writes of a subscription whose owner is not a
//! superuser.

use crate::pg::trigger_depth;
use pgrx::pg_sys;
use std::cell::Cell;

/// The last argument of an audit trigger on a table that was enabled without `replica => true`.
pub const ORIGIN_ONLY: &str = "origin_only";

/// Returns whether the session is in the replica role. Each write of a row to a watched table calls
/// this function, so the function must be cheap.
pub fn is_replica_role() -> bool {
    // SAFETY: the code only reads a variable of the session.
    unsafe { pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 }
}

/// Returns whether the write that fired the audit trigger needs no entry. The caller has checked
/// that the session is in the replica role, and that the table was enabled without
/// `replica => true`. A write by the worker of a superuser's subscription needs no entry. A write
/// by an ordinary session in the replica role needs no entry either, because only a superuser can
/// allow a session to take this role.
pub fn is_trusted_write() -> bool {
    // SAFETY: the code only reads variables of the process.
    let is_subscription = unsafe { pg_sys::IsLogicalWorker() };
    !is_subscription || (is_subscription_of_superuser() && is_from_publisher())
}

/// Returns whether the process works for a subscription whose owner is a superuser. The worker of a
/// subscription runs triggers as the table's owner, but its authenticated role is the
/// subscription's owner.
fn is_subscription_of_superuser() -> bool {
    // SAFETY: the argument is the authenticated role of this process. The call is cheap, because
    // superuser_arg() caches its last answer.
    unsafe { pg_sys::superuser_arg(pg_sys::GetAuthenticatedUserId()) }
}

thread_local! {
    static OUTERMOST: Cell<*mut pg_sys::ErrorContextCallback> = const { Cell::new(std::ptr::null_mut()) };
}

/// Tells this module which error callback belongs to the library. The library keeps this callback
/// at the bottom of PostgreSQL's list of error callbacks.
pub fn set_outermost_callback(callback: *mut pg_sys::ErrorContextCallback) {
    OUTERMOST.set(callback);
}

/// Returns whether the worker of a subscription writes the row itself, because the publisher sent a
/// change of the row. Returns false if the row is written by code that runs during another write of
/// the worker. Such code can be in a trigger, a trigger's condition, or a function of an index, a
/// constraint or a default. The owner of the subscriber's table can define such triggers and
/// functions.
///
/// While the worker itself writes a row, PostgreSQL's list of error callbacks contains only the
/// callbacks of the worker and of the library. While the worker itself writes a row, no portal is
/// active. Code that the write of a row calls can write to a table only through SPI, SQL functions
/// or a cursor. SPI and the executor of SQL functions add error callbacks, and a cursor is a
/// portal. The check for an active portal also covers functions in C that read an open cursor and
/// add no error callback, for example cursor_to_xml().
fn is_from_publisher() -> bool {
    let outermost = OUTERMOST.get();
    // SAFETY: each error callback in PostgreSQL's list lives until the function that added it
    // returns.
    let has_no_inner_callback = unsafe {
        let innermost = pg_sys::error_context_stack;
        let is_last = |callback: *mut pg_sys::ErrorContextCallback| {
            callback.is_null() || callback == outermost
        };
        is_last(innermost) || is_of_worker(&*innermost) && is_last((*innermost).previous)
    };
    // SAFETY: the code only reads a variable of the process.
    let runs_no_portal = unsafe { pg_sys::ActivePortal.is_null() };
    trigger_depth() <= 1 && has_no_inner_callback && runs_no_portal
}

/// Returns whether an error callback belongs to a worker that applies the changes of a
/// subscription.
#[cfg(not(feature = "pg15"))]
fn is_of_worker(callback: &pg_sys::ErrorContextCallback) -> bool {
    mod raw {
        unsafe extern "C-unwind" {
            // pgrx has no binding for this function, which replication/worker_internal.h declares.
            pub fn apply_error_callback(arg: *mut std::ffi::c_void);
        }
    }
    let of_worker: unsafe extern "C-unwind" fn(*mut std::ffi::c_void) = raw::apply_error_callback;
    callback.callback.is_some_and(|function| std::ptr::fn_addr_eq(function, of_worker))
}

/// Always returns true, because PostgreSQL 15 does not export the error callback of the worker. In
/// PostgreSQL 15, the worker runs the code of a table's owner with the rights of the subscription's
/// owner, who is a superuser here. Code with the rights of a superuser can do anything, so an
/// unrecorded write gives the table's owner no additional power.
#[cfg(feature = "pg15")]
fn is_of_worker(_callback: &pg_sys::ErrorContextCallback) -> bool {
    true
}
