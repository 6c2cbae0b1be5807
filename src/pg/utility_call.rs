//! A call of ProcessUtility, which runs every command that the executor does not run. Its arguments
//! differ between versions of PostgreSQL.

use pgrx::pg_sys;
use std::ffi::c_char;

/// The arguments that PostgreSQL passed to the hook. Has no destructor.
#[derive(Clone, Copy)]
pub struct UtilityCall {
    /// The statement, whose `utilityStmt` is the command.
    pub statement: *mut pg_sys::PlannedStmt,
    /// The query string that contains the command.
    pub text: *const c_char,
    /// Whether the node must not be modified.
    pub read_only_tree: bool,
    /// Whether the client sent the command or other code runs it.
    pub context: pg_sys::ProcessUtilityContext::Type,
    /// The values of $1, $2, …, or null.
    pub params: pg_sys::ParamListInfo,
    /// Transition tables and the like, or null.
    pub environment: *mut pg_sys::QueryEnvironment,
    /// Receives the rows.
    pub destination: *mut pg_sys::DestReceiver,
    /// The command tag for the client.
    pub completion: *mut pg_sys::QueryCompletion,
}

unsafe extern "C-unwind" {
    // The function that pgrx binds, without pgrx's guard, which would drop the position of an
    // error.
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
    /// Calls the previous hook, or PostgreSQL's own function.
    ///
    /// # Safety
    /// The call must be PostgreSQL's and still in progress.
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
