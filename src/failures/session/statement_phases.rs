//! Opens a statement scope for each statement that writes to a watched table. Each phase of the
//! statement (planning, start, run and finish) has a scope of its own. A utility command has one
//! scope. The hooks call the functions of this file.
//!
//! A statement that writes to no watched table has no scope. If a statement without a scope runs
//! within a statement on a watched table and fails, the error counts as an error of the outer
//! statement.

use super::statement_scope::{Phase, StatementScope};
use super::{activation, recording, statement_text};
use crate::entries;
use crate::pg::{UtilityCall, relation_named, trigger_depth};
use pgrx::{PgList, pg_sys};
use std::ffi::c_char;

/// Prepares the session for the recording of failed statements. The function is called when the
/// session begins.
pub fn session_begins() {
    recording::keep_base();
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

/// Opens a scope for the planning of a query, if the query writes to a watched table. The function
/// is called before the query is planned.
///
/// # Safety
/// `scope` must not move until the scope is closed. `parse`, `text` and `parameters` must be the
/// arguments that PostgreSQL passed to the planner hook.
pub unsafe fn planning_begins(
    scope: &mut StatementScope,
    parse: *mut pg_sys::Query,
    text: *const c_char,
    parameters: pg_sys::ParamListInfo,
) {
    recording::keep_base();
    // SAFETY: the query tree is live, because PostgreSQL passed the query tree to the planner hook
    // (see # Safety).
    unsafe {
        let writes =
            (*parse).commandType != pg_sys::CmdType::CMD_SELECT || (*parse).hasModifyingCTE;
        if writes && activation::is_active_or_found() {
            add_targets_of_query(scope, parse);
        }
        if scope.has_target() {
            scope.text = text;
            (scope.location, scope.length) = ((*parse).stmt_location, (*parse).stmt_len);
            scope.parameters = parameters;
            scope.enter();
        }
    }
}

/// # Safety
/// `query` must be a query tree.
unsafe fn add_targets_of_query(scope: &mut StatementScope, query: *mut pg_sys::Query) {
    // SAFETY: the query tree is live (see # Safety). `resultRelation` is an index into the range
    // table, and is counted from 1.
    unsafe {
        pg_sys::check_stack_depth();
        if let Some(operation) = operation((*query).commandType)
            && (*query).resultRelation > 0
        {
            let table = PgList::<pg_sys::RangeTblEntry>::from_pg((*query).rtable);
            if let Some(entry) = table.get_ptr((*query).resultRelation as usize - 1) {
                scope.add((*entry).relid, operation);
            }
        }
        for expression in PgList::<pg_sys::CommonTableExpr>::from_pg((*query).cteList).iter_ptr() {
            let inner = (*expression).ctequery;
            if !inner.is_null() && (*inner).type_ == pg_sys::NodeTag::T_Query {
                let inner = inner.cast::<pg_sys::Query>();
                if (*inner).commandType != pg_sys::CmdType::CMD_SELECT {
                    add_targets_of_query(scope, inner);
                }
            }
        }
    }
}

/// Opens a scope for the start of a query, if the query writes to a watched table. The function is
/// called before the executor starts the query.
///
/// # Safety
/// `scope` must not move until the scope is closed. `query` must be the query that PostgreSQL
/// passed to the executor's hook.
pub unsafe fn execution_begins(scope: &mut StatementScope, query: *mut pg_sys::QueryDesc) {
    recording::keep_base();
    // SAFETY: `scope` and `query` are valid (see # Safety).
    unsafe {
        if describe(scope, query, Phase::Outside) {
            statement_text::remember_parameters(scope.parameters);
            scope.enter();
            if scope.is_outermost() {
                entries::statement_begins();
            }
        }
    }
}

/// Opens a scope for a later phase of a query, if the query writes to a watched table. The function
/// is called before the executor runs or finishes the query.
///
/// # Safety
/// The requirements are those of [`execution_begins`].
pub unsafe fn phase_begins(
    scope: &mut StatementScope,
    query: *mut pg_sys::QueryDesc,
    phase: Phase,
) {
    // SAFETY: `scope` and `query` are valid (see # Safety).
    unsafe {
        if describe(scope, query, phase) {
            scope.trigger_depth = trigger_depth();
            scope.enter();
        }
    }
}

/// Sets the fields of the scope, and adds the watched tables that the query writes to. Returns
/// whether the query writes to a watched table. The function is cheap for a query that writes to no
/// table.
///
/// # Safety
/// `query` must be a query that PostgreSQL passed to the executor.
#[inline]
unsafe fn describe(
    scope: &mut StatementScope,
    query: *mut pg_sys::QueryDesc,
    phase: Phase,
) -> bool {
    // SAFETY: PostgreSQL passed the query to the executor (see # Safety), so the query is live.
    unsafe {
        let planned = (*query).plannedstmt;
        if ((*query).operation == pg_sys::CmdType::CMD_SELECT && !(*planned).hasModifyingCTE)
            || !activation::is_active_or_found()
        {
            return false;
        }
        add_targets_of_plan(scope, planned);
        scope.phase = phase;
        scope.query = query;
        scope.text = (*query).sourceText;
        (scope.location, scope.length) = ((*planned).stmt_location, (*planned).stmt_len);
        scope.parameters = (*query).params;
        scope.has_target()
    }
}

/// # Safety
/// `planned` must be a plan.
unsafe fn add_targets_of_plan(scope: &mut StatementScope, planned: *mut pg_sys::PlannedStmt) {
    // SAFETY: `planned` is a plan (see # Safety). A node's tag identifies its type. The plan
    // identifies a relation by an index into the range table, which is counted from 1.
    unsafe {
        let table = PgList::<pg_sys::RangeTblEntry>::from_pg((*planned).rtable);
        let add = |plan: *mut pg_sys::Plan| {
            if plan.is_null() || (*plan).type_ != pg_sys::NodeTag::T_ModifyTable {
                return;
            }
            let modify = plan.cast::<pg_sys::ModifyTable>();
            let place = match (*modify).rootRelation {
                0 => {
                    PgList::<i32>::from_pg((*modify).resultRelations).iter_int().next().unwrap_or(0)
                }
                root => root as i32,
            };
            if let (Some(operation), Some(entry)) =
                (operation((*modify).operation), table.get_ptr((place - 1).max(0) as usize))
            {
                scope.add((*entry).relid, operation);
            }
        };
        let mut add = add;
        add((*planned).planTree);
        if (*planned).hasModifyingCTE {
            PgList::<pg_sys::Plan>::from_pg((*planned).subplans).iter_ptr().for_each(add);
        }
    }
}

/// Opens a scope for a utility command, if the command writes to a watched table. The function is
/// called before the command runs.
///
/// # Safety
/// `scope` must not move until the scope is closed. `call` must have the arguments that PostgreSQL
/// passed to the hook on ProcessUtility.
pub unsafe fn command_begins(scope: &mut StatementScope, call: &UtilityCall) {
    recording::keep_base();
    // SAFETY: `scope` and `call` are valid (see # Safety). The node's tag identifies its type.
    unsafe {
        let node = (*call.statement).utilityStmt;
        let may_write = matches!(
            (*node).type_,
            pg_sys::NodeTag::T_CopyStmt
                | pg_sys::NodeTag::T_TruncateStmt
                | pg_sys::NodeTag::T_ExecuteStmt
        );
        if may_write && activation::is_active_or_found() {
            add_targets_of_command(scope, node);
        }
        if scope.has_target() {
            scope.text = call.text;
            (scope.location, scope.length) =
                ((*call.statement).stmt_location, (*call.statement).stmt_len);
            scope.parameters = call.params;
            scope.enter();
            if scope.is_outermost() {
                entries::statement_begins();
            }
        }
    }
}

/// Adds to the scope the watched tables that COPY FROM or TRUNCATE names. For EXECUTE, adds the
/// watched tables to which the prepared statement writes.
///
/// # Safety
/// `node` must be a statement.
unsafe fn add_targets_of_command(scope: &mut StatementScope, node: *mut pg_sys::Node) {
    // SAFETY: `node` is a statement (see # Safety), and its tag identifies its type. The look-ups
    // by name run within a transaction.
    unsafe {
        // If the current role may not use the schema of a table, this look-up of the table's name
        // raises an error. Without this look-up, the utility command itself would raise the same
        // error.
        match (*node).type_ {
            pg_sys::NodeTag::T_CopyStmt => {
                let copy = node.cast::<pg_sys::CopyStmt>();
                if (*copy).is_from && !(*copy).relation.is_null() {
                    scope.add(relation_named((*copy).relation, pg_sys::NoLock), "COPY");
                }
            }
            pg_sys::NodeTag::T_TruncateStmt => {
                for name in PgList::<pg_sys::RangeVar>::from_pg(
                    (*node.cast::<pg_sys::TruncateStmt>()).relations,
                )
                .iter_ptr()
                {
                    scope.add(relation_named(name, pg_sys::NoLock), "TRUNCATE");
                }
            }
            pg_sys::NodeTag::T_ExecuteStmt => {
                let prepared = pg_sys::FetchPreparedStatement(
                    (*node.cast::<pg_sys::ExecuteStmt>()).name,
                    false,
                );
                if !prepared.is_null() {
                    for query in
                        PgList::<pg_sys::Query>::from_pg((*(*prepared).plansource).query_list)
                            .iter_ptr()
                    {
                        add_targets_of_query(scope, query);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Closes the scope, and counts the statement if the scope is the outermost scope. The function is
/// called when the statement has succeeded.
///
/// # Safety
/// If a scope was opened for the statement, `scope` must be this scope. If `scope` is the outermost
/// scope, the statement's text must still be live.
pub unsafe fn statement_ends(scope: &mut StatementScope) {
    let succeeded = scope.has_target() && scope.is_outermost();
    // SAFETY: code that ran within the scope has removed its own callbacks from the list of error
    // callbacks.
    unsafe { scope.leave() };
    if succeeded {
        // SAFETY: the statement's text is still live (see # Safety).
        unsafe { statement_text::statement_succeeded(scope) }
    }
}
