//! When pending entries are written: at the end of each statement.
//!
//! Row triggers run within ExecutorFinish, or, for COPY, within the utility command. Both are wrapped by a hook, which
//! writes what has gathered when they are through. Where no hook is around (the statement during which the library is
//! loaded, a logical replication worker) entries are written one by one, as they come.

use super::{pending, write};
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    /// How many of the wrapped calls are under way.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static PREVIOUS_EXECUTOR_FINISH: Cell<pg_sys::ExecutorFinish_hook_type> = const { Cell::new(None) };
    static PREVIOUS_PROCESS_UTILITY: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Whether somebody will call `write::flush` when the present statement ends.
pub fn is_ahead() -> bool {
    DEPTH.get() > 0
}

/// Installs the hooks and callbacks, in front of those that are there.
pub fn install() {
    // SAFETY: called once, while the library is loaded; hooks and callbacks stay for the life of the process.
    unsafe {
        PREVIOUS_EXECUTOR_FINISH.set(pg_sys::ExecutorFinish_hook);
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        PREVIOUS_PROCESS_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
    }
}

/// Counts a wrapped call for as long as it lasts, also if it ends by an error.
struct UnderWay;

impl UnderWay {
    fn begin() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        UnderWay
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

thread_local! {
    static TRUNCATES: Cell<u64> = const { Cell::new(0) };
    static TRUNCATE_UNDER_WAY: Cell<u64> = const { Cell::new(0) };
}

/// A number for the TRUNCATE that is under way, by which its triggers know that they belong together.
pub fn truncate_under_way() -> u64 {
    TRUNCATE_UNDER_WAY.get()
}

/// Numbers a TRUNCATE for as long as it lasts. A trigger of it may run another one.
struct TruncateUnderWay(u64);

impl TruncateUnderWay {
    fn begin() -> Self {
        TRUNCATES.set(TRUNCATES.get() + 1);
        TruncateUnderWay(TRUNCATE_UNDER_WAY.replace(TRUNCATES.get()))
    }
}

impl Drop for TruncateUnderWay {
    fn drop(&mut self) {
        TRUNCATE_UNDER_WAY.set(self.0);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    let under_way = UnderWay::begin();
    // SAFETY: passes on what Postgres passed.
    unsafe {
        match PREVIOUS_EXECUTOR_FINISH.get() {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query)),
            None => pg_sys::standard_ExecutorFinish(query),
        }
    }
    drop(under_way);
    // SAFETY: the executor's state lives until ExecutorEnd. A query with this flag is part of a statement around it (a
    // foreign key's action); its triggers have not run yet.
    let triggers_ran = unsafe { (*(*query).estate).es_top_eflags & pg_sys::EXEC_FLAG_SKIP_TRIGGERS as i32 == 0 };
    if triggers_ran {
        write::flush();
    }
}

#[pgrx::pg_guard]
#[expect(clippy::too_many_arguments, reason = "the hook's signature is Postgres's")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const core::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: Postgres passes a statement, whose node tells what it is. Only COPY fires row triggers outside of the
    // executor; a CALL, say, may end the transaction, so nothing can be held across it.
    let kind = unsafe { (*(*statement).utilityStmt).type_ };
    let under_way = (kind == pg_sys::NodeTag::T_CopyStmt).then(UnderWay::begin);
    let _truncate = (kind == pg_sys::NodeTag::T_TruncateStmt).then(TruncateUnderWay::begin);
    // SAFETY: passes on what Postgres passed.
    unsafe {
        match PREVIOUS_PROCESS_UTILITY.get() {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| {
                previous(statement, text, read_only_tree, context, params, environment, destination, completion)
            }),
            None => pg_sys::standard_ProcessUtility(
                statement,
                text,
                read_only_tree,
                context,
                params,
                environment,
                destination,
                completion,
            ),
        }
    }
    if under_way.is_some() {
        drop(under_way);
        write::flush();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _arg: *mut core::ffi::c_void) {
    use pg_sys::XactEvent as Event;
    match event {
        // Nothing should be left by then; what is must not be lost.
        Event::XACT_EVENT_PRE_COMMIT | Event::XACT_EVENT_PRE_PREPARE => write::flush(),
        Event::XACT_EVENT_COMMIT | Event::XACT_EVENT_PREPARE | Event::XACT_EVENT_ABORT => pending::forget_all(),
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
        Event::SUBXACT_EVENT_ABORT_SUB => pending::forget_from(own),
        Event::SUBXACT_EVENT_COMMIT_SUB => pending::hand_up(own, parent),
        _ => {}
    }
}
