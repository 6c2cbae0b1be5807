//! Failures in the session: the hooks open a `scope` for each statement on a watched table (`targets`). When an error is raised,
//! `error_callback` makes a record of it (with `failing_row`, if the row is at hand). `xact_end` makes the record final when the
//! error is reported, or when the (sub)transaction that the statement ran in is rolled back. If the statement survives, the
//! record is dropped.

mod error_callback;
mod failing_row;
mod following;
mod masked;
mod names;
mod scope;
mod targets;
mod temporary;
pub mod utility_commands;
mod watched;
mod xact_end;

pub use error_callback::{begin_log, begin_record, end_record, error_raised};
pub use failing_row::{FailingRow, fingerprint, from_hex};
pub use following::switch_off;
pub use names::note_name;
pub use scope::{ErrorCallbacks, Phase, StatementScope, innermost_scope, set_error_callbacks};
pub use targets::{command_begins, execution_begins, phase_begins, planning_begins, session_begins, statement_ends};
pub use watched::{relation_changed, schema_changed, watched};
pub use xact_end::{before_commit, error_is_final, gap, subtransaction_aborts, subtransaction_commits, transaction_ends};
