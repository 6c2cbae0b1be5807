//! Failed statements are recorded. Rollback discards their entries, so the record goes through a queue in shared memory, from
//! which the database's worker writes it.
//!
//! In the session: the hooks open a `scope` for each statement on a watched table (`targets`). When an error is raised,
//! `error_callback` makes a record of it (with `failing_row`, if the row is at hand). `xact_end` makes the record final when the
//! error is reported, or when the (sub)transaction that the statement ran in is rolled back; if the statement survives, the
//! record is dropped. In the worker: `write` makes entries of records; for errors that came before PostgreSQL knew the table (in
//! parsing, in binding a parameter), `resolve` finds it out from the statement's text.
//!
//! All of it needs the library to be preloaded.

mod error_callback;
mod failing_row;
mod following;
mod masked;
mod names;
mod patience;
mod record;
mod resolve;
mod scope;
mod targets;
mod temporary;
mod watched;
mod write;
mod xact_end;

pub use error_callback::{begin_record, end_record, error_raised};
pub use failing_row::FailingRow;
pub use following::switch_off;
pub use names::note_name;
pub use record::{log_rest, write_to_server_log};
pub use scope::{Phase, StatementScope, innermost_scope};
pub use targets::{command_begins, execution_begins, phase_begins, planning_begins, session_begins, statement_ends};
pub use temporary::{doubt_temporary_tables, note_temporary_table};
pub use watched::{relation_changed, schema_changed};
pub use write::{drain, load_names};
pub use xact_end::{before_commit, error_is_final, subtransaction_aborts, subtransaction_commits, transaction_ends};

/// Follows what is written and cannot be written, where the library is preloaded.
pub fn follow() {
    crate::entries::follow_written();
    crate::entries::report_gaps_to(xact_end::gap);
}
