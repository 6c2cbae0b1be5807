//! Entries that have happened and are not written yet, as finished tuples.

use crate::pg::{ServerError, current_subtransaction, new_context, out_of_memory};
use pgrx::pg_sys;
use std::cell::RefCell;

/// One finished entry.
#[derive(Clone, Copy)]
pub struct PendingEntry {
    /// The tuple for lead_audit.entry, in the memory context of pending entries.
    pub tuple: pg_sys::HeapTuple,
    /// The subtransaction that its event happened in.
    subtransaction: pg_sys::SubTransactionId,
}

struct Pending {
    // In the order of the events, so subtransactions only grow towards the end.
    entries: Vec<PendingEntry>,
    bytes: usize,
    /// How many batches are being written: a trigger on the log can write to a watched table and so
    /// begin another.
    taken: usize,
    /// A child of the transaction's context: it goes with the transaction at the latest.
    context: pg_sys::MemoryContext,
}

impl Pending {
    /// Frees the tuples of entries that are not in the list any more.
    fn free(&mut self, entries: &[PendingEntry]) {
        for entry in entries {
            // SAFETY: a tuple is freed once, after its entry has left the list; its context is live
            // until the transaction ends.
            unsafe {
                self.bytes = self.bytes.saturating_sub((*entry.tuple).t_len as usize);
                pg_sys::heap_freetuple(entry.tuple);
            }
        }
    }
}

thread_local! {
    static PENDING: RefCell<Pending> =
        const { RefCell::new(Pending { entries: Vec::new(), bytes: 0, taken: 0, context: std::ptr::null_mut() }) };
}

/// The memory context for the tuples of pending entries.
pub fn context() -> pg_sys::MemoryContext {
    PENDING.with_borrow_mut(|pending| {
        if pending.context.is_null() {
            // SAFETY: a context of our own, forgotten in `forget_all`, which runs when its parent
            // is about to go.
            pending.context = unsafe {
                new_context(pg_sys::TopTransactionContext, c"lead_audit pending entries")
            };
        }
        pending.context
    })
}

impl PendingEntry {
    /// The same event in another tuple, which lives as long as the memory context of pending
    /// entries.
    pub fn with_tuple(self, tuple: pg_sys::HeapTuple) -> Self {
        PendingEntry { tuple, ..self }
    }
}

/// Adds an entry whose tuple is in `context()`. Returns how many bytes are pending now.
///
/// # Errors
/// If there is no memory for it. A statement can have as many entries as its trigger likes before
/// they can be written.
pub fn push(tuple: pg_sys::HeapTuple) -> Result<usize, ServerError> {
    // SAFETY: a finished tuple.
    let bytes = unsafe { (*tuple).t_len } as usize;
    let subtransaction = current_subtransaction();
    PENDING.with_borrow_mut(|pending| {
        if pending.entries.try_reserve(1).is_err() {
            // SAFETY: the tuple is nobody else's.
            unsafe { pg_sys::heap_freetuple(tuple) };
            return Err(out_of_memory(pending.entries.len() * size_of::<PendingEntry>()));
        }
        pending.entries.push(PendingEntry { tuple, subtransaction });
        pending.bytes += bytes;
        Ok(pending.bytes)
    })
}

/// Whether anything is pending.
pub fn is_empty() -> bool {
    PENDING.with_borrow(|pending| pending.entries.is_empty())
}

/// Entries that were taken out to be written. They are freed with this, whether they were written
/// or an error came.
pub struct Taken(Vec<PendingEntry>);

impl std::ops::Deref for Taken {
    type Target = [PendingEntry];

    fn deref(&self) -> &[PendingEntry] {
        &self.0
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        PENDING.with_borrow_mut(|pending| {
            pending.taken = pending.taken.saturating_sub(1);
            if pending.taken == 0 && pending.entries.is_empty() && !pending.context.is_null() {
                pending.bytes = 0;
                // SAFETY: no entry points into it any more.
                unsafe { pg_sys::MemoryContextReset(pending.context) };
            } else {
                pending.free(&self.0);
            }
        });
    }
}

/// Takes out what can be written now: the entries of the current subtransaction. Those of the ones
/// around it have to wait until it has ended, since what it writes goes if it is rolled back.
pub fn take_current() -> Taken {
    let current = current_subtransaction();
    PENDING.with_borrow_mut(|pending| {
        let from = pending.entries.partition_point(|entry| entry.subtransaction < current);
        pending.taken += 1;
        Taken(if from == 0 {
            std::mem::take(&mut pending.entries)
        } else {
            pending.entries.split_off(from)
        })
    })
}

/// A subtransaction was rolled back, and its events with it.
pub fn forget_from(subtransaction: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|pending| {
        let from = pending.entries.partition_point(|entry| entry.subtransaction < subtransaction);
        let forgotten = pending.entries.split_off(from);
        pending.free(&forgotten);
    });
}

/// A subtransaction was committed: its events are its parent's now.
pub fn hand_up(from: pg_sys::SubTransactionId, to: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|pending| {
        for entry in
            pending.entries.iter_mut().rev().take_while(|entry| entry.subtransaction >= from)
        {
            entry.subtransaction = to;
        }
    });
}

/// The transaction is over, and its memory with it.
pub fn forget_all() {
    PENDING.with_borrow_mut(|pending| {
        pending.entries.clear();
        pending.bytes = 0;
        pending.taken = 0;
        pending.context = std::ptr::null_mut();
    });
}
