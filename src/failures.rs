//! Records failed statements. Rollback discards all entries that a failed transaction has written.
//! So that a failed statement still gets an entry, the session puts a record of the statement into
//! a queue in shared memory. The database's worker turns each record of the queue into an entry.
//!
//! Failed statements are recorded only if the library is preloaded.

pub mod queue;
mod session;
mod worker;

pub use queue::{log_rest, write_to_server_log};
pub use session::{
    ErrorCallbacks, Phase, RejectedRow, StatementScope, before_commit, begin_record,
    command_begins, end_record, error_is_final, error_raised, execution_begins, innermost_scope,
    phase_begins, planning_begins, relation_changed, schema_changed, session_begins,
    set_error_callbacks, statement_ends, subtransaction_aborts, subtransaction_commits, switch_off,
    transaction_ends, utility_commands,
};
pub use worker::{drain, load_names};

/// Turns on the recording of failed statements, and of entries that could not be written. The
/// function is called when the library is preloaded.
pub fn record_failures() {
    crate::entries::count_writes();
    crate::entries::report_unwritten_to(session::entry_not_written);
}
