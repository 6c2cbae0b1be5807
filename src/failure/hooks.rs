//! The hooks: each statement that writes to a watched table gets its frame while it is planned, executed or, as a utility command, run.
//!
//! A statement on a table that is not watched has no frame: an error in it is one of the watched statement around it, if any.

use super::following;
use super::frame::{Frame, Phase};
use super::raised;
use crate::journal;
use crate::server::{UtilityCall, pass_on, trigger_depth, utility_hook};
use pgrx::{PgList, pg_sys};
use std::cell::Cell;
use std::ffi::{c_char, c_int};

thread_local! {
    static PREVIOUS_AUTHENTICATION: Cell<Option<Authentication>> = const { Cell::new(None) };
    static PREVIOUS_PLANNER: Cell<pg_sys::planner_hook_type> = const { Cell::new(None) };
    static PREVIOUS_START: Cell<pg_sys::ExecutorStart_hook_type> = const { Cell::new(None) };
    static PREVIOUS_RUN: Cell<pg_sys::ExecutorRun_hook_type> = const { Cell::new(None) };
    static PREVIOUS_FINISH: Cell<pg_sys::ExecutorFinish_hook_type> = const { Cell::new(None) };
    static PREVIOUS_UTILITY: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Installs the hooks, in front of those that are there.
pub fn install() {
    // SAFETY: called once, while the library is loaded; hooks stay for the life of the process.
    unsafe {
        PREVIOUS_AUTHENTICATION.set(ClientAuthentication_hook);
        ClientAuthentication_hook = Some(authentication);
        PREVIOUS_PLANNER.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(planner);
        PREVIOUS_START.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(executor_start);
        PREVIOUS_RUN.set(pg_sys::ExecutorRun_hook);
        pg_sys::ExecutorRun_hook = Some(executor_run);
        PREVIOUS_FINISH.set(pg_sys::ExecutorFinish_hook);
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        PREVIOUS_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

unsafe extern "C-unwind" {
    // libpq/auth.h, which pgrx does not bind.
    static mut ClientAuthentication_hook: Option<Authentication>;
}

type Authentication = unsafe extern "C-unwind" fn(port: *mut pg_sys::Port, status: c_int);

/// A session begins: already its first statement may fail before any other hook is called.
unsafe extern "C-unwind" fn authentication(port: *mut pg_sys::Port, status: c_int) {
    // SAFETY: passes on what Postgres passed.
    unsafe {
        if let Some(previous) = PREVIOUS_AUTHENTICATION.get() {
            previous(port, status);
        }
    }
    raised::keep_base();
}

fn operation(command: pg_sys::CmdType::Type) -> Option<&'static str> {
    match command {
        pg_sys::CmdType::CMD_INSERT => Some("INSERT"),
        pg_sys::CmdType::CMD_UPDATE => Some("UPDATE"),
        pg_sys::CmdType::CMD_DELETE => Some("DELETE"),
        pg_sys::CmdType::CMD_MERGE => Some("MERGE"),
        _ => None,
    }
}

// ---- planning ---------------------------------------------------------------------------------------------------------

unsafe extern "C-unwind" fn planner(
    parse: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let mut frame = Frame::new();
    // SAFETY: passes on what Postgres passed. An error leaves this frame at once; it holds nothing that has to be dropped.
    unsafe {
        raised::keep_base();
        let writes = (*parse).commandType != pg_sys::CmdType::CMD_SELECT || (*parse).hasModifyingCTE;
        if writes && following::is_on_or_found() {
            fill_from_query(&mut frame, parse);
        }
        let entered = frame.is_there();
        if entered {
            frame.text = text;
            (frame.location, frame.length) = ((*parse).stmt_location, (*parse).stmt_len);
            frame.parameters = parameters;
            frame.enter();
        }
        let planned = pass_on::planner(PREVIOUS_PLANNER.get(), parse, text, options, parameters);
        if entered {
            frame.leave();
        }
        planned
    }
}

/// # Safety
/// `query` must be a query tree.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn fill_from_query(frame: *mut Frame, query: *mut pg_sys::Query) {
    // SAFETY: as the caller promises; a result relation is a place in the range table, from 1.
    unsafe {
        if let Some(operation) = operation((*query).commandType)
            && (*query).resultRelation > 0
        {
            let table = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
            if let Some(entry) = table.get_ptr((*query).resultRelation as usize - 1) {
                (*frame).add((*entry).relid, operation);
            }
        }
        for expression in PgList::<pg_sys::CommonTableExpr>::from_pg((*query).cteList).iter_ptr() {
            let inner = (*expression).ctequery;
            if !inner.is_null() && (*inner).type_ == pg_sys::NodeTag::T_Query {
                let inner = inner.cast::<pg_sys::Query>();
                if (*inner).commandType != pg_sys::CmdType::CMD_SELECT {
                    fill_from_query(frame, inner);
                }
            }
        }
    }
}

// ---- the executor -----------------------------------------------------------------------------------------------------

/// Fills the frame with what the query writes to. Cheap for one that writes nothing.
///
/// # Safety
/// `query` must be a query that the executor was given.
#[inline]
unsafe fn fill_from_plan(frame: &mut Frame, query: *mut pg_sys::QueryDesc, phase: Phase) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        let planned = (*query).plannedstmt;
        if ((*query).operation == pg_sys::CmdType::CMD_SELECT && !(*planned).hasModifyingCTE) || !following::is_on_or_found() {
            return false;
        }
        add_plan_targets(frame, planned);
        frame.phase = phase;
        frame.query = query;
        frame.text = (*query).sourceText;
        (frame.location, frame.length) = ((*planned).stmt_location, (*planned).stmt_len);
        frame.parameters = (*query).params;
        frame.is_there()
    }
}

/// # Safety
/// `planned` must be a plan.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn add_plan_targets(frame: *mut Frame, planned: *mut pg_sys::PlannedStmt) {
    // SAFETY: as the caller promises; nodes are told apart by their tag, relations are places in the range table, from 1.
    unsafe {
        let table = PgList::<pg_sys::RangeTblEntry>::from_pg((*planned).rtable);
        let add = |plan: *mut pg_sys::Plan| {
            if plan.is_null() || (*plan).type_ != pg_sys::NodeTag::T_ModifyTable {
                return;
            }
            let modify = plan.cast::<pg_sys::ModifyTable>();
            let place = match (*modify).rootRelation {
                0 => PgList::<i32>::from_pg((*modify).resultRelations).iter_int().next().unwrap_or(0),
                root => root as i32,
            };
            if let (Some(operation), Some(entry)) = (operation((*modify).operation), table.get_ptr((place - 1).max(0) as usize)) {
                (*frame).add((*entry).relid, operation);
            }
        };
        add((*planned).planTree);
        if (*planned).hasModifyingCTE {
            PgList::<pg_sys::Plan>::from_pg((*planned).subplans).iter_ptr().for_each(add);
        }
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    let mut frame = Frame::new();
    // SAFETY: passes on what Postgres passed. An error leaves this frame at once.
    unsafe {
        raised::keep_base();
        let entered = fill_from_plan(&mut frame, query, Phase::Outside);
        if entered {
            raised::remember_parameters(frame.parameters);
            if frame.enter() {
                journal::statement_begins();
            }
        }
        pass_on::executor_start(PREVIOUS_START.get(), query, flags);
        if entered {
            frame.leave();
        }
    }
}

#[cfg(not(feature = "pg18"))]
unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: passes on what Postgres passed.
    unsafe { running(query, || pass_on::executor_run(PREVIOUS_RUN.get(), query, direction, count, once)) }
}

#[cfg(feature = "pg18")]
unsafe extern "C-unwind" fn executor_run(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64) {
    // SAFETY: passes on what Postgres passed.
    unsafe { running(query, || pass_on::executor_run(PREVIOUS_RUN.get(), query, direction, count)) }
}

/// # Safety
/// `query` must be a query that the executor was given.
unsafe fn running(query: *mut pg_sys::QueryDesc, run: impl FnOnce()) {
    let mut frame = Frame::new();
    // SAFETY: as above.
    unsafe {
        let entered = fill_from_plan(&mut frame, query, Phase::Run);
        if entered {
            frame.trigger_depth = trigger_depth();
            frame.enter();
        }
        run();
        if entered {
            frame.leave();
        }
    }
}

unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    let mut frame = Frame::new();
    // SAFETY: as above.
    unsafe {
        let entered = fill_from_plan(&mut frame, query, Phase::Finish);
        let outermost = entered && frame.enter();
        pass_on::executor_finish(PREVIOUS_FINISH.get(), query);
        if entered {
            frame.leave();
        }
        if outermost {
            raised::statement_succeeded(&raw const frame);
        }
    }
}

// ---- utility commands -------------------------------------------------------------------------------------------------

utility_hook!(process_utility => run_utility);

/// # Safety
/// As for [`UtilityCall::pass_on`].
unsafe fn run_utility(call: UtilityCall) {
    let mut frame = Frame::new();
    // SAFETY: as above.
    unsafe {
        raised::keep_base();
        let kind = (*(*call.statement).utilityStmt).type_;
        let may_write =
            matches!(kind, pg_sys::NodeTag::T_CopyStmt | pg_sys::NodeTag::T_TruncateStmt | pg_sys::NodeTag::T_ExecuteStmt);
        if may_write && following::is_on_or_found() {
            fill_from_utility(&raw mut frame, (*call.statement).utilityStmt);
        }
        let entered = frame.is_there();
        let mut outermost = false;
        if entered {
            frame.text = call.text;
            (frame.location, frame.length) = ((*call.statement).stmt_location, (*call.statement).stmt_len);
            frame.parameters = call.params;
            outermost = frame.enter();
            if outermost {
                journal::statement_begins();
            }
        }
        call.pass_on(PREVIOUS_UTILITY.get());
        if entered {
            frame.leave();
        }
        if outermost {
            raised::statement_succeeded(&raw const frame);
        }
    }
}

/// COPY FROM and TRUNCATE name their tables; EXECUTE has them in the statement that was prepared.
///
/// # Safety
/// `node` must be a statement.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn fill_from_utility(frame: *mut Frame, node: *mut pg_sys::Node) {
    // SAFETY: as the caller promises; a node's tag says what it is. Look-ups by name, within a transaction.
    unsafe {
        // A schema that the session may not use is an error here, the one that the command would raise.
        let find = |name: *mut pg_sys::RangeVar| {
            let flags = pg_sys::RVROption::RVR_MISSING_OK;
            pg_sys::RangeVarGetRelidExtended(name, pg_sys::NoLock as i32, flags, None, std::ptr::null_mut())
        };
        match (*node).type_ {
            pg_sys::NodeTag::T_CopyStmt => {
                let copy = node.cast::<pg_sys::CopyStmt>();
                if (*copy).is_from && !(*copy).relation.is_null() {
                    (*frame).add(find((*copy).relation), "COPY");
                }
            }
            pg_sys::NodeTag::T_TruncateStmt => {
                for name in PgList::<pg_sys::RangeVar>::from_pg((*node.cast::<pg_sys::TruncateStmt>()).relations).iter_ptr() {
                    (*frame).add(find(name), "TRUNCATE");
                }
            }
            pg_sys::NodeTag::T_ExecuteStmt => {
                let prepared = pg_sys::FetchPreparedStatement((*node.cast::<pg_sys::ExecuteStmt>()).name, false);
                if !prepared.is_null() {
                    for query in PgList::<pg_sys::Query>::from_pg((*(*prepared).plansource).query_list).iter_ptr() {
                        fill_from_query(frame, query);
                    }
                }
            }
            _ => {}
        }
    }
}
