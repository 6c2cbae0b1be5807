//! Contains the common parts of the launcher and the workers: signals, waiting, transactions, and
//! the timing of tasks.

use super::{ServerError, hold_extension};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

mod raw {
    unsafe extern "C-unwind" {
        // pgrx also binds these functions, but with its guard (`pg_guard_ffi_boundary`), which must
        // not run in a signal handler.
        pub fn SetLatch(latch: *mut pgrx::pg_sys::Latch);
        pub fn SignalHandlerForConfigReload(signal: core::ffi::c_int);
    }
}

static STOP: AtomicBool = AtomicBool::new(false);
static IN_TRANSACTION: AtomicBool = AtomicBool::new(false);

/// Returns whether the process has received SIGTERM.
pub fn must_stop() -> bool {
    STOP.load(Ordering::Acquire)
}

// The C function that sets a signal handler is pqsignal. Since PostgreSQL 18, pqsignal is a macro
// for pqsignal_be.
#[cfg(not(feature = "pg18"))]
pub use pg_sys::pqsignal as set_signal_handler;
#[cfg(feature = "pg18")]
pub use pg_sys::pqsignal_be as set_signal_handler;

/// Sets up the signal handlers. SIGTERM cancels the transaction in progress, but does not end the
/// process. The main loop of the process decides when the process ends, so that a worker can still
/// write queued records.
pub fn handle_signals() {
    // SAFETY: the handlers have the signature that PostgreSQL requires, and are async-signal-safe.
    unsafe {
        set_signal_handler(libc::SIGHUP, Some(raw::SignalHandlerForConfigReload));
        set_signal_handler(libc::SIGTERM, Some(stop));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Handles SIGTERM. Sets flags and wakes the main loop.
// Unguarded: pgrx's guard must not run in a signal handler. This handler only sets variables and a
// latch.
unsafe extern "C-unwind" fn stop(_signal: i32) {
    // SAFETY: PostgreSQL's own handlers set these variables in the same way. The handler restores
    // errno for the interrupted code.
    unsafe {
        let errno = *libc::__errno_location();
        STOP.store(true, Ordering::Release);
        if IN_TRANSACTION.load(Ordering::Acquire) {
            pg_sys::QueryCancelPending = 1;
            pg_sys::InterruptPending = 1;
        }
        raw::SetLatch(pg_sys::MyLatch);
        *libc::__errno_location() = errno;
    }
}

/// The time at which a task of a background process runs next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NextTurn {
    /// The task runs again after its interval, because no work remains.
    AtInterval,
    /// The task runs again at once, because work remains.
    AtOnce,
    /// The task runs again after this duration, because more work may come soon. The duration is
    /// counted from the beginning of the current run.
    After(Duration),
}

/// Waits until the latch of this process is set or `timeout` has passed. After the wait, handles
/// interrupts, and reloads the configuration if SIGHUP has asked for a reload. Returns whether the
/// latch was set.
pub fn wait(timeout: Duration) -> bool {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the code waits on the latch of its own process, and then does what the main loop of
    // every background worker does.
    unsafe {
        let milliseconds = timeout.as_millis().clamp(1, 3_600_000) as core::ffi::c_long;
        let happened = pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        let is_woken = happened & pg_sys::WL_LATCH_SET as i32 != 0;
        if is_woken {
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        // No transaction is in progress while the process waits, so the code discards a request to
        // cancel a query.
        pg_sys::QueryCancelPending = 0;
        pgrx::check_for_interrupts!();
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        is_woken
    }
}

/// Runs `work` in a transaction of its own, with a snapshot. If `work` raises an error, rolls back
/// the transaction and returns the error.
///
/// # Errors
/// Returns the error that `work` or the commit has raised.
pub fn in_transaction<R>(activity: &CStr, work: impl FnOnce() -> R) -> Result<R, ServerError> {
    transaction(activity, || (), |()| work())
}

/// Runs `work` in the same way as [`in_transaction`], but first locks the extension, so that no
/// other session can drop the extension while `work` runs. Returns `None` if the extension does not
/// exist.
///
/// DROP EXTENSION locks the extension before the extension's tables. If the worker did not lock the
/// extension first, a deadlock between the worker and DROP EXTENSION would be possible. In the
/// deadlock, the worker would wait for a lock that DROP EXTENSION holds on one table, and DROP
/// EXTENSION would wait for a lock that the worker holds on another table.
///
/// # Errors
/// Returns the error that `work` or the commit has raised.
pub fn in_extension_transaction<R>(
    activity: &CStr,
    work: impl FnOnce() -> R,
) -> Result<Option<R>, ServerError> {
    transaction(activity, hold_extension, |is_here| is_here.then(work))
}

/// Starts a transaction, runs `first`, takes a snapshot, runs `work` with the result of `first`,
/// and commits.
fn transaction<T, R>(
    activity: &CStr,
    first: impl FnOnce() -> T,
    work: impl FnOnce(T) -> R,
) -> Result<R, ServerError> {
    // SAFETY: the calls are in the order that PostgreSQL's own background workers use. After an
    // error, the abort of the transaction releases all resources. No transaction is in progress
    // when this function is called.
    unsafe {
        pg_sys::QueryCancelPending = 0;
        IN_TRANSACTION.store(true, Ordering::Release);
        pg_sys::SetCurrentStatementStartTimestamp();
        let result = pgrx::PgTryBuilder::new(AssertUnwindSafe(|| {
            pg_sys::StartTransactionCommand();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
            let first = first();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let value = work(first);
            if pg_sys::ActiveSnapshotSet() {
                pg_sys::PopActiveSnapshot();
            }
            pg_sys::CommitTransactionCommand();
            Ok(value)
        }))
        .catch_others(|caught| Err::<R, Box<CaughtError>>(Box::new(caught)))
        .catch_rust_panic(|caught| Err(Box::new(caught)))
        .execute();
        IN_TRANSACTION.store(false, Ordering::Release);
        pg_sys::QueryCancelPending = 0;
        if result.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::CurrentMemoryContext = pg_sys::TopMemoryContext;
        pg_sys::pgstat_report_stat(result.is_err());
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        result.map_err(|caught| ServerError::of_caught(&caught))
    }
}
