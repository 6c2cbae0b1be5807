//! Wraps a call of ProcessUtility, which runs every command that the executor does not run.

use pgrx::pg_sys;
use std::ffi::c_char;

/// The arguments that PostgreSQL passed to the hook on ProcessUtility. The type has no destructor,
/// so an error can jump over a value of this type.
#[derive(Clone, Copy)]
pub struct UtilityCall {
    /// The statement. The field `utilityStmt` of the statement is the command.
    pub statement: *mut pg_sys::PlannedStmt,
    /// The query string that contains the command.
    pub text: *const c_char,
    /// Whether the tree of the statement must not be modified.
    pub read_only_tree: bool,
    /// The context of the command, for example that the client sent the command, or that a function
    /// runs the command.
    pub context: pg_sys::ProcessUtilityContext::Type,
    /// The values of $1, $2, …, or null.
    pub params: pg_sys::ParamListInfo,
    /// The query environment, for example with transition tables, or null.
    pub environment: *mut pg_sys::QueryEnvironment,
    /// The receiver of the command's rows.
    pub destination: *mut pg_sys::DestReceiver,
    /// The place for the command tag that the client gets, or null.
    pub completion: *mut pg_sys::QueryCompletion,
}

unsafe extern "C-unwind" {
    // pgrx also binds this function, but with its guard (`pg_guard_ffi_boundary`), which would
    // remove the position of an error.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

impl UtilityCall {
    /// Calls the previous hook on ProcessUtility or, if there is no previous hook, PostgreSQL's own
    /// function.
    ///
    /// # Safety
    /// PostgreSQL must have made this call of ProcessUtility, and the call must still be in
    /// progress.
    pub unsafe fn run(self, previous: pg_sys::ProcessUtility_hook_type) {
        // SAFETY: the arguments are those of PostgreSQL's call (see # Safety).
        unsafe {
            previous.unwrap_or(standard_ProcessUtility)(
                self.statement,
                self.text,
                self.read_only_tree,
                self.context,
                self.params,
                self.environment,
                self.destination,
                self.completion,
            );
        }
    }
}
