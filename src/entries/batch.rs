//! Holds the entries that are not written yet, as finished tuples of `lead_audit.entry`.

use crate::pg::{ServerError, current_subtransaction, new_context, out_of_memory};
use pgrx::pg_sys;
use std::cell::RefCell;

/// One entry that is not written yet.
#[derive(Clone, Copy)]
pub struct PendingEntry {
    /// The tuple for lead_audit.entry, in the memory context that `context()` returns.
    pub tuple: pg_sys::HeapTuple,
    /// The subtransaction in which the event happened.
    subtransaction: pg_sys::SubTransactionId,
}

struct Pending {
    // The entries are in the order of their events, and their subtransaction ids never decrease
    // from one entry to the next.
    entries: Vec<PendingEntry>,
    bytes: usize,
    /// The number of batches that are being written. A trigger on lead_audit.entry can write to a
    /// watched table and so start another batch.
    taken: usize,
    /// The memory context of the tuples, or null. The memory context is a child of
    /// TopTransactionContext, so PostgreSQL deletes it when the transaction ends.
    context: pg_sys::MemoryContext,
}

impl Pending {
    /// Frees the tuples of entries that were removed from `self.entries`.
    fn free(&mut self, entries: &[PendingEntry]) {
        for entry in entries {
            // SAFETY: each tuple is freed once, after its entry was removed from the list of
            // entries. The memory context of the tuple lives until the transaction ends.
            unsafe {
                self.bytes = self.bytes.saturating_sub((*entry.tuple).t_len as usize);
                pg_sys::heap_freetuple(entry.tuple);
            }
        }
    }
}

thread_local! {
    static PENDING: RefCell<Pending> = const {
        RefCell::new(Pending {
            entries: Vec::new(),
            bytes: 0,
            taken: 0,
            context: std::ptr::null_mut(),
        })
    };
}

/// Returns the memory context for the tuples of pending entries, and makes the memory context if
/// there is none.
pub fn context() -> pg_sys::MemoryContext {
    PENDING.with_borrow_mut(|pending| {
        if pending.context.is_null() {
            // SAFETY: the call makes a new memory context. `forget_all` sets `pending.context` to
            // null before PostgreSQL deletes the context with its parent.
            pending.context = unsafe {
                new_context(pg_sys::TopTransactionContext, c"lead_audit pending entries")
            };
        }
        pending.context
    })
}

impl PendingEntry {
    /// Returns an entry for the same event as `self`, but with another tuple. `tuple` must be
    /// allocated in the memory context that `context()` returns.
    pub fn with_tuple(self, tuple: pg_sys::HeapTuple) -> Self {
        PendingEntry { tuple, ..self }
    }
}

/// Adds an entry whose tuple is in the memory context that `context()` returns. Returns the length
/// of all pending tuples, in bytes.
///
/// # Errors
/// Returns an error if memory is exhausted. Triggers can add any number of entries before the
/// statement ends.
pub fn push(tuple: pg_sys::HeapTuple) -> Result<usize, ServerError> {
    // SAFETY: `tuple` is a finished tuple.
    let bytes = unsafe { (*tuple).t_len } as usize;
    let subtransaction = current_subtransaction();
    PENDING.with_borrow_mut(|pending| {
        if pending.entries.try_reserve(1).is_err() {
            // SAFETY: nothing else refers to the tuple.
            unsafe { pg_sys::heap_freetuple(tuple) };
            return Err(out_of_memory(pending.entries.len() * size_of::<PendingEntry>()));
        }
        pending.entries.push(PendingEntry { tuple, subtransaction });
        pending.bytes += bytes;
        Ok(pending.bytes)
    })
}

/// Returns whether no entry is pending.
pub fn is_empty() -> bool {
    PENDING.with_borrow(|pending| pending.entries.is_empty())
}

/// Entries that were taken out of the batch to be written. Dropping a `Taken` frees the tuples of
/// its entries, also after an error.
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
                // SAFETY: no entry points into the memory context any more.
                unsafe { pg_sys::MemoryContextReset(pending.context) };
            } else {
                pending.free(&self.0);
            }
        });
    }
}

/// Removes and returns the entries of the current subtransaction, so that the caller can write
/// them. The entries of outer subtransactions stay in the batch. If the current subtransaction
/// wrote the entries of an outer subtransaction, its rollback would discard them.
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

/// Discards the entries of a subtransaction that was rolled back.
pub fn forget_from(subtransaction: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|pending| {
        let from = pending.entries.partition_point(|entry| entry.subtransaction < subtransaction);
        let forgotten = pending.entries.split_off(from);
        pending.free(&forgotten);
    });
}

/// Gives the entries of a committed subtransaction to its parent.
pub fn hand_up(from: pg_sys::SubTransactionId, to: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|pending| {
        for entry in
            pending.entries.iter_mut().rev().take_while(|entry| entry.subtransaction >= from)
        {
            entry.subtransaction = to;
        }
    });
}

/// Forgets all entries. This function runs when the transaction has ended, because PostgreSQL then
/// frees the memory of the entries.
pub fn forget_all() {
    PENDING.with_borrow_mut(|pending| {
        pending.entries.clear();
        pending.bytes = 0;
        pending.taken = 0;
        pending.context = std::ptr::null_mut();
    });
}
