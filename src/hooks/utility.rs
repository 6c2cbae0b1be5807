//! Contains the hook on utility commands. COPY fires row triggers outside of the executor, so the
//! hook gathers and writes the entries of COPY. The hook opens a statement scope, so that a failed
//! COPY or TRUNCATE is recorded. The hook also notices commands that concern the launcher and the
//! worker, for example DROP DATABASE.

use crate::failures::{self, StatementScope};
use crate::pg::UtilityCall;
use crate::watch::{self, CommandScope};
use crate::{capture, entries};
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    static PREVIOUS: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

pub fn install() {
    // SAFETY: `install` is called once, while the library is being loaded. The hook functions exist
    // for the life of the process.
    unsafe {
        PREVIOUS.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// Defines a function that can be installed as a ProcessUtility hook. The function packs its
/// arguments into a [`UtilityCall`], which it passes to `$work`.
macro_rules! utility_hook {
    ($hook:ident => $work:path) => {
        unsafe extern "C-unwind" fn $hook(
            statement: *mut pgrx::pg_sys::PlannedStmt,
            text: *const core::ffi::c_char,
            read_only_tree: bool,
            context: pgrx::pg_sys::ProcessUtilityContext::Type,
            params: pgrx::pg_sys::ParamListInfo,
            environment: *mut pgrx::pg_sys::QueryEnvironment,
            destination: *mut pgrx::pg_sys::DestReceiver,
            completion: *mut pgrx::pg_sys::QueryCompletion,
        ) {
            let call = $crate::pg::UtilityCall {
                statement,
                text,
                read_only_tree,
                context,
                params,
                environment,
                destination,
                completion,
            };
            // SAFETY: PostgreSQL passed the arguments of `call`.
            unsafe { $work(call) }
        }
    };
}

utility_hook!(process_utility => run);

/// # Safety
/// `call` must contain the arguments that PostgreSQL passed to the hook.
unsafe fn run(call: UtilityCall) {
    let mut scope = StatementScope::new();
    let mut command = CommandScope::new();
    // SAFETY: `call` contains PostgreSQL's arguments (see # Safety). The statement scope and the
    // command scope live until this function returns.
    unsafe {
        // COPY is the only command that fires row triggers itself. Other commands, for example
        // CALL, can end the transaction, so the library gathers no entries while they run.
        let fires_row_triggers =
            (*(*call.statement).utilityStmt).type_ == pg_sys::NodeTag::T_CopyStmt;
        before(&raw mut scope, &raw const call, fires_row_triggers);
        command.open(&call);
        call.run(PREVIOUS.get());
        command.close();
        after(&raw mut scope, fires_row_triggers);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before(
    scope: *mut StatementScope,
    call: *const UtilityCall,
    fires_row_triggers: bool,
) {
    // SAFETY: the hook function passes its own statement scope and call.
    unsafe {
        failures::command_begins(&mut *scope, &*call);
        failures::utility_commands::command_begins((*call).statement, (*call).context);
        watch::copy_begins((*(*call).statement).utilityStmt);
    }
    if fires_row_triggers {
        entries::statement_scope_opens();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn after(scope: *mut StatementScope, fires_row_triggers: bool) {
    if fires_row_triggers {
        entries::statement_scope_closes();
        capture::statement_ends();
        entries::flush();
    }
    // SAFETY: the hook function passes its own statement scope.
    unsafe { failures::statement_ends(&mut *scope) }
}
