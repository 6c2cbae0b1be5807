//! When pending entries are written: at the end of each statement.
//!
//! Row triggers run within ExecutorFinish, or, for COPY, within the utility command. Both are wrapped by a hook, which
//! writes what has gathered when they are through. The statement during which the library is loaded has come past the first of them: it
//! ends with ExecutorEnd. Where no hook is around (a COPY during which the library is loaded, a logical replication worker) entries are
//! written one by one, as they come.

use super::{entry_table, pending, write};
use crate::server::{UtilityCall, pass_on, utility_hook};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

thread_local! {
    /// How many of the wrapped calls are under way.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Whether this is the transaction during one of whose statements the library was loaded, one that ends with ExecutorEnd.
    static FIRST: Cell<bool> = const { Cell::new(false) };
    static SETTLE: Cell<Option<fn()>> = const { Cell::new(None) };
    static PREVIOUS_EXECUTOR_FINISH: Cell<pg_sys::ExecutorFinish_hook_type> = const { Cell::new(None) };
    static PREVIOUS_EXECUTOR_END: Cell<pg_sys::ExecutorEnd_hook_type> = const { Cell::new(None) };
    static PREVIOUS_PROCESS_UTILITY: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Whether somebody will call `write::flush` when the present statement ends.
pub fn is_ahead() -> bool {
    DEPTH.get() > 0 || FIRST.get()
}

/// Installs the hooks and callbacks, in front of those that are there. `settle` is called before the entries of a statement are
/// written: to record what capture has held back.
pub fn install(settle: fn()) {
    SETTLE.set(Some(settle));
    FIRST.set(is_in_writing_statement());
    // SAFETY: called once, while the library is loaded; hooks and callbacks stay for the life of the process.
    unsafe {
        PREVIOUS_EXECUTOR_FINISH.set(pg_sys::ExecutorFinish_hook);
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        PREVIOUS_EXECUTOR_END.set(pg_sys::ExecutorEnd_hook);
        pg_sys::ExecutorEnd_hook = Some(executor_end);
        PREVIOUS_PROCESS_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
    }
}

unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    DEPTH.set(DEPTH.get() + 1);
    // SAFETY: passes on what Postgres passed. An error leaves this frame at once; the abort that follows sets DEPTH right.
    unsafe {
        pass_on::executor_finish(PREVIOUS_EXECUTOR_FINISH.get(), query);
    }
    DEPTH.set(DEPTH.get().saturating_sub(1));
    // SAFETY: the executor's state lives until ExecutorEnd. A query with this flag is part of a statement around it (a
    // foreign key's action); its triggers have not run yet.
    let triggers_ran = unsafe { (*(*query).estate).es_top_eflags & pg_sys::EXEC_FLAG_SKIP_TRIGGERS as i32 == 0 };
    if triggers_ran {
        flush_guarded();
    }
}

/// Whether the client's statement is one that the executor runs and that writes: INSERT, UPDATE, DELETE, MERGE, or WITH one of them.
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
                    Tag::CMDTAG_INSERT | Tag::CMDTAG_UPDATE | Tag::CMDTAG_DELETE | Tag::CMDTAG_MERGE
                ),
                _ => false,
            }
    }
}

unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    // What a statement within that one wrote itself is written by now. Earlier entries of that one are written a little early.
    if FIRST.get() {
        flush_guarded();
    }
    // SAFETY: passes on what Postgres passed. An error leaves this frame at once.
    unsafe { pass_on::executor_end(PREVIOUS_EXECUTOR_END.get(), query) }
}

utility_hook!(process_utility => run_utility);

/// # Safety
/// As for [`UtilityCall::pass_on`].
unsafe fn run_utility(call: UtilityCall) {
    // SAFETY: Postgres passes a statement, whose node tells what it is. Only COPY fires row triggers outside of the
    // executor; a CALL, say, may end the transaction, so nothing can be held across it.
    let is_copy = unsafe { (*(*call.statement).utilityStmt).type_ } == pg_sys::NodeTag::T_CopyStmt;
    if is_copy {
        DEPTH.set(DEPTH.get() + 1);
    }
    // SAFETY: passes on what Postgres passed. An error leaves this frame at once, as above.
    unsafe {
        call.pass_on(PREVIOUS_PROCESS_UTILITY.get());
    }
    if is_copy {
        DEPTH.set(DEPTH.get().saturating_sub(1));
        flush_guarded();
    }
}

/// Errors of the writing become Postgres errors at this border, with nothing of Rust's left on the stack.
#[pgrx::pg_guard]
extern "C-unwind" fn flush_guarded() {
    settle_and_flush();
}

fn settle_and_flush() {
    if let Some(settle) = SETTLE.get() {
        settle();
    }
    write::flush();
}

thread_local! {
    /// DEPTH as it was when each subtransaction that is under way began.
    static DEPTH_AT_START: RefCell<Vec<(pg_sys::SubTransactionId, u32)>> = const { RefCell::new(Vec::new()) };
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
fn end_transaction() {
    pending::forget_all();
    entry_table::forget_lock();
    DEPTH.set(0);
    FIRST.set(false);
    DEPTH_AT_START.with_borrow_mut(Vec::clear);
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _arg: *mut core::ffi::c_void) {
    use pg_sys::XactEvent as Event;
    match event {
        // Nothing should be left by then; what is must not be lost.
        Event::XACT_EVENT_PRE_COMMIT | Event::XACT_EVENT_PRE_PREPARE => settle_and_flush(),
        Event::XACT_EVENT_COMMIT | Event::XACT_EVENT_PREPARE | Event::XACT_EVENT_ABORT => end_transaction(),
        _ => {}
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut core::ffi::c_void,
) {
    use pg_sys::SubXactEvent as Event;
    match event {
        Event::SUBXACT_EVENT_START_SUB => DEPTH_AT_START.with_borrow_mut(|starts| starts.push((own, DEPTH.get()))),
        Event::SUBXACT_EVENT_ABORT_SUB => {
            pending::forget_from(own);
            entry_table::forget_lock_of(own);
            // Calls that the error left are not under way any more.
            if let Some(depth) = depth_at_start(own) {
                DEPTH.set(depth);
            }
        }
        Event::SUBXACT_EVENT_COMMIT_SUB => {
            pending::hand_up(own, parent);
            entry_table::hand_up_lock(own, parent);
            depth_at_start(own);
        }
        _ => {}
    }
}
