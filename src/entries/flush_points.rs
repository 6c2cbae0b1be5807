//! Decides when pending entries are written: at the end of each statement.
//!
//! Row triggers run within ExecutorFinish or, for COPY, within the utility command. The hooks call
//! `statement_scope_opens` before the row triggers can run. After the row triggers have run, the
//! hooks call `statement_scope_closes` and write the pending entries. If a row trigger loads the
//! library, ExecutorFinish of the trigger's statement is already running without the library's
//! hook. The library writes the entries of the statement that has loaded it at ExecutorEnd. Without
//! a call of `statement_scope_opens`, the library writes each entry at once. No hook calls
//! `statement_scope_opens` in a logical replication worker, or for a COPY that loads the library.

use super::{batch, entry_table, on_error};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

thread_local! {
    /// The number of running statements for which `statement_scope_opens` was called.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Whether the library was loaded in this transaction by a statement for which PostgreSQL later
    /// calls ExecutorEnd.
    static FIRST: Cell<bool> = const { Cell::new(false) };
    /// The value of `DEPTH` at the start of each open subtransaction.
    static DEPTH_AT_START: RefCell<Vec<(pg_sys::SubTransactionId, u32)>> =
        const { RefCell::new(Vec::new()) };
}

/// Returns whether `writer::flush` will be called at the end of the present statement.
pub fn is_ahead() -> bool {
    DEPTH.get() > 0 || FIRST.get()
}

/// Notes that a statement is about to fire row triggers, and that `writer::flush` will be called at
/// its end.
pub fn statement_scope_opens() {
    DEPTH.set(DEPTH.get() + 1);
}

/// Notes that a statement has fired its row triggers. After an error, the hooks do not call this
/// function, and the abort of the transaction or subtransaction resets `DEPTH`.
pub fn statement_scope_closes() {
    DEPTH.set(DEPTH.get().saturating_sub(1));
}

/// Returns whether the library was loaded in this transaction by a statement that the executor
/// runs.
pub fn is_first_statement() -> bool {
    FIRST.get()
}

/// Notes whether the library is being loaded by a writing statement that the executor runs.
pub fn library_is_loaded() {
    FIRST.set(is_in_writing_statement());
}

/// Returns whether the client's statement writes and runs in the executor: INSERT, UPDATE, DELETE,
/// MERGE, or WITH that contains one of these commands.
fn is_in_writing_statement() -> bool {
    use pg_sys::CommandTag as Tag;
    use pg_sys::PortalStrategy as Strategy;
    // SAFETY: `ActivePortal` is null, or the live portal of the present statement.
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

/// Removes the subtransaction `own` and its children from `DEPTH_AT_START`. Returns the value that
/// `DEPTH` had when `own` began.
fn depth_at_start(own: pg_sys::SubTransactionId) -> Option<u32> {
    DEPTH_AT_START.with_borrow_mut(|starts| {
        let from = starts.partition_point(|&(subtransaction, _)| subtransaction < own);
        let depth = starts.get(from).map(|&(_, depth)| depth);
        starts.truncate(from);
        depth
    })
}

/// Forgets all entries, counts and locks. The hooks call this function when the transaction has
/// ended.
pub fn transaction_ends() {
    batch::forget_all();
    on_error::forget_all();
    entry_table::forget_lock();
    DEPTH.set(0);
    FIRST.set(false);
    DEPTH_AT_START.with_borrow_mut(Vec::clear);
}

/// Notes the value of `DEPTH` at the start of a subtransaction.
pub fn subtransaction_starts(own: pg_sys::SubTransactionId) {
    DEPTH_AT_START.with_borrow_mut(|starts| starts.push((own, DEPTH.get())));
}

/// Discards the entries of a subtransaction that was rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    batch::forget_from(own);
    on_error::forget_from(own);
    entry_table::forget_lock_of(own);
    // The error that aborted the subtransaction has skipped calls of `statement_scope_closes`, so
    // the code restores `DEPTH`.
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
