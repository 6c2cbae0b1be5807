//! Detects failed statements in the session. The hooks open a statement scope (`statement_scope`)
//! for each statement that writes to a watched table. When an error is raised, `error_callback`
//! makes a record of the error. `rejected_row` finds the rejected row for the record of the error.
//! `xact_end` confirms the record when the error is reported, or when the statement's
//! (sub)transaction is rolled back. If the error is caught within the statement, `xact_end` drops
//! the record.

mod activation;
mod error_callback;
mod name_filter;
mod raised_error;
mod recording;
mod redact;
mod rejected_row;
mod statement_phases;
mod statement_scope;
mod statement_text;
mod temporary_tables;
pub mod utility_commands;
mod watched_relations;
mod xact_end;

pub use activation::switch_off;
pub use error_callback::error_raised;
pub use name_filter::note_name;
pub use recording::{begin_record, end_record};
pub use rejected_row::{RejectedRow, fingerprint, from_hex};
pub use statement_phases::{
    command_begins, execution_begins, phase_begins, planning_begins, session_begins, statement_ends,
};
pub use statement_scope::{
    ErrorCallbacks, Phase, StatementScope, innermost_scope, set_error_callbacks,
};
pub use watched_relations::{relation_changed, schema_changed, watched};
pub use xact_end::{
    before_commit, entry_not_written, error_is_final, subtransaction_aborts,
    subtransaction_commits, transaction_ends,
};
