//! Contains the hooks on the executor. AFTER row triggers run within ExecutorFinish, so the library
//! gathers entries during ExecutorFinish and writes them at its end.

use super::next;
use crate::failures::{self, Phase, StatementScope};
use crate::{capture, entries, watch};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_int;

thread_local! {
    static PREVIOUS_START: Cell<pg_sys::ExecutorStart_hook_type> = const { Cell::new(None) };
    static PREVIOUS_RUN: Cell<pg_sys::ExecutorRun_hook_type> = const { Cell::new(None) };
    static PREVIOUS_FINISH: Cell<pg_sys::ExecutorFinish_hook_type> = const { Cell::new(None) };
    static PREVIOUS_END: Cell<pg_sys::ExecutorEnd_hook_type> = const { Cell::new(None) };
}

pub fn install(preloading: bool) {
    // SAFETY: `install` is called once, while the library is being loaded. The hook functions exist
    // for the life of the process.
    unsafe {
        if preloading {
            PREVIOUS_START.set(pg_sys::ExecutorStart_hook);
            pg_sys::ExecutorStart_hook = Some(executor_start);
            PREVIOUS_RUN.set(pg_sys::ExecutorRun_hook);
            pg_sys::ExecutorRun_hook = Some(executor_run);
        }
        PREVIOUS_FINISH.set(pg_sys::ExecutorFinish_hook);
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        PREVIOUS_END.set(pg_sys::ExecutorEnd_hook);
        pg_sys::ExecutorEnd_hook = Some(executor_end);
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    let mut scope = StatementScope::new();
    // SAFETY: PostgreSQL passed the arguments, and the statement scope lives until this function
    // returns.
    unsafe {
        before_start(&raw mut scope, query);
        next::executor_start(PREVIOUS_START.get(), query, flags);
        scope.leave();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before_start(
    scope: *mut StatementScope,
    query: *mut pg_sys::QueryDesc,
) {
    // SAFETY: the hook function passes its own statement scope, and the query that PostgreSQL
    // passed.
    unsafe { failures::execution_begins(&mut *scope, query) }
}

// In PostgreSQL 18, ExecutorRun has no argument `execute_once`.
#[cfg(not(feature = "pg18"))]
unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    let mut scope = StatementScope::new();
    // SAFETY: PostgreSQL passed the arguments, and the statement scope lives until this function
    // returns.
    unsafe {
        before_run(&raw mut scope, query);
        next::executor_run(PREVIOUS_RUN.get(), query, direction, count, once);
        scope.leave();
    }
}

#[cfg(feature = "pg18")]
unsafe extern "C-unwind" fn executor_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
) {
    let mut scope = StatementScope::new();
    // SAFETY: PostgreSQL passed the arguments, and the statement scope lives until this function
    // returns.
    unsafe {
        before_run(&raw mut scope, query);
        next::executor_run(PREVIOUS_RUN.get(), query, direction, count);
        scope.leave();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before_run(scope: *mut StatementScope, query: *mut pg_sys::QueryDesc) {
    // SAFETY: the hook function passes its own statement scope, and the query that PostgreSQL
    // passed.
    unsafe { failures::phase_begins(&mut *scope, query, Phase::Run) }
}

unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    let mut scope = StatementScope::new();
    // SAFETY: PostgreSQL passed the arguments, and the statement scope lives until this function
    // returns. The executor state of the query lives until ExecutorEnd.
    unsafe {
        before_finish(&raw mut scope, query);
        next::executor_finish(PREVIOUS_FINISH.get(), query);
        after_finish(&raw mut scope, query);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before_finish(
    scope: *mut StatementScope,
    query: *mut pg_sys::QueryDesc,
) {
    // SAFETY: the hook function passes its own statement scope, and the query that PostgreSQL
    // passed.
    unsafe { failures::phase_begins(&mut *scope, query, Phase::Finish) };
    entries::statement_scope_opens();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn after_finish(
    scope: *mut StatementScope,
    query: *mut pg_sys::QueryDesc,
) {
    entries::statement_scope_closes();
    // SAFETY: the hook function passes the query that PostgreSQL passed.
    unsafe { watch::statement_ends(query) };
    // SAFETY: the hook function passes its own statement scope, and the query that PostgreSQL
    // passed. The executor state of the query is live.
    unsafe {
        // A query with EXEC_FLAG_SKIP_TRIGGERS is part of an outer statement, for example the
        // action of a foreign key. The row triggers of a query with EXEC_FLAG_SKIP_TRIGGERS run
        // later, at the end of the outer statement.
        let triggers_ran =
            (*(*query).estate).es_top_eflags & pg_sys::EXEC_FLAG_SKIP_TRIGGERS as i32 == 0;
        if triggers_ran {
            capture::statement_ends();
            entries::flush();
        }
        failures::statement_ends(&mut *scope);
    }
}

unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    before_end();
    // SAFETY: PostgreSQL passed the argument.
    unsafe { next::executor_end(PREVIOUS_END.get(), query) }
}

/// Writes the batch of the statement that has loaded the library. The hook on ExecutorFinish was
/// not installed yet when that statement reached ExecutorFinish. If an inner statement has loaded
/// the library, this function also writes the entries that the outer statement has made so far.
/// Usually the library writes the entries of a statement only when the statement ends.
#[pgrx::pg_guard]
extern "C-unwind" fn before_end() {
    if entries::is_first_statement() {
        capture::statement_ends();
        entries::flush();
    }
}
