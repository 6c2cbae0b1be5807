//! Decides when pending entries are written: at the end of each statement.
//!
//! Row triggers run within ExecutorFinish or, for COPY, within the utility command. The hooks open
//! a statement scope around both, and write the pending entries when it closes. If a row trigger
//! loads the library, ExecutorFinish is already running without the hook, so the entries are
//! written at ExecutorEnd. Without an open scope (a COPY that loads the library, a logical
//! replication worker), each entry is written at once.

use super::{batch, entry_table, on_error};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

thread_local! {
    /// How many scopes are open.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Whether the library was loaded in this transaction by a statement that ends with
    /// ExecutorEnd.
    static FIRST: Cell<bool> = const { Cell::new(false) };
    /// The value of DEPTH at the start of each open subtransaction.
    static DEPTH_AT_START: RefCell<Vec<(pg_sys::SubTransactionId, u32)>> =
        const { RefCell::new(Vec::new()) };
}

/// Returns whether `writer::flush` will be called when the present statement ends.
pub fn is_ahead() -> bool {
    DEPTH.get() > 0 || FIRST.get()
}

/// Called before a statement fires row triggers.
pub fn statement_scope_opens() {
    DEPTH.set(DEPTH.get() + 1);
}

/// Called when the statement has fired its triggers. After an error it is not called, and the abort
/// resets DEPTH.
pub fn statement_scope_closes() {
    DEPTH.set(DEPTH.get().saturating_sub(1));
}

/// Returns whether the library was loaded in this transaction by a statement that the executor
/// runs.
pub fn is_first_statement() -> bool {
    FIRST.get()
}

/// Called when the library is loaded.
pub fn library_is_loaded() {
    FIRST.set(is_in_writing_statement());
}

/// Whether the client's statement writes and runs in the executor: INSERT, UPDATE, DELETE, MERGE,
/// or WITH one of them.
fn is_in_writing_statement() -> bool {
    use pg_sys::CommandTag as Tag;
    use pg_sys::PortalStrategy as Strategy;
    // SAFETY: the portal is null, or the live portal of the present statement.
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

/// Removes the subtransaction and its children. Returns the value of DEPTH when it began.
fn depth_at_start(own: pg_sys::SubTransactionId) -> Option<u32> {
    DEPTH_AT_START.with_borrow_mut(|starts| {
        let from = starts.partition_point(|&(subtransaction, _)| subtransaction < own);
        let depth = starts.get(from).map(|&(_, depth)| depth);
        starts.truncate(from);
        depth
    })
}

/// Called when the transaction has ended.
pub fn transaction_ends() {
    batch::forget_all();
    on_error::forget_all();
    entry_table::forget_lock();
    DEPTH.set(0);
    FIRST.set(false);
    DEPTH_AT_START.with_borrow_mut(Vec::clear);
}

/// Called when a subtransaction begins.
pub fn subtransaction_starts(own: pg_sys::SubTransactionId) {
    DEPTH_AT_START.with_borrow_mut(|starts| starts.push((own, DEPTH.get())));
}

/// Discards the entries of a subtransaction that was rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    batch::forget_from(own);
    on_error::forget_from(own);
    entry_table::forget_lock_of(own);
    // The error left these scopes without closing them.
    if let Some(depth) = depth_at_start(own) {
        DEPTH.set(depth);
    }
}

/// Gives the entries of a committed subtransaction to its parent.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    batch::hand_up(own, parent);
    on_error::hand_up(own, parent);
    entry_table::hand_up_lock(own, parent);
    depth_at_start(own);
}
