//! Quarantines a record if a worker died while the worker was making the entry of the record. The
//! next worker writes a quarantined record to the server's log, and does not try to make its entry
//! again.

use crate::failures::queue::{self, LogLine};
use crate::pg::current_database;
use std::cell::Cell;

thread_local! {
    /// The entries of all records up to this sequence number must be written in separate
    /// transactions. The previous worker died while it was writing the entries of these records in
    /// one transaction.
    static ALONE_THROUGH: Cell<u64> = const { Cell::new(0) };
}

/// Quarantines the record that the previous worker was processing when it died. The same record
/// could make this worker die too. If the previous worker was writing the entries of several
/// records in one transaction, this worker uses a separate transaction for each record. `written`
/// is the sequence number of the last record whose entry has been written.
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

/// Returns whether the record's entry must be written in a transaction of its own. The result is
/// true if the previous worker died while it was writing this entry together with other entries in
/// one transaction.
pub fn is_written_alone(number: u64) -> bool {
    number <= ALONE_THROUGH.get()
}
