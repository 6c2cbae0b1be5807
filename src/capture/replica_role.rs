//! Decides which writes in the replica role (session_replication_role) are recorded.
//!
//! Audit triggers are ENABLE ALWAYS, so PostgreSQL calls them in each role. For a table that was
//! not enabled with `replica`, the writes of logical replication have no entries: they were
//! recorded at their source. This holds only if somebody who may do everything chose the source.
//! A subscription of another role can send anything.

use crate::pg::trigger_depth;
use pgrx::pg_sys;
use std::cell::Cell;

/// The last argument of an audit trigger, unless its table was enabled with `replica`.
pub const ORIGIN_ONLY: &str = "origin_only";

/// Whether the session is in the replica role. Cheap: each row of each watched table asks.
pub fn is_replica_role() -> bool {
    // SAFETY: reads a variable of the session.
    unsafe { pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 }
}

/// Whether the running audit trigger belongs to a write in the replica role that can stay without
/// an entry: of a session that a superuser allowed to take this role, or of a superuser's
/// subscription.
pub fn is_trusted_write() -> bool {
    // SAFETY: reads variables of the process.
    let is_subscription = unsafe { pg_sys::IsLogicalWorker() };
    !is_subscription || (is_subscription_of_superuser() && is_from_publisher())
}

/// Whether the process works for a subscription whose owner is a superuser. The worker runs
/// triggers as the table's owner, but its authenticated role is the subscription's owner.
fn is_subscription_of_superuser() -> bool {
    // SAFETY: the role is that of the process. superuser_arg() keeps its last answer.
    unsafe { pg_sys::superuser_arg(pg_sys::GetAuthenticatedUserId()) }
}

thread_local! {
    static OUTERMOST: Cell<*mut pg_sys::ErrorContextCallback> = const { Cell::new(std::ptr::null_mut()) };
}

/// Tells which of PostgreSQL's error callbacks the library itself keeps at the bottom of the list.
pub fn set_outermost_callback(callback: *mut pg_sys::ErrorContextCallback) {
    OUTERMOST.set(callback);
}

/// Whether the worker itself writes the row, not code that the row has called: a trigger or its
/// condition, or a function in an index, a constraint or a default. The owner of a table can define
/// such code.
///
/// While the worker writes, PostgreSQL's list of error callbacks is empty, or has only that of the
/// worker, and no portal runs. To write to a table, each function needs SPI or the executor of SQL
/// functions, which have callbacks of their own, or a cursor, which is a portal. A cursor that was
/// opened earlier can be read by a function in C without a callback (cursor_to_xml()).
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

/// Whether this is the callback of a worker that applies changes.
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

/// PostgreSQL 15 does not export the callback. There, code that a row calls has the rights of the
/// subscription's owner, so the owner of the table can gain nothing.
#[cfg(feature = "pg15")]
fn is_of_worker(_callback: &pg_sys::ErrorContextCallback) -> bool {
    true
}
