//! Runs the commands that create and drop lead_audit's triggers. They run with the rights of the
//! extension's owner, a superuser.
//!
//! PostgreSQL evaluates constant expressions when it reads a partition key or an index, so CREATE
//! TRIGGER on a partitioned table calls functions of the table's owner. Such a function must not
//! get a superuser's rights, and must not write to a table that is about to get its triggers. So it
//! runs as the table's owner, in a security-restricted operation that is read-only. In the worker
//! such functions are refused. The functions of event triggers run with the rights of the role that
//! started the command.

use super::ddl_guard::{self, Suspended};
use crate::actor;
use crate::pg::{OpenRelation, ServerError, catalog_column};
use pgrx::{PgSqlErrorCode, Spi, pg_extern, pg_sys};
use std::cell::Cell;
use std::ffi::c_int;

/// The state of this module: which functions may run.
#[derive(Clone, Copy)]
enum State {
    /// No command for an audit trigger is running.
    Idle,
    /// lead_audit is running a command that creates or drops an audit trigger.
    Restricted(For),
    /// This command has called a function that belongs to neither PostgreSQL nor lead_audit. The
    /// function is running, with the rights of the owner of the table.
    Lent(Call),
}

/// The role for which the trigger command runs, and the owner of the command's table.
#[derive(Clone, Copy)]
struct For {
    role: pg_sys::Oid,
    owner: pg_sys::Oid,
}

/// A call of another role's function, and the state to restore when the call ends.
#[derive(Clone, Copy)]
struct Call {
    function: pg_sys::Oid,
    within: For,
    user: pg_sys::Oid,
    context: c_int,
    is_read_only: bool,
    settings: c_int,
    guard: Suspended,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::Idle) };
}

/// `lead_audit_internal.run_trigger_ddl(regclass, text)`: runs a command that creates or drops
/// triggers of a table.
#[pg_extern(sql = false)]
fn run_trigger_ddl(relation: pg_sys::Oid, command: &str) {
    struct Restore(State);
    impl Drop for Restore {
        fn drop(&mut self) {
            STATE.set(self.0);
        }
    }
    let owner = {
        let table = OpenRelation::open(relation, pg_sys::AccessShareLock);
        // SAFETY: the table is open.
        unsafe { (*(*table.as_ptr()).rd_rel).relowner }
    };
    let _restore =
        Restore(STATE.replace(State::Restricted(For { role: actor::acting_role(), owner })));
    if let Err(error) = ddl_guard::while_guarding(|| Spi::run(command)) {
        ddl_guard::failed(&error);
    }
}

/// Returns whether a trigger command is running, and no function of another role within it.
/// PostgreSQL's fmgr hook calls this for each function that is looked up.
pub fn restricts_calls() -> bool {
    matches!(STATE.get(), State::Restricted(_))
}

/// Returns whether the hook must report calls of this function during a trigger command.
pub fn concerns_call(function: pg_sys::Oid) -> bool {
    !is_trusted(function)
}

/// Returns whether the function belongs to PostgreSQL or to this extension.
fn is_trusted(function: pg_sys::Oid) -> bool {
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return true;
    }
    // SAFETY: look-ups by any oid and by name, which return an invalid oid if there is no
    // extension.
    unsafe {
        let extension = pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function);
        extension != pg_sys::InvalidOid
            && extension == pg_sys::get_extension_oid(c"lead_audit".as_ptr(), true)
    }
}

/// Returns whether a function runs with the rights of its owner.
fn is_security_definer(function: pg_sys::Oid) -> bool {
    let column = pg_sys::Anum_pg_proc_prosecdef;
    // SAFETY: the key is the oid of a function, and the column is a boolean.
    let definer = unsafe { catalog_column(pg_sys::SysCacheIdentifier::PROCOID, function, column) };
    definer.is_some_and(|definer| definer.value() as u8 != 0)
}

/// Switches to the role as which the function must run. Called before a function is called.
pub fn call_begins(function: pg_sys::Oid) {
    let State::Restricted(within) = STATE.get() else { return };
    if is_trusted(function) {
        return;
    }
    // SAFETY: a look-up by any oid, and variables of the session. The end of the call, or else the
    // abort of the (sub)transaction, restores the variables.
    unsafe {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let is_read_only = pg_sys::XactReadOnly;
        let settings = pg_sys::NewGUCNestLevel();
        let mut new_context = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int;
        // For a SECURITY DEFINER function, PostgreSQL has set the user before it calls the hook.
        let definer = is_security_definer(function).then_some(user);
        if pg_sys::get_func_rettype(function) == pg_sys::EVENT_TRIGGEROID {
            pg_sys::SetUserIdAndSecContext(definer.unwrap_or(within.role), new_context);
        } else if pg_sys::MyBackendType == pg_sys::BackendType::B_BG_WORKER {
            ServerError {
                code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "the worker does not run functions of a table's owner".to_owned(),
                detail: Some(
                    "The partition key of the table calls one with nothing but constants."
                        .to_owned(),
                ),
            }
            .raise(Some("Call lead_audit.check_watched().".to_owned()));
        } else {
            new_context |= pg_sys::SECURITY_RESTRICTED_OPERATION as c_int;
            pg_sys::SetUserIdAndSecContext(definer.unwrap_or(within.owner), new_context);
            pg_sys::XactReadOnly = true;
        }
        STATE.set(State::Lent(Call {
            function,
            within,
            user,
            context,
            is_read_only,
            settings,
            guard: ddl_guard::suspend(),
        }));
    }
}

/// Restores the state from before the call. Called when a function has returned or failed.
pub fn call_ends(function: pg_sys::Oid, failed: bool) {
    let State::Lent(call) = STATE.get() else { return };
    if call.function != function {
        return;
    }
    ddl_guard::resume(call.guard);
    STATE.set(State::Restricted(call.within));
    if !failed {
        // SAFETY: restores the values saved at the beginning of the call.
        unsafe {
            pg_sys::XactReadOnly = call.is_read_only;
            pg_sys::AtEOXact_GUC(false, call.settings);
            pg_sys::SetUserIdAndSecContext(call.user, call.context);
        }
    }
}
