//! An UPDATE that moves a row to another partition is one event. PostgreSQL fires a DELETE trigger
//! in the old partition and then an INSERT trigger in the new one. The DELETE is deferred until the
//! INSERT comes, and both are recorded as the UPDATE that the client asked for.
//!
//! If no INSERT comes (a trigger cancelled it, or the new partition is not watched), the row was
//! deleted, and a DELETE is recorded.

use super::row_image::RowVersion;
use super::row_layout::RowLayout;
use crate::pg::{current_subtransaction, in_context};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::rc::Rc;

/// A row that has left its partition and whose INSERT into another partition has not come yet.
pub struct PendingMove {
    /// Identity of the watched table.
    pub watch_id: [u8; 16],
    /// Copies of the row and its row type, and the layout of the partition that the row left. The
    /// copies live until the transaction ends, at the latest.
    pub row: RowVersion,
    /// The trigger depth of the DELETE. Between DELETE and INSERT a trigger can run another
    /// statement; its events are deeper.
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
                // The copy includes the constraints: they contain the values of columns that were
                // added after the row was written.
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
    /// The innermost move is last.
    static PENDING: RefCell<Vec<PendingMove>> = const { RefCell::new(Vec::new()) };
}

/// Whether a deleted row went to another partition.
///
/// # Safety
/// `tuple` must be a stored tuple.
pub unsafe fn went_to_another_partition(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: a stored tuple has a header. This is HeapTupleHeaderIndicatesMovedPartitions().
    let next = unsafe { (*(*tuple).t_data).t_ctid };
    (next.ip_blkid.bi_hi, next.ip_blkid.bi_lo) == (u16::MAX, u16::MAX)
        && u32::from(next.ip_posid) == pg_sys::MovedPartitionsOffsetNumber
}

/// Keeps the DELETE until its INSERT comes.
pub fn defer(pending: PendingMove) {
    PENDING.with_borrow_mut(|all| all.push(pending));
}

/// Whether a move waits for its INSERT. Most rows move nowhere, so this check must be cheap.
pub fn is_any_pending() -> bool {
    PENDING.with_borrow(|all| !all.is_empty())
}

/// Takes the move that an INSERT completes.
pub fn take_other_half(watch_id: [u8; 16], layout: &RowLayout, depth: i32) -> Option<PendingMove> {
    let is_other_half = |pending: &mut PendingMove| {
        pending.depth == depth
            && pending.watch_id == watch_id
            && pending.row.layout.same_columns(layout)
    };
    PENDING.with_borrow_mut(|all| all.pop_if(is_other_half))
}

/// Takes the last move that was deferred at this depth or deeper.
pub fn take_unfinished(depth: i32) -> Option<PendingMove> {
    PENDING.with_borrow_mut(|all| all.pop_if(|pending| pending.depth >= depth))
}

/// Called when the transaction has ended.
pub fn transaction_ends() {
    PENDING.with_borrow_mut(Vec::clear);
}

/// A subtransaction was rolled back: drops its moves.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|all| all.retain(|pending| pending.subtransaction < own));
}

/// A subtransaction was committed: its moves now belong to its parent.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|all| {
        all.iter_mut()
            .filter(|pending| pending.subtransaction >= own)
            .for_each(|pending| pending.subtransaction = parent);
    });
}
