//! Decides which writes in the replica role (session_replication_role) are recorded.
//!
//! Audit triggers are ENABLE ALWAYS, so PostgreSQL calls them in every replication role. A table
//! that was enabled without `replica` gets no entries for the writes of logical replication,
//! because their source has recorded them. This reasoning holds only if a superuser chose the
//! source: a subscription of another role can apply changes that no source has recorded.

use crate::pg::trigger_depth;
use pgrx::pg_sys;
use std::cell::Cell;

/// The last argument of an audit trigger whose table was enabled without `replica`.
pub const ORIGIN_ONLY: &str = "origin_only";

/// Returns whether the session is in the replica role. Each write of a row to a watched table calls
/// this function, so it must be cheap.
pub fn is_replica_role() -> bool {
    // SAFETY: reads a variable of the session.
    unsafe { pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 }
}

/// Returns whether the write of the running audit trigger, a write in the replica role, needs no
/// entry. No entry is needed for a write by the worker of a superuser's subscription. The same is
/// true for an ordinary session, because only a superuser can allow a session to take the replica
/// role.
pub fn is_trusted_write() -> bool {
    // SAFETY: reads variables of the process.
    let is_subscription = unsafe { pg_sys::IsLogicalWorker() };
    !is_subscription || (is_subscription_of_superuser() && is_from_publisher())
}

/// Returns whether the process works for a subscription whose owner is a superuser. The worker runs
/// triggers as the table's owner, but its authenticated role is the subscription's owner.
fn is_subscription_of_superuser() -> bool {
    // SAFETY: the role is that of the process. superuser_arg() caches its last answer.
    unsafe { pg_sys::superuser_arg(pg_sys::GetAuthenticatedUserId()) }
}

thread_local! {
    static OUTERMOST: Cell<*mut pg_sys::ErrorContextCallback> = const { Cell::new(std::ptr::null_mut()) };
}

/// Sets the error callback that the library itself keeps at the bottom of PostgreSQL's list.
pub fn set_outermost_callback(callback: *mut pg_sys::ErrorContextCallback) {
    OUTERMOST.set(callback);
}

/// Returns whether the worker itself writes the row. Returns false if the worker has written
/// another row, and that write has called the code that now writes: a trigger or its condition, or
/// a function in an index, a constraint or a default. The owner of a table can define such code.
///
/// While the worker itself writes, PostgreSQL's list of error callbacks contains no callback but
/// the worker's own and the library's, and no portal runs. Code that a row calls can write to a
/// table only through SPI or the executor of SQL functions, which add callbacks of their own, or
/// through a cursor, which is a portal. Some functions in C read an open cursor and add no
/// callback, for example cursor_to_xml().
fn is_from_publisher() -> bool {
    let outermost = OUTERMOST.get();
    // SAFETY: each callback of the list lives until its function returns.
    let has_no_inner_callback = unsafe {
        let innermost = pg_sys::error_context_stack;
        let is_last = |callback: *mut pg_sys::ErrorContextCallback| {
            callback.is_null() || callback == outermost
        };
        is_last(innermost) || is_of_worker(&*innermost) && is_last((*innermost).previous)
    };
    // SAFETY: reads a variable of the process.
    let runs_no_portal = unsafe { pg_sys::ActivePortal.is_null() };
    trigger_depth() <= 1 && has_no_inner_callback && runs_no_portal
}

/// Returns whether this callback belongs to a worker that applies the changes of a subscription.
#[cfg(not(feature = "pg15"))]
fn is_of_worker(callback: &pg_sys::ErrorContextCallback) -> bool {
    mod raw {
        unsafe extern "C-unwind" {
            // replication/worker_internal.h, which pgrx does not bind.
            pub fn apply_error_callback(arg: *mut std::ffi::c_void);
        }
    }
    let of_worker: unsafe extern "C-unwind" fn(*mut std::ffi::c_void) = raw::apply_error_callback;
    callback.callback.is_some_and(|function| std::ptr::fn_addr_eq(function, of_worker))
}

/// Always returns true, because PostgreSQL 15 does not export the callback. In PostgreSQL 15, code
/// that a row calls has the rights of the subscription's owner, so the owner of the table gains
/// nothing from an unrecorded write.
#[cfg(feature = "pg15")]
fn is_of_worker(_callback: &pg_sys::ErrorContextCallback) -> bool {
    true
}
