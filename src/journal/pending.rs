//! Entries that have happened and are not written yet, as finished tuples.

use crate::server::{current_subtransaction, new_context};
use pgrx::pg_sys;
use std::cell::RefCell;

/// One finished entry.
#[derive(Clone, Copy)]
pub struct PendingEntry {
    /// The tuple for lead_audit.entry, in the journal's memory context.
    pub tuple: pg_sys::HeapTuple,
    /// The subtransaction that its event happened in.
    subtransaction: pg_sys::SubTransactionId,
}

struct Pending {
    // In the order of the events, so subtransactions only grow towards the end.
    entries: Vec<PendingEntry>,
    bytes: usize,
    /// A child of the transaction's context: it goes with the transaction at the latest.
    context: pg_sys::MemoryContext,
}

thread_local! {
    static PENDING: RefCell<Pending> =
        const { RefCell::new(Pending { entries: Vec::new(), bytes: 0, context: std::ptr::null_mut() }) };
}

/// The memory context for the tuples of pending entries.
pub fn context() -> pg_sys::MemoryContext {
    PENDING.with_borrow_mut(|pending| {
        if pending.context.is_null() {
            // SAFETY: a context of our own, forgotten in `forget_all`, which runs when its parent is about to go.
            pending.context = unsafe { new_context(pg_sys::TopTransactionContext, c"lead_audit pending entries") };
        }
        pending.context
    })
}

/// Adds an entry whose tuple is in `context()`. Returns how many bytes are pending now.
pub fn push(tuple: pg_sys::HeapTuple) -> usize {
    // SAFETY: a finished tuple.
    let bytes = unsafe { (*tuple).t_len } as usize;
    let subtransaction = current_subtransaction();
    PENDING.with_borrow_mut(|pending| {
        pending.entries.push(PendingEntry { tuple, subtransaction });
        pending.bytes += bytes;
        pending.bytes
    })
}

/// Whether anything is pending.
pub fn is_empty() -> bool {
    PENDING.with_borrow(|pending| pending.entries.is_empty())
}

/// Takes out what can be written now: the entries of the current subtransaction. Those of the ones around it have to wait
/// until it has ended, since what it writes goes if it is rolled back.
pub fn take_current() -> Vec<PendingEntry> {
    let current = current_subtransaction();
    PENDING.with_borrow_mut(|pending| {
        let from = pending.entries.partition_point(|entry| entry.subtransaction < current);
        pending.entries.split_off(from)
    })
}

/// Frees what was taken out, once it is written: at once if nothing else is pending.
pub fn written() {
    PENDING.with_borrow_mut(|pending| {
        if pending.entries.is_empty() && !pending.context.is_null() {
            pending.bytes = 0;
            // SAFETY: no entry points into it any more.
            unsafe { pg_sys::MemoryContextReset(pending.context) };
        }
    });
}

/// A subtransaction was rolled back, and its events with it.
pub fn forget_from(subtransaction: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|pending| {
        let from = pending.entries.partition_point(|entry| entry.subtransaction < subtransaction);
        pending.entries.truncate(from);
    });
}

/// A subtransaction was committed: its events are its parent's now.
pub fn hand_up(from: pg_sys::SubTransactionId, to: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|pending| {
        for entry in pending.entries.iter_mut().rev().take_while(|entry| entry.subtransaction >= from) {
            entry.subtransaction = to;
        }
    });
}

/// The transaction is over, and its memory with it.
pub fn forget_all() {
    PENDING.with_borrow_mut(|pending| {
        pending.entries.clear();
        pending.bytes = 0;
        pending.context = std::ptr::null_mut();
    });
}
