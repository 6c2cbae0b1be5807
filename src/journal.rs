//! From the entry to the table: entries of one statement are gathered (pending), written together (write) and, at the
//! latest, when the statement ends (flush_points).
//!
//! An entry takes its id, time and checksum when the event happens; only the writing waits. Entries belong to the
//! subtransaction that their event happened in, and are forgotten with it.

mod entry_table;
mod flush_points;
mod indexes;
mod new_entry;
mod pending;
mod unwritten;
mod write;
mod written;

pub use entry_table::{EntryColumn, check_columns, follow_changes, relation_of_schema};
pub use flush_points::install as install_flush_points;
pub use new_entry::{NewEntry, Outcome};
pub use unwritten::{Gap, not_written, report_gaps_to};
pub use write::{append, append_about, flush};
pub use written::{
    Written, follow as follow_written, forget as forget_written, settle as settle_written, statement_begins, written,
};
