//! Quarantine: if a worker died while it made an entry of a record, the next worker writes the
//! record to the server's log and does not try it again.

use crate::failures::queue::{self, LogLine};
use crate::pg::current_database;
use std::cell::Cell;

thread_local! {
    /// Records up to this number are written one by one, because a worker died while it wrote some
    /// of them together.
    static ALONE_THROUGH: Cell<u64> = const { Cell::new(0) };
}

/// If a record may have ended the last worker, writes it to the server's log, since it would end
/// the next worker too. If the last worker died in a batch, each record of the batch is written
/// alone.
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

/// Whether the record must be written alone, because a worker died in the batch that contained it.
pub fn is_written_alone(number: u64) -> bool {
    number <= ALONE_THROUGH.get()
}
