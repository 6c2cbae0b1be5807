//! When pending entries are written: at the end of each statement.
//!
//! Row triggers run within ExecutorFinish, or, for COPY, within the utility command. The hooks open
//! a statement scope around both, and write what has gathered when it closes. The statement during
//! which the library is loaded has passed the first of them: it ends with ExecutorEnd. Where no
//! scope is open (a COPY during which the library is loaded, a logical replication worker) entries
//! are written one by one, as they come.

use super::{batch, entry_table, on_error};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

thread_local! {
    /// How many scopes are open.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Whether this is the transaction during one of whose statements the library was loaded, one
    /// that ends with ExecutorEnd.
    static FIRST: Cell<bool> = const { Cell::new(false) };
    /// DEPTH as it was when each subtransaction that is under way began.
    static DEPTH_AT_START: RefCell<Vec<(pg_sys::SubTransactionId, u32)>> = const { RefCell::new(Vec::new()) };
}

/// Whether somebody will call `writer::flush` when the present statement ends.
pub fn is_ahead() -> bool {
    DEPTH.get() > 0 || FIRST.get()
}

/// A statement fires row triggers from now on.
pub fn statement_scope_opens() {
    DEPTH.set(DEPTH.get() + 1);
}

/// It is through with that. After an error the abort that follows sets DEPTH right instead.
pub fn statement_scope_closes() {
    DEPTH.set(DEPTH.get().saturating_sub(1));
}

/// Whether the library was loaded during a statement of this transaction that the executor runs.
pub fn is_first_statement() -> bool {
    FIRST.get()
}

/// The library is being loaded.
pub fn library_is_loaded() {
    FIRST.set(is_in_writing_statement());
}

/// Whether the client's statement is one that the executor runs and that writes: INSERT, UPDATE,
/// DELETE, MERGE, or WITH one of them.
fn is_in_writing_statement() -> bool {
    use pg_sys::CommandTag as Tag;
    use pg_sys::PortalStrategy as Strategy;
    // SAFETY: the portal is null or that of the present statement, which is live.
    unsafe {
        let portal = pg_sys::ActivePortal;
        !portal.is_null()
            && match (*portal).strategy {
                Strategy::PORTAL_ONE_RETURNING | Strategy::PORTAL_ONE_MOD_WITH => true,
                Strategy::PORTAL_MULTI_QUERY => matches!(
                    (*portal).commandTag,
                    Tag::CMDTAG_INSERT
                        | Tag::CMDTAG_UPDATE
                        | Tag::CMDTAG_DELETE
                        | Tag::CMDTAG_MERGE
                ),
                _ => false,
            }
    }
}

/// Takes off the subtransaction and those within it; returns what DEPTH was when it began.
fn depth_at_start(own: pg_sys::SubTransactionId) -> Option<u32> {
    DEPTH_AT_START.with_borrow_mut(|starts| {
        let from = starts.partition_point(|&(subtransaction, _)| subtransaction < own);
        let depth = starts.get(from).map(|&(_, depth)| depth);
        starts.truncate(from);
        depth
    })
}

/// The transaction is over: nothing is under way.
pub fn transaction_ends() {
    batch::forget_all();
    on_error::forget_all();
    entry_table::forget_lock();
    DEPTH.set(0);
    FIRST.set(false);
    DEPTH_AT_START.with_borrow_mut(Vec::clear);
}

/// A subtransaction begins.
pub fn subtransaction_starts(own: pg_sys::SubTransactionId) {
    DEPTH_AT_START.with_borrow_mut(|starts| starts.push((own, DEPTH.get())));
}

/// A subtransaction was rolled back, and its events with it.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    batch::forget_from(own);
    on_error::forget_from(own);
    entry_table::forget_lock_of(own);
    // Calls that the error left are not under way any more.
    if let Some(depth) = depth_at_start(own) {
        DEPTH.set(depth);
    }
}

/// A subtransaction was committed: its events are its parent's now.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    batch::hand_up(own, parent);
    on_error::hand_up(own, parent);
    entry_table::hand_up_lock(own, parent);
    depth_at_start(own);
}
