//! The commands by which lead_audit makes and drops its triggers. They run with the rights of the extension's owner, a superuser.
//!
//! PostgreSQL works out expressions without columns when it reads a partition key or an index, so CREATE TRIGGER on a partitioned table
//! calls functions of the table's owner. They would have all rights, and a table without its triggers before them. No function runs
//! within such a command but PostgreSQL's own and lead_audit's. Event triggers run with the rights of whoever began it all.

use super::ddl::{self, Suspended};
use crate::actor;
use crate::pg::ServerError;
use pgrx::{PgSqlErrorCode, Spi, pg_extern, pg_sys};
use std::cell::Cell;
use std::ffi::CStr;

/// What may run.
#[derive(Clone, Copy)]
enum State {
    /// No such command is under way.
    Idle,
    /// PostgreSQL's functions and lead_audit's only. The role is the one for whom the command runs.
    Restricted(pg_sys::Oid),
    /// This event trigger is running. The rest is what to go back to.
    InEventTrigger { function: pg_sys::Oid, role: pg_sys::Oid, user: pg_sys::Oid, context: i32, guard: Suspended },
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::Idle) };
}

/// `lead_audit.run_trigger_ddl(text)`: runs a command on the triggers of a table.
#[pg_extern(sql = false)]
fn run_trigger_ddl(command: &str) {
    struct Restore(State);
    impl Drop for Restore {
        fn drop(&mut self) {
            STATE.set(self.0);
        }
    }
    let _restore = Restore(STATE.replace(State::Restricted(actor::acting_role())));
    if let Err(error) = ddl::while_guarding(|| Spi::run(command)) {
        ddl::failed(&error);
    }
}

/// Whether such a command is under way. Asked for each look-up of a function.
pub fn restricts_calls() -> bool {
    matches!(STATE.get(), State::Restricted(_))
}

/// Whether calls of the function are to be told of, then.
pub fn concerns_call(function: pg_sys::Oid) -> bool {
    !is_trusted(function)
}

/// Functions that come with PostgreSQL, and those of the extension itself.
fn is_trusted(function: pg_sys::Oid) -> bool {
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return true;
    }
    // SAFETY: look-ups by any oid and by name, which return an invalid oid for what belongs to no extension, and for no extension.
    unsafe {
        let extension = pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function);
        extension != pg_sys::InvalidOid && extension == pg_sys::get_extension_oid(c"lead_audit".as_ptr(), true)
    }
}

/// A function is about to be called.
pub fn call_begins(function: pg_sys::Oid) {
    let State::Restricted(role) = STATE.get() else { return };
    if is_trusted(function) {
        return;
    }
    // SAFETY: look-ups by any oid. The user is put back at the end of the call, or by the abort of the (sub)transaction.
    unsafe {
        if pg_sys::get_func_rettype(function) == pg_sys::EVENT_TRIGGEROID {
            let (mut user, mut context) = (pg_sys::InvalidOid, 0);
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
            STATE.set(State::InEventTrigger { function, role, user, context, guard: ddl::suspend() });
            return;
        }
        let name = pg_sys::format_procedure(function);
        let name = if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() };
        ServerError {
            code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: format!("function {name} cannot be called while lead_audit makes or drops its triggers"),
            detail: Some("A partition key, an index or a type of the table calls it with nothing but constants.".to_owned()),
        }
        .raise(Some("Put the function's result in its place.".to_owned()));
    }
}

/// A call of a function ended, by an error or not.
pub fn call_ends(ended: pg_sys::Oid, failed: bool) {
    if let State::InEventTrigger { function, role, user, context, guard } = STATE.get()
        && function == ended
    {
        if !failed {
            // SAFETY: what was found at the beginning of the call.
            unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
        }
        ddl::resume(guard);
        STATE.set(State::Restricted(role));
    }
}
