//! Quarantines a record if a worker died while it made the entry of the record. The next worker
//! writes a quarantined record to the server's log, and does not try to make its entry again.

use crate::failures::queue::{self, LogLine};
use crate::pg::current_database;
use std::cell::Cell;

thread_local! {
    /// The sequence number of the last record that must be written in its own transaction. The
    /// previous worker died while it was writing the records up to this number in one transaction.
    static ALONE_THROUGH: Cell<u64> = const { Cell::new(0) };
}

/// Quarantines the record that the previous worker was processing when it died. The same record may
/// end this worker too. If the previous worker died while it was writing several records in one
/// transaction, this worker writes each of these records in its own transaction. `written` is the
/// sequence number of the last record whose entry has been written.
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

/// Returns whether the record must be written in its own transaction. A record must be written
/// alone if the previous worker died while it was writing this record in one transaction with other
/// records.
pub fn is_written_alone(number: u64) -> bool {
    number <= ALONE_THROUGH.get()
}
