//! Calls the next hook, which is the previously installed hook or else PostgreSQL's own function.
//!
//! This module binds the functions of PostgreSQL without pgrx's guard. pgrx's guard would remove
//! the constraint, the context and the position from an error. Without the guard, an error jumps
//! over the frames of this module's functions, and over those of the hooks that call them.
//! Therefore no value in these frames may have a destructor.

use pgrx::pg_sys;
use std::ffi::{c_char, c_int};

mod raw {
    use pgrx::pg_sys;
    use std::ffi::{c_char, c_int};

    unsafe extern "C-unwind" {
        pub fn standard_planner(
            parse: *mut pg_sys::Query,
            text: *const c_char,
            options: c_int,
            parameters: pg_sys::ParamListInfo,
        ) -> *mut pg_sys::PlannedStmt;
        pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
        // In PostgreSQL 18, standard_ExecutorRun has no argument `execute_once`.
        #[cfg(not(feature = "pg18"))]
        pub fn standard_ExecutorRun(
            query: *mut pg_sys::QueryDesc,
            direction: pg_sys::ScanDirection::Type,
            count: u64,
            once: bool,
        );
        #[cfg(feature = "pg18")]
        pub fn standard_ExecutorRun(
            query: *mut pg_sys::QueryDesc,
            direction: pg_sys::ScanDirection::Type,
            count: u64,
        );
        pub fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
        pub fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
    }
}

/// # Safety
/// The arguments must be those that PostgreSQL passed to the hook.
pub unsafe fn planner(
    previous: pg_sys::planner_hook_type,
    parse: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the arguments are those of PostgreSQL's call (see # Safety).
    unsafe { previous.unwrap_or(raw::standard_planner)(parse, text, options, parameters) }
}

/// # Safety
/// The arguments must be those that PostgreSQL passed to the hook.
pub unsafe fn executor_start(
    previous: pg_sys::ExecutorStart_hook_type,
    query: *mut pg_sys::QueryDesc,
    flags: c_int,
) {
    // SAFETY: the arguments are those of PostgreSQL's call (see # Safety).
    unsafe { previous.unwrap_or(raw::standard_ExecutorStart)(query, flags) }
}

/// # Safety
/// The arguments must be those that PostgreSQL passed to the hook.
#[cfg(not(feature = "pg18"))]
pub unsafe fn executor_run(
    previous: pg_sys::ExecutorRun_hook_type,
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: the arguments are those of PostgreSQL's call (see # Safety).
    unsafe { previous.unwrap_or(raw::standard_ExecutorRun)(query, direction, count, once) }
}

/// # Safety
/// The arguments must be those that PostgreSQL passed to the hook.
#[cfg(feature = "pg18")]
pub unsafe fn executor_run(
    previous: pg_sys::ExecutorRun_hook_type,
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
) {
    // SAFETY: the arguments are those of PostgreSQL's call (see # Safety).
    unsafe { previous.unwrap_or(raw::standard_ExecutorRun)(query, direction, count) }
}

/// # Safety
/// The arguments must be those that PostgreSQL passed to the hook.
pub unsafe fn executor_finish(
    previous: pg_sys::ExecutorFinish_hook_type,
    query: *mut pg_sys::QueryDesc,
) {
    // SAFETY: the arguments are those of PostgreSQL's call (see # Safety).
    unsafe { previous.unwrap_or(raw::standard_ExecutorFinish)(query) }
}

/// # Safety
/// The arguments must be those that PostgreSQL passed to the hook.
pub unsafe fn executor_end(previous: pg_sys::ExecutorEnd_hook_type, query: *mut pg_sys::QueryDesc) {
    // SAFETY: the arguments are those of PostgreSQL's call (see # Safety).
    unsafe { previous.unwrap_or(raw::standard_ExecutorEnd)(query) }
}
