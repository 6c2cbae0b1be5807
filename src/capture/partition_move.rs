//! Records an UPDATE as one event if it moves a row to another partition. PostgreSQL fires a DELETE
//! trigger in the old partition and then an INSERT trigger in the new partition. The library keeps
//! the DELETE until the INSERT trigger fires. When the INSERT trigger fires, the library records
//! both events as the one UPDATE that the client requested.
//!
//! If no INSERT trigger fires after the DELETE trigger, the library records a DELETE. No INSERT
//! trigger fires if a BEFORE trigger cancels the INSERT, or if the new partition is not watched.

use super::row_image::RowVersion;
use super::row_layout::RowLayout;
use crate::pg::{current_subtransaction, in_context};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::rc::Rc;

/// A row that has left its partition, and whose INSERT trigger has not fired yet.
pub struct PendingMove {
    /// The watch id of the table.
    pub watch_id: [u8; 16],
    /// A copy of the row and of its row type, with the layout of the partition that the row left.
    /// The copies of the row and its row type live until `free` is called, or else until the
    /// transaction ends.
    pub row: RowVersion,
    /// The trigger depth at which the DELETE happened. The events of a statement that a trigger
    /// runs between the DELETE and the INSERT have a greater trigger depth.
    depth: i32,
    subtransaction: pg_sys::SubTransactionId,
}

impl PendingMove {
    /// Copies the row into the transaction's memory context.
    ///
    /// # Safety
    /// `row.tuple` must be of the row type and layout in `row`.
    pub unsafe fn new(watch_id: [u8; 16], row: &RowVersion, depth: i32) -> Self {
        // SAFETY: the tuple is of the row type in `row` (see # Safety). The copies of the row and
        // its row type are allocated in the transaction's memory context.
        let row = unsafe {
            in_context(pg_sys::TopTransactionContext, || RowVersion {
                tuple: pg_sys::heap_copytuple(row.tuple),
                // The copy of the row type includes its constraints. The constraints contain the
                // values that older rows have in columns that were added later.
                descriptor: pg_sys::CreateTupleDescCopyConstr(row.descriptor),
                layout: Rc::clone(&row.layout),
            })
        };
        PendingMove { watch_id, row, depth, subtransaction: current_subtransaction() }
    }

    /// Frees the copies of the row and its row type before the transaction ends.
    pub fn free(self) {
        // SAFETY: `new` made the copies, and nothing else refers to them.
        unsafe {
            pg_sys::heap_freetuple(self.row.tuple);
            pg_sys::FreeTupleDesc(self.row.descriptor);
        }
    }
}

thread_local! {
    /// The pending moves. The innermost move is the last element.
    static PENDING: RefCell<Vec<PendingMove>> = const { RefCell::new(Vec::new()) };
}

/// Returns whether a row was deleted because it moves to another partition.
///
/// # Safety
/// `tuple` must be a stored tuple.
pub unsafe fn went_to_another_partition(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: a stored tuple has a header. The code makes the same test as
    // HeapTupleHeaderIndicatesMovedPartitions().
    let next = unsafe { (*(*tuple).t_data).t_ctid };
    (next.ip_blkid.bi_hi, next.ip_blkid.bi_lo) == (u16::MAX, u16::MAX)
        && u32::from(next.ip_posid) == pg_sys::MovedPartitionsOffsetNumber
}

/// Keeps a DELETE until the INSERT trigger of the moved row fires.
pub fn defer(pending: PendingMove) {
    PENDING.with_borrow_mut(|all| all.push(pending));
}

/// Returns whether any move is pending. Nearly every event calls this function, so the function
/// must be cheap.
pub fn is_any_pending() -> bool {
    PENDING.with_borrow(|all| !all.is_empty())
}

/// Removes and returns the last pending move, if an INSERT into a relation with this `layout`
/// completes it. Returns `None` if the INSERT is not part of a move.
pub fn take_other_half(watch_id: [u8; 16], layout: &RowLayout, depth: i32) -> Option<PendingMove> {
    let is_other_half = |pending: &mut PendingMove| {
        pending.depth == depth
            && pending.watch_id == watch_id
            && pending.row.layout.same_columns(layout)
    };
    PENDING.with_borrow_mut(|all| all.pop_if(is_other_half))
}

/// Removes and returns the last pending move, if the trigger depth of its DELETE is `depth` or
/// greater.
pub fn take_unfinished(depth: i32) -> Option<PendingMove> {
    PENDING.with_borrow_mut(|all| all.pop_if(|pending| pending.depth >= depth))
}

/// Drops all pending moves. The hooks call this function when the transaction has ended.
pub fn transaction_ends() {
    PENDING.with_borrow_mut(Vec::clear);
}

/// Drops the pending moves of a subtransaction that was rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|all| all.retain(|pending| pending.subtransaction < own));
}

/// Gives the pending moves of a committed subtransaction to its parent.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|all| {
        all.iter_mut()
            .filter(|pending| pending.subtransaction >= own)
            .for_each(|pending| pending.subtransaction = parent);
    });
}
