//! Quarantine: if a worker dies while it makes the entry of a record, the next worker writes the
//! record to the server's log, and does not try to make the entry again.

use crate::failures::queue::{self, LogLine};
use crate::pg::current_database;
use std::cell::Cell;

thread_local! {
    /// The number up to which each record is written in its own transaction, because the last
    /// worker died while it was writing these records in one transaction.
    static ALONE_THROUGH: Cell<u64> = const { Cell::new(0) };
}

/// Quarantines the record that the last worker was processing when it died, because the record
/// would end this worker too. If the last worker was writing several records when it died, makes
/// this worker write each of them in its own transaction. `written` is the number of the last
/// record that has been written.
pub fn quarantine(progress: &queue::Progress, written: u64) {
    let (processing, writing) = progress.get();
    if processing > written {
        let database = current_database();
        let queued = queue::peek(database, usize::MAX, usize::MAX);
        if let Some((_, bytes)) = queued.iter().find(|(number, _)| *number == processing) {
            LogLine::new(bytes, "the worker died while it made an entry of it")
                .iter()
                .for_each(LogLine::write);
        }
        queue::quarantine(database, processing);
    }
    ALONE_THROUGH.set(writing);
    progress.set(0, 0);
}

/// Returns whether the record must be written in its own transaction, because the last worker died
/// while it was writing the record with others.
pub fn is_written_alone(number: u64) -> bool {
    number <= ALONE_THROUGH.get()
}
