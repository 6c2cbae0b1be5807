//! Contains the callbacks for the end of transactions and subtransactions. The code for PRE_COMMIT
//! and PRE_PREPARE may raise an error, which aborts the transaction.
//!
//! The code for COMMIT, PREPARE and ABORT must not raise an error, because an error after the
//! commit becomes a PANIC of the server. The code for COMMIT, PREPARE and ABORT does not wait,
//! allocates nothing in PostgreSQL's memory contexts, and allocates little memory in Rust. If a
//! module nevertheless raises an error at the end of a transaction, the callback catches the error.
//! After an error in one module, the other modules still handle the end of the transaction.

use crate::pg::TransactionEnd;
use crate::{capture, entries, failures, seal, watch};
use pgrx::pg_sys;
use std::ffi::c_void;
use std::panic::AssertUnwindSafe;

pub fn install() {
    // SAFETY: `install` is called once, while the library is being loaded. The callbacks exist for
    // the life of the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction), std::ptr::null_mut());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent as Event;
    let end = match event {
        Event::XACT_EVENT_PRE_COMMIT | Event::XACT_EVENT_PRE_PREPARE => {
            if event == Event::XACT_EVENT_PRE_PREPARE {
                seal::before_prepare();
            }
            // Usually all entries of the transaction have been written before PRE_COMMIT. These
            // calls write the entries that are still pending, because the end of the transaction
            // discards pending entries.
            capture::statement_ends();
            entries::flush();
            entries::before_commit();
            return failures::before_commit();
        }
        Event::XACT_EVENT_COMMIT => TransactionEnd::Committed,
        Event::XACT_EVENT_PREPARE => TransactionEnd::Prepared,
        Event::XACT_EVENT_ABORT => TransactionEnd::RolledBack,
        _ => return,
    };
    let committed = end == TransactionEnd::Committed;
    without_error(|| failures::transaction_ends(end));
    without_error(|| failures::utility_commands::transaction_ends(committed));
    without_error(|| watch::transaction_ends(committed));
    without_error(|| seal::transaction_ends(committed));
    without_error(entries::transaction_ends);
    without_error(capture::transaction_ends);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn subtransaction(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent as Event;
    match event {
        Event::SUBXACT_EVENT_START_SUB => entries::subtransaction_starts(own),
        Event::SUBXACT_EVENT_COMMIT_SUB => {
            without_error(|| failures::subtransaction_commits(own, parent));
            without_error(|| seal::subtransaction_commits(own, parent));
            without_error(|| failures::utility_commands::subtransaction_commits(own, parent));
            without_error(|| entries::subtransaction_commits(own, parent));
            without_error(|| capture::subtransaction_commits(own, parent));
        }
        Event::SUBXACT_EVENT_ABORT_SUB => {
            without_error(|| failures::subtransaction_aborts(own));
            without_error(|| watch::subtransaction_aborts(own));
            without_error(|| seal::subtransaction_aborts(own));
            without_error(|| failures::utility_commands::subtransaction_aborts(own));
            without_error(|| entries::subtransaction_aborts(own));
            without_error(|| capture::subtransaction_aborts(own));
        }
        _ => {}
    }
}

/// Runs `work`, which must not raise an error. Ignores an error that `work` nevertheless raises.
fn without_error(work: impl FnOnce()) {
    pgrx::PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|_| ())
        .catch_rust_panic(|_| ())
        .execute();
}
