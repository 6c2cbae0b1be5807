//! Contains the planner hook. The planner hook opens a statement scope, so that an error of the
//! planner in a write to a watched table is recorded.

use super::next;
use crate::failures::{self, StatementScope};
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{c_char, c_int};

thread_local! {
    static PREVIOUS: Cell<pg_sys::planner_hook_type> = const { Cell::new(None) };
}

pub fn install() {
    // SAFETY: `install` is called once, while the library is being loaded. The hook functions exist
    // for the life of the process.
    unsafe {
        PREVIOUS.set(pg_sys::planner_hook);
        pg_sys::planner_hook = Some(planner);
    }
}

unsafe extern "C-unwind" fn planner(
    parse: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let mut scope = StatementScope::new();
    // SAFETY: PostgreSQL passed the arguments, and the statement scope lives until this function
    // returns.
    unsafe {
        before(&raw mut scope, parse, text, parameters);
        let planned = next::planner(PREVIOUS.get(), parse, text, options, parameters);
        scope.leave();
        planned
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before(
    scope: *mut StatementScope,
    parse: *mut pg_sys::Query,
    text: *const c_char,
    parameters: pg_sys::ParamListInfo,
) {
    // SAFETY: the hook function passes its own statement scope, and the arguments that PostgreSQL
    // passed.
    unsafe { failures::planning_begins(&mut *scope, parse, text, parameters) }
}
