//! Running something that may fail without failing the statement.

use super::ServerError;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use std::panic::AssertUnwindSafe;

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionEnd {
    /// COMMIT.
    Committed,
    /// PREPARE TRANSACTION. Another process commits it or rolls it back.
    Prepared,
    /// ROLLBACK, or an error.
    RolledBack,
}

/// The innermost subtransaction (the transaction itself counts as one). Ids grow, a child's is above its parent's.
pub fn current_subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: reads a variable of the transaction system; the library runs only within transactions.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// How deep triggers are nested at the moment, as pg_trigger_depth() says it: 0 outside of any.
pub fn trigger_depth() -> i32 {
    // SAFETY: the function takes nothing and reads a variable of the session.
    unsafe { pgrx::direct_function_call(pg_sys::pg_trigger_depth, &[]).unwrap_or(0) }
}

/// Runs `work` in a subtransaction of its own. If it raises an error, all that it did is undone and the error returned.
///
/// Only a subtransaction makes it safe to go on after an error: its abort gives back locks, pins and memory that the
/// failing code held. Cancels, shutdowns and failures to serialize are not caught.
pub fn in_subtransaction<R>(work: impl FnOnce() -> R) -> Result<R, ServerError> {
    // SAFETY: this is the sequence that PL/pgSQL uses for a block with EXCEPTION. Memory context and resource owner are
    // those of the caller again when this returns, on either way.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        let result = pgrx::PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
            .catch_others(|caught| Err::<R, Box<CaughtError>>(Box::new(caught)))
            .catch_rust_panic(|caught| Err(Box::new(caught)))
            .execute();
        pg_sys::CurrentMemoryContext = context;
        let result = match result {
            Ok(value) => {
                pg_sys::ReleaseCurrentSubTransaction();
                Ok(value)
            }
            Err(caught) => {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
                Err(caught)
            }
        };
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        result.map_err(|caught| ServerError::from_caught(*caught))
    }
}
