//! Stores entries in the table `lead_audit.entry`. The module `batch` gathers the entries of one
//! statement. The module `writer` writes the batch at the latest when the statement ends. The
//! module `flush_points` decides when the batch of a statement is written.
//!
//! An entry gets its id, time and checksum when the event happens, and only the writing to the
//! table is deferred. An entry belongs to the subtransaction of its event, and is discarded if that
//! subtransaction rolls back.

mod batch;
mod entry_table;
mod flush_points;
mod invalid_bytes;
mod new_entry;
mod on_error;
mod renumber;
mod stored_entry;
mod write_counts;
mod writer;

pub use entry_table::{
    COLUMNS, check_columns, relation_changed, relation_of_schema, sequence_changed,
};
pub use flush_points::{
    is_first_statement, library_is_loaded, statement_scope_closes, statement_scope_opens,
    subtransaction_aborts, subtransaction_commits, subtransaction_starts, transaction_ends,
};
pub use invalid_bytes::InvalidBytes;
pub use ledger::EntryColumn;
pub use new_entry::{NewEntry, Outcome};
#[cfg(any(test, feature = "pg_test"))]
pub use on_error::not_written_yet_counted;
pub use on_error::{UnwrittenEntry, before_commit, entry_not_written, report_unwritten_to};
pub use stored_entry::{StoredEntry, StoredFault};
pub use write_counts::{
    WriteCount, count_writes, statement_begins, statement_succeeded, take_write_counts,
    write_counts,
};
pub use writer::{append, append_about, flush, write_at_once};
