//! Which statement on a watched table is under way. A frame lies on the C stack of the hook that made it and hangs in
//! PostgreSQL's own list of error callbacks, so it goes with the stack when an error jumps over it: nothing has to be put right.
//!
//! A statement on a table that is not watched has no frame: an error in it is one of the watched statement around it, if any.

use super::following;
use super::raised;
use super::watched::{Watched, watched};
use crate::journal;
use crate::server::current_subtransaction;
use pgrx::{PgList, pg_sys};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};

/// How far the executor is with the statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not in the executor: planning, COPY, TRUNCATE, or checking rights.
    Outside,
    /// Producing and writing rows.
    Run,
    /// Firing AFTER triggers.
    Finish,
}

/// A watched table that the statement writes to.
#[derive(Clone, Copy)]
pub struct Target {
    pub watched: *const Watched,
    pub operation: &'static str,
}

/// Most watched tables of one statement (with WITH it can have several).
const TARGETS: usize = 4;

/// One statement.
#[repr(C)]
pub struct Frame {
    callback: pg_sys::ErrorContextCallback,
    targets: [Target; TARGETS],
    count: usize,
    pub phase: Phase,
    /// Where the executor has it, or null.
    pub query: *mut pg_sys::QueryDesc,
    pub text: *const c_char,
    pub location: c_int,
    pub length: c_int,
    pub parameters: pg_sys::ParamListInfo,
    /// The subtransaction that goes if the statement fails.
    pub subtransaction: pg_sys::SubTransactionId,
}

impl Frame {
    const fn new() -> Self {
        Frame {
            callback: pg_sys::ErrorContextCallback { previous: std::ptr::null_mut(), callback: None, arg: std::ptr::null_mut() },
            targets: [Target { watched: std::ptr::null(), operation: "" }; TARGETS],
            count: 0,
            phase: Phase::Outside,
            query: std::ptr::null_mut(),
            text: std::ptr::null(),
            location: 0,
            length: 0,
            parameters: std::ptr::null_mut(),
            subtransaction: 0,
        }
    }

    /// The watched tables, at least one where there is a frame.
    pub fn targets(&self) -> &[Target] {
        &self.targets[..self.count]
    }

    fn add(&mut self, relation: pg_sys::Oid, operation: &'static str) {
        let watched = watched(relation);
        if !watched.is_null() && self.count < TARGETS {
            self.targets[self.count] = Target { watched, operation };
            self.count += 1;
        }
    }

    /// Hangs the frame into the list. True if there is no frame around it.
    ///
    /// # Safety
    /// `leave` must be called before the frame goes, unless an error jumps over both.
    unsafe fn enter(&mut self) -> bool {
        // SAFETY: as the caller promises.
        unsafe {
            let outermost = innermost().is_null();
            self.subtransaction = current_subtransaction();
            self.callback.previous = pg_sys::error_context_stack;
            self.callback.callback = Some(raised::in_statement);
            self.callback.arg = std::ptr::from_mut(self).cast();
            pg_sys::error_context_stack = &raw mut self.callback;
            outermost
        }
    }

    /// # Safety
    /// Where `enter` was called.
    unsafe fn leave(&mut self) {
        // SAFETY: as the caller promises: what was there is still there.
        unsafe { pg_sys::error_context_stack = self.callback.previous }
    }
}

/// The innermost statement that is under way, or null.
pub fn innermost() -> *mut Frame {
    // SAFETY: the list holds live callbacks; those with this function are of frames, which `arg` points to.
    unsafe {
        let mut callback = pg_sys::error_context_stack;
        while !callback.is_null() {
            if (*callback).callback.is_some_and(|function| std::ptr::fn_addr_eq(function, IN_STATEMENT)) {
                return (*callback).arg.cast();
            }
            callback = (*callback).previous;
        }
        std::ptr::null_mut()
    }
}

const IN_STATEMENT: unsafe extern "C-unwind" fn(*mut c_void) = raised::in_statement;

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
        PREVIOUS_AUTHENTICATION.set(raw::ClientAuthentication_hook);
        raw::ClientAuthentication_hook = Some(authentication);
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

mod raw {
    use pgrx::pg_sys;
    // The same functions as pgrx binds, without its guard: see src/journal/flush_points.rs.
    unsafe extern "C-unwind" {
        // libpq/auth.h, which pgrx does not bind.
        pub static mut ClientAuthentication_hook: Option<super::Authentication>;
        pub fn standard_planner(
            parse: *mut pg_sys::Query,
            text: *const core::ffi::c_char,
            options: core::ffi::c_int,
            parameters: pg_sys::ParamListInfo,
        ) -> *mut pg_sys::PlannedStmt;
        pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: core::ffi::c_int);
        pub fn standard_ExecutorRun(
            query: *mut pg_sys::QueryDesc,
            direction: pg_sys::ScanDirection::Type,
            count: u64,
            once: bool,
        );
        pub fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
        pub fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const core::ffi::c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            params: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            destination: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
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
        let entered = frame.count > 0;
        if entered {
            frame.text = text;
            (frame.location, frame.length) = ((*parse).stmt_location, (*parse).stmt_len);
            frame.parameters = parameters;
            frame.enter();
        }
        let planned = match PREVIOUS_PLANNER.get() {
            Some(previous) => previous(parse, text, options, parameters),
            None => raw::standard_planner(parse, text, options, parameters),
        };
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
        frame.count > 0
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
        match PREVIOUS_START.get() {
            Some(previous) => previous(query, flags),
            None => raw::standard_ExecutorStart(query, flags),
        }
        if entered {
            frame.leave();
        }
    }
}

unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    let mut frame = Frame::new();
    // SAFETY: as above.
    unsafe {
        let entered = fill_from_plan(&mut frame, query, Phase::Run);
        if entered {
            frame.enter();
        }
        match PREVIOUS_RUN.get() {
            Some(previous) => previous(query, direction, count, once),
            None => raw::standard_ExecutorRun(query, direction, count, once),
        }
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
        match PREVIOUS_FINISH.get() {
            Some(previous) => previous(query),
            None => raw::standard_ExecutorFinish(query),
        }
        if entered {
            frame.leave();
        }
        if outermost {
            raised::statement_succeeded(&raw const frame);
        }
    }
}

// ---- utility commands -------------------------------------------------------------------------------------------------

unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let mut frame = Frame::new();
    // SAFETY: as above.
    unsafe {
        raised::keep_base();
        let kind = (*(*statement).utilityStmt).type_;
        let may_write =
            matches!(kind, pg_sys::NodeTag::T_CopyStmt | pg_sys::NodeTag::T_TruncateStmt | pg_sys::NodeTag::T_ExecuteStmt);
        if may_write && following::is_on_or_found() {
            fill_from_utility(&raw mut frame, (*statement).utilityStmt);
        }
        let entered = frame.count > 0;
        let mut outermost = false;
        if entered {
            frame.text = text;
            (frame.location, frame.length) = ((*statement).stmt_location, (*statement).stmt_len);
            frame.parameters = params;
            outermost = frame.enter();
            if outermost {
                journal::statement_begins();
            }
        }
        match PREVIOUS_UTILITY.get() {
            Some(previous) => previous(statement, text, read_only_tree, context, params, environment, destination, completion),
            None => raw::standard_ProcessUtility(
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

/// The part of a text that a statement is, for one of several in a string: at most `limit` bytes of it.
///
/// # Safety
/// `text` must be null or a C string.
pub unsafe fn statement_text(text: *const c_char, location: c_int, length: c_int, limit: usize) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let from = usize::try_from(location).unwrap_or(0);
    let length = usize::try_from(length).ok().filter(|&length| length > 0).unwrap_or(usize::MAX);
    // A little more than the limit, so that it does not depend on white space in front; long texts are not copied for nothing.
    const WHITE_SPACE: usize = 256;
    let wanted = length.min(limit.saturating_add(WHITE_SPACE));
    // SAFETY: as the caller promises; no more is looked at than there is.
    let part = unsafe {
        let there = libc::strnlen(text, from.saturating_add(wanted));
        let from = from.min(there);
        std::slice::from_raw_parts(text.cast::<u8>().add(from), there - from)
    };
    let part = String::from_utf8_lossy(part);
    let part = part.trim();
    Some(part[..part.floor_char_boundary(limit)].to_owned())
}
