//! A call of ProcessUtility, which runs every command that the executor does not. Its arguments are
//! not the same in each version of PostgreSQL.

use pgrx::pg_sys;
use std::ffi::c_char;

/// The call, as Postgres passed it to the hook. It holds nothing that has to be dropped.
#[derive(Clone, Copy)]
pub struct UtilityCall {
    /// The command, in a statement that has its node as `utilityStmt`.
    pub statement: *mut pg_sys::PlannedStmt,
    /// The text that it is part of.
    pub text: *const c_char,
    /// Whether the node must stay as it is.
    pub read_only_tree: bool,
    /// Whether the client sent it, or something else runs it.
    pub context: pg_sys::ProcessUtilityContext::Type,
    /// The values of $1, $2, …, or null.
    pub params: pg_sys::ParamListInfo,
    /// What else its queries may name, or null.
    pub environment: *mut pg_sys::QueryEnvironment,
    /// Where its rows go.
    pub destination: *mut pg_sys::DestReceiver,
    /// What it did, for the client.
    pub completion: *mut pg_sys::QueryCompletion,
}

unsafe extern "C-unwind" {
    // The same function as pgrx binds, without its guard, which would turn an error into one that
    // has lost its position.
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
    /// Gives the call to the hook that was there before, or to Postgres's own function.
    ///
    /// # Safety
    /// It must be a call that Postgres made, and not be over.
    pub unsafe fn run(self, previous: pg_sys::ProcessUtility_hook_type) {
        // SAFETY: as the caller promises.
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
