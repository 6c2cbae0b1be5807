//! Records an UPDATE that moves a row to another partition as one event. PostgreSQL fires a DELETE
//! trigger in the old partition and then an INSERT trigger in the new one. The DELETE is kept until
//! the INSERT trigger fires, and both are recorded as the UPDATE that the client requested.
//!
//! If no INSERT trigger fires (a BEFORE trigger cancelled the INSERT, or the new partition is not
//! watched), a DELETE is recorded.

use super::row_image::RowVersion;
use super::row_layout::RowLayout;
use crate::pg::{current_subtransaction, in_context};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::rc::Rc;

/// A row that has left its partition, and whose INSERT trigger has not fired yet.
pub struct PendingMove {
    /// Identity of the watched table.
    pub watch_id: [u8; 16],
    /// Copies of the row and its row type, and the layout of the partition that the row left. The
    /// copies live until the transaction ends, unless `free` is called before.
    pub row: RowVersion,
    /// The trigger depth of the DELETE. Between the DELETE and the INSERT, a trigger can run
    /// another statement, whose events have a greater depth.
    depth: i32,
    subtransaction: pg_sys::SubTransactionId,
}

impl PendingMove {
    /// Copies the row into the transaction's memory.
    ///
    /// # Safety
    /// `row.tuple` must be of the row type and layout in `row`.
    pub unsafe fn new(watch_id: [u8; 16], row: &RowVersion, depth: i32) -> Self {
        // SAFETY: the tuple is of the row type (see # Safety). The copies are made in the
        // transaction's context, which outlives them.
        let row = unsafe {
            in_context(pg_sys::TopTransactionContext, || RowVersion {
                tuple: pg_sys::heap_copytuple(row.tuple),
                // The constraints are copied too, because they contain the values that an older row
                // has in columns which were added after the row was written.
                descriptor: pg_sys::CreateTupleDescCopyConstr(row.descriptor),
                layout: Rc::clone(&row.layout),
            })
        };
        PendingMove { watch_id, row, depth, subtransaction: current_subtransaction() }
    }

    /// Frees the copies before the transaction ends.
    pub fn free(self) {
        // SAFETY: the copies were made by `new`, and nothing else refers to them.
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

/// Returns whether the DELETE of a row is half of its move to another partition.
///
/// # Safety
/// `tuple` must be a stored tuple.
pub unsafe fn went_to_another_partition(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: a stored tuple has a header. The test is that of
    // HeapTupleHeaderIndicatesMovedPartitions().
    let next = unsafe { (*(*tuple).t_data).t_ctid };
    (next.ip_blkid.bi_hi, next.ip_blkid.bi_lo) == (u16::MAX, u16::MAX)
        && u32::from(next.ip_posid) == pg_sys::MovedPartitionsOffsetNumber
}

/// Keeps a DELETE until the INSERT trigger of the moved row fires.
pub fn defer(pending: PendingMove) {
    PENDING.with_borrow_mut(|all| all.push(pending));
}

/// Returns whether any move is pending. Most rows do not move, so this check must be cheap.
pub fn is_any_pending() -> bool {
    PENDING.with_borrow(|all| !all.is_empty())
}

/// Removes and returns the pending move that an INSERT completes, if there is one.
pub fn take_other_half(watch_id: [u8; 16], layout: &RowLayout, depth: i32) -> Option<PendingMove> {
    let is_other_half = |pending: &mut PendingMove| {
        pending.depth == depth
            && pending.watch_id == watch_id
            && pending.row.layout.same_columns(layout)
    };
    PENDING.with_borrow_mut(|all| all.pop_if(is_other_half))
}

/// Removes and returns the last pending move, if its DELETE happened at this trigger depth or
/// deeper.
pub fn take_unfinished(depth: i32) -> Option<PendingMove> {
    PENDING.with_borrow_mut(|all| all.pop_if(|pending| pending.depth >= depth))
}

/// Drops all pending moves. Called when the transaction has ended.
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
