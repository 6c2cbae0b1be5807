//! Runs the commands that create and drop audit triggers. The commands run with the rights of the
//! extension's owner, who is a superuser.
//!
//! When PostgreSQL reads the definition of a partition key or an index, it evaluates the constant
//! expressions in the definition. Therefore CREATE TRIGGER on a partitioned table can call
//! functions of the table's owner. A function of the owner must not get a superuser's rights, and
//! must not write to a table that is about to get its triggers. Therefore a function of the owner
//! runs with the owner's rights, in a security-restricted and read-only operation. If the worker
//! runs the trigger command, a call of a function of the owner raises an error. The functions of
//! other roles' event triggers run with the rights of the role that started the command.

use super::ddl_guard::{self, Suspended};
use crate::actor;
use crate::pg::{OpenRelation, ServerError, catalog_column};
use pgrx::{PgSqlErrorCode, Spi, pg_extern, pg_sys};
use std::cell::Cell;
use std::ffi::c_int;

/// The state of this module. The state determines with which rights other roles' functions run.
#[derive(Clone, Copy)]
enum State {
    /// No command for an audit trigger is running.
    Idle,
    /// lead_audit is running a trigger command, which creates or drops audit triggers.
    Restricted(For),
    /// The trigger command is running a function that belongs to neither PostgreSQL nor lead_audit.
    /// The function runs with the rights that `call_begins` has chosen.
    Lent(Call),
}

/// The two roles of a trigger command: the role on whose behalf lead_audit runs the command, and
/// the owner of the table.
#[derive(Clone, Copy)]
struct For {
    role: pg_sys::Oid,
    owner: pg_sys::Oid,
}

/// A call of another role's function during a trigger command, and the state to restore when the
/// call ends.
#[derive(Clone, Copy)]
struct Call {
    function: pg_sys::Oid,
    within: For,
    user: pg_sys::Oid,
    context: c_int,
    is_read_only: bool,
    settings: c_int,
    is_definer: bool,
    guard: Suspended,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::Idle) };
}

/// `lead_audit_internal.run_trigger_ddl(regclass, text)`: runs a command that creates or drops
/// audit triggers of a table.
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
        // SAFETY: the table is open, so its `rd_rel` is valid.
        unsafe { (*(*table.as_ptr()).rd_rel).relowner }
    };
    let _restore =
        Restore(STATE.replace(State::Restricted(For { role: actor::acting_role(), owner })));
    // If a function of another role has a SET clause, PostgreSQL keeps the settings that the
    // function has changed when the function ends. The nest level undoes these changes when the
    // trigger command ends.
    // SAFETY: the nest level ends in this function, or with the (sub)transaction after an error.
    let settings = unsafe { pg_sys::NewGUCNestLevel() };
    if let Err(error) = ddl_guard::while_guarding(|| Spi::run(command)) {
        ddl_guard::failed(&error);
    }
    // SAFETY: this function has opened the nest level, and levels within it are closed.
    unsafe { pg_sys::AtEOXact_GUC(false, settings) }
}

/// Returns whether a trigger command is running, and no function of another role is running within
/// it. PostgreSQL's fmgr hook calls this function for each function that PostgreSQL looks up.
pub fn restricts_calls() -> bool {
    matches!(STATE.get(), State::Restricted(_))
}

/// Returns whether the fmgr hook must report calls of `function` during a trigger command.
pub fn concerns_call(function: pg_sys::Oid) -> bool {
    !is_trusted(function)
}

/// Returns whether `function` belongs to PostgreSQL or to lead_audit.
fn is_trusted(function: pg_sys::Oid) -> bool {
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return true;
    }
    // SAFETY: the look-ups accept any oid and any name. The look-ups return an invalid oid if the
    // extension does not exist.
    unsafe {
        let extension = pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function);
        extension != pg_sys::InvalidOid
            && extension == pg_sys::get_extension_oid(c"lead_audit".as_ptr(), true)
    }
}

/// Returns whether `function` is SECURITY DEFINER.
fn is_security_definer(function: pg_sys::Oid) -> bool {
    let column = pg_sys::Anum_pg_proc_prosecdef;
    // SAFETY: `function` is the oid of a function, and `prosecdef` is a boolean column.
    let definer = unsafe { catalog_column(pg_sys::SysCacheIdentifier::PROCOID, function, column) };
    definer.is_some_and(|definer| definer.value() as u8 != 0)
}

/// Switches to the role with whose rights `function` must run. The fmgr hook calls this code before
/// `function` runs.
pub fn call_begins(function: pg_sys::Oid) {
    let State::Restricted(within) = STATE.get() else { return };
    if is_trusted(function) {
        return;
    }
    // SAFETY: the look-up accepts any oid, and the variables belong to this session. The end of the
    // call restores the variables. After an error, the abort of the (sub)transaction restores the
    // variables.
    unsafe {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        let is_read_only = pg_sys::XactReadOnly;
        let settings = pg_sys::NewGUCNestLevel();
        let mut new_context = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int;
        // For a SECURITY DEFINER function, PostgreSQL has switched to the function's owner before
        // it calls the hook.
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
            is_definer: definer.is_some(),
            guard: ddl_guard::suspend(),
        }));
    }
}

/// Restores the role and the settings that were in force before the call of `function`. The fmgr
/// hook calls this code when `function` has returned or failed.
pub fn call_ends(function: pg_sys::Oid, failed: bool) {
    let State::Lent(call) = STATE.get() else { return };
    if call.function != function {
        return;
    }
    ddl_guard::resume(call.guard);
    STATE.set(State::Restricted(call.within));
    if !failed {
        // SAFETY: `call` contains the values that `call_begins` saved.
        unsafe {
            pg_sys::XactReadOnly = call.is_read_only;
            // If the function has a SET clause, PostgreSQL has already closed the nest level. The
            // number of a new nest level shows how many nest levels are open.
            let next = pg_sys::NewGUCNestLevel();
            pg_sys::AtEOXact_GUC(false, next.min(call.settings));
            // For a SECURITY DEFINER function, PostgreSQL has already restored the caller's role.
            // `call.user` is the function's owner, so the code must not switch to `call.user`.
            if !call.is_definer {
                pg_sys::SetUserIdAndSecContext(call.user, call.context);
            }
        }
    }
}
