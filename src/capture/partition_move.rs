//! An UPDATE that moves a row to another partition is one event. PostgreSQL fires it as a DELETE in
//! the old partition and an INSERT in the new one, one right after the other. The DELETE is
//! deferred until the INSERT comes, and both together are the UPDATE that the client asked for.
//!
//! If no INSERT comes (a trigger cancelled it, the other partition is not watched), the row was
//! deleted, and that is recorded.

use super::row_image::RowVersion;
use super::row_layout::RowLayout;
use crate::pg::{current_subtransaction, in_context};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::rc::Rc;

/// A row that has left its partition, and whose INSERT into another one is still to come.
pub struct PendingMove {
    /// Identity of the watched table.
    pub watch_id: [u8; 16],
    /// Copies that live until the transaction ends, at the latest, and the layout of the partition
    /// that the row left.
    pub row: RowVersion,
    /// How deep triggers were nested. A trigger can fire another statement's events between the
    /// two: they are deeper.
    depth: i32,
    subtransaction: pg_sys::SubTransactionId,
}

impl PendingMove {
    /// Copies the row into the transaction's memory.
    ///
    /// # Safety
    /// The version must be a row that its row type and layout are for.
    pub unsafe fn new(watch_id: [u8; 16], row: &RowVersion, depth: i32) -> Self {
        // SAFETY: the caller says that the tuple is of the row type; copies are made in a context
        // that lives longer than this.
        let row = unsafe {
            in_context(pg_sys::TopTransactionContext, || RowVersion {
                tuple: pg_sys::heap_copytuple(row.tuple),
                // With the values of columns that were added after the row was written.
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
    /// The innermost last.
    static PENDING: RefCell<Vec<PendingMove>> = const { RefCell::new(Vec::new()) };
}

/// Whether a deleted row went to another partition.
///
/// # Safety
/// `tuple` must be a tuple as it is stored.
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

/// Whether any move waits for its INSERT. Most rows move nowhere, and must not pay for those that
/// do.
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

/// Takes the last move that was deferred at this depth or a deeper one.
pub fn take_unfinished(depth: i32) -> Option<PendingMove> {
    PENDING.with_borrow_mut(|all| all.pop_if(|pending| pending.depth >= depth))
}

/// The transaction is over.
pub fn transaction_ends() {
    PENDING.with_borrow_mut(Vec::clear);
}

/// A subtransaction was rolled back, and its events with it.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|all| all.retain(|pending| pending.subtransaction < own));
}

/// A subtransaction was committed: its events are its parent's now.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    PENDING.with_borrow_mut(|all| {
        all.iter_mut()
            .filter(|pending| pending.subtransaction >= own)
            .for_each(|pending| pending.subtransaction = parent);
    });
}
