//! An UPDATE that moves a row to another partition is one event. Postgres fires it as a DELETE there and an INSERT here, one right
//! after the other; the DELETE is held back until the INSERT comes, and both together are the UPDATE that was asked for.
//!
//! Where no INSERT comes (a trigger cancelled it, the other partition is not watched), the row was deleted, and that is recorded.

use super::row_event::{RowEvent, RowOperation, RowVersion, record};
use crate::pg::{current_subtransaction, in_context, trigger_depth};
use pgrx::pg_sys;
use std::cell::RefCell;

/// A row that has left its partition and is not seen again yet.
struct Leaving {
    watch_id: [u8; 16],
    /// Copies that live until the transaction ends, at the latest, and the layout of the partition that it left.
    row: RowVersion,
    /// How deep triggers were nested. Between the two events another statement's can come, fired by a trigger: they are deeper.
    depth: i32,
    subtransaction: pg_sys::SubTransactionId,
}

impl Leaving {
    /// Records that the row is gone, or what it has become.
    fn record(self, new_row: Option<&RowVersion>) {
        let operation = if new_row.is_some() { RowOperation::Update } else { RowOperation::Delete };
        // SAFETY: the copies are of the row type of the layout's relation, as it was then, and are given back after their use. An
        // error leaves them to their memory context.
        unsafe {
            record(operation, self.watch_id, Some(&self.row), new_row);
            pg_sys::heap_freetuple(self.row.tuple);
            pg_sys::FreeTupleDesc(self.row.descriptor);
        }
    }
}

thread_local! {
    /// The innermost last.
    static LEAVING: RefCell<Vec<Leaving>> = const { RefCell::new(Vec::new()) };
}

/// Whether a deleted row went to another partition.
///
/// # Safety
/// `tuple` must be a tuple as it is stored.
pub unsafe fn went_to_another_partition(tuple: pg_sys::HeapTuple) -> bool {
    // SAFETY: as the caller promises. This is HeapTupleHeaderIndicatesMovedPartitions().
    let next = unsafe { (*(*tuple).t_data).t_ctid };
    (next.ip_blkid.bi_hi, next.ip_blkid.bi_lo) == (u16::MAX, u16::MAX)
        && u32::from(next.ip_posid) == pg_sys::MovedPartitionsOffsetNumber
}

/// Holds the DELETE back.
///
/// # Safety
/// As for `record_row`.
pub unsafe fn hold(event: &RowEvent) {
    // SAFETY: as the caller promises; the copies are in the transaction's memory.
    let row = unsafe {
        let row = event.version(event.row);
        in_context(pg_sys::TopTransactionContext, || RowVersion {
            tuple: pg_sys::heap_copytuple(row.tuple),
            // With the values of columns that were added after the row was written.
            descriptor: pg_sys::CreateTupleDescCopyConstr(row.descriptor),
            layout: row.layout,
        })
    };
    let (depth, subtransaction) = (trigger_depth(), current_subtransaction());
    settle(depth);
    LEAVING.with_borrow_mut(|all| all.push(Leaving { watch_id: event.watch_id, row, depth, subtransaction }));
}

/// Records the INSERT: as the UPDATE that brought the row here, if it is the other half of one.
///
/// # Safety
/// As for `record_row`.
pub unsafe fn record_insert(event: &RowEvent) {
    // SAFETY: as the caller promises.
    let row = unsafe { event.version(event.row) };
    if nothing_left() {
        // SAFETY: as the caller promises.
        return unsafe { record(event.operation, event.watch_id, Some(&row), None) };
    }
    let depth = trigger_depth();
    let is_other_half =
        |left: &mut Leaving| left.depth == depth && left.watch_id == event.watch_id && left.row.layout.same_columns(&row.layout);
    let left = LEAVING.with_borrow_mut(|all| all.pop_if(is_other_half));
    match left {
        Some(left) => left.record(Some(&row)),
        None => {
            settle(depth);
            // SAFETY: as the caller promises.
            unsafe { record(event.operation, event.watch_id, Some(&row), None) }
        }
    }
}

/// Most rows move nowhere, and must not pay for those that do.
fn nothing_left() -> bool {
    LEAVING.with_borrow(Vec::is_empty)
}

/// Another event comes, of this statement or a later one: what left before it is not part of it.
pub fn settle_before_event() {
    if !nothing_left() {
        settle(trigger_depth());
    }
}

/// Records as deleted what left at this depth or a deeper one: nothing brings it back any more.
fn settle(depth: i32) {
    while let Some(left) = LEAVING.with_borrow_mut(|all| all.pop_if(|left| left.depth >= depth)) {
        left.record(None);
    }
}

/// The statement is over: nothing of it is to come.
pub fn settle_statement() {
    if !nothing_left() {
        settle(trigger_depth() + 1);
    }
}

/// The transaction is over.
pub fn transaction_ends() {
    LEAVING.with_borrow_mut(Vec::clear);
}

/// A subtransaction was rolled back, and its events with it.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    LEAVING.with_borrow_mut(|all| all.retain(|left| left.subtransaction < own));
}

/// A subtransaction was committed: its events are its parent's now.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    LEAVING.with_borrow_mut(|all| {
        all.iter_mut().filter(|left| left.subtransaction >= own).for_each(|left| left.subtransaction = parent);
    });
}
