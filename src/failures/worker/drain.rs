//! Takes records from the queue and writes the entries of many records in one transaction. Each
//! transaction also stores the sequence number of the last record whose entry the transaction
//! writes. After the commit, the worker removes the records from the queue. If the worker dies
//! before it has removed them, the next worker knows from the stored number that their entries
//! exist.

use super::failed_entry::{ErrorIsolation, Gathering, is_passing};
use super::quarantine::{is_written_alone, quarantine};
use crate::entries;
use crate::failures::queue::record::Record;
use crate::failures::queue::{self, LogLine};
use crate::pg::{
    NextTurn, ServerError, current_database, in_extension_transaction, in_subtransaction,
};
use pgrx::datum::DatumWithOid;
use pgrx::{PgSqlErrorCode, Spi, pg_sys};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// The maximum number of records whose entries the worker writes in one transaction.
const BATCH: usize = 4000;
/// The worker takes no further record into a transaction with at least this many bytes of records.
const BATCH_BYTES: usize = 4 << 20;

/// The worker pauses after a transaction for this time, multiplied by the number of the
/// transaction's records minus 1. Because of the pauses, the worker commits less often. Each commit
/// of the worker waits for the disk, and delays commits of the application.
const PAUSE_FOR_EACH: Duration = Duration::from_millis(10);
/// The longest pause after a transaction.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// On average, the worker begins at most one transaction in this interval. The limit is needed
/// because the records of a single session can reach the worker one by one.
const INTERVAL: Duration = Duration::from_millis(20);
/// The number of transactions with a single record that the worker may begin without a pause after
/// a quiet time, so that the entries of a few failures appear at once.
const BURST: u32 = 10;

/// The number of records after which the worker sleeps for YIELD_MICROSECONDS. While the worker
/// sleeps, sessions that wait for a processor can run. A worker that has to write at least BATCH /
/// 2 records does not sleep.
const YIELD_EVERY: usize = 50;
const YIELD_MICROSECONDS: core::ffi::c_long = 1_000;

thread_local! {
    /// Whether this worker has cleaned up the queue after the previous worker. The worker removes
    /// the records whose entries the previous worker wrote, and quarantines the record that the
    /// previous worker was processing when it died.
    static CAUGHT_UP: Cell<bool> = const { Cell::new(false) };

    /// See [`pause_after`].
    static INTERVALS_END: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Returns how long after `now` the worker may begin the next transaction, if it begins a
/// transaction with this number of records at `now`.
///
/// Each transaction takes one [`INTERVAL`]. `intervals_end` is the time at which the intervals of
/// all transactions so far are over, one after the other. The worker pauses if this time is more
/// than [`BURST`] intervals after `now`.
fn pause_after(intervals_end: &Cell<Option<Instant>>, now: Instant, records: usize) -> Duration {
    let burst = INTERVAL * BURST;
    let end = intervals_end.get().map_or(now, |end| end.clamp(now, now + burst)) + INTERVAL;
    intervals_end.set(Some(end));
    let pause = PAUSE_FOR_EACH * (records.min(BATCH) as u32).saturating_sub(1);
    pause.min(LONGEST_PAUSE).max((end - now).saturating_sub(burst))
}

/// A record with its sequence number.
struct Numbered {
    number: u64,
    record: Record,
}

/// Writes the entries of queued records, if possible in one transaction. The function is one of the
/// worker's tasks. Returns the time at which the task runs next.
pub fn drain() -> Result<NextTurn, ServerError> {
    let database = current_database();
    if queue::is_empty_for(database) {
        return Ok(NextTurn::AtInterval);
    }
    let Some(progress) = queue::progress_of(database) else { return Ok(NextTurn::AtInterval) };
    if !CAUGHT_UP.get() {
        let written =
            in_extension_transaction(c"looking for the last failed operation written", position)?;
        let Some(written) = written else { return Ok(NextTurn::AtInterval) };
        queue::pop(database, written);
        quarantine(progress, written);
        CAUGHT_UP.set(true);
    }
    let queued = queue::peek(database, BATCH, BATCH_BYTES);
    // If `queued` is empty, the code above has just removed all records, because an earlier worker
    // had written their entries. Sessions do not wake a worker whose `looks_again` is set, so this
    // task has to run again at once.
    let Some(&(last, _)) = queued.last() else { return Ok(NextTurn::AtOnce) };
    let pause = INTERVALS_END.with(|end| pause_after(end, Instant::now(), queued.len()));
    let bytes: usize = queued.iter().map(|(_, bytes)| bytes.len()).sum();
    let read = read(&queued);
    let result = write_batch(&read, progress);
    // The worker has survived the transaction, even if `result` is an error. Therefore the code
    // clears `progress`, so that no record of the transaction is quarantined.
    progress.set(0, 0);
    match result? {
        Batch::Dropped => return Ok(NextTurn::AtInterval),
        Batch::Written => queue::pop(database, last),
        Batch::OneByOne => {
            for (number, bytes) in &queued {
                let Some(one) = read.iter().find(|one| one.number == *number) else { continue };
                progress.set(*number, 0);
                let result = in_extension_transaction(c"writing a failed operation", || {
                    write_all(std::slice::from_ref(one), None)
                });
                progress.set(0, 0);
                match result {
                    Ok(None) => return Ok(NextTurn::AtInterval),
                    Ok(Some(())) => queue::pop(database, *number),
                    Err(error) if is_passing(&error) => return Err(error),
                    Err(error) => {
                        LogLine::new(bytes, &format!("it cannot be written: {error}"))
                            .iter()
                            .for_each(LogLine::write);
                        queue::drop_logged(database, &[*number]);
                    }
                }
            }
        }
    }
    if queued.len() == BATCH || bytes >= BATCH_BYTES {
        return Ok(NextTurn::AtOnce);
    }
    Ok(NextTurn::After(pause))
}

/// Parses the records, and returns the parsed records. Writes each unreadable record to the
/// server's log, and removes it from the queue. A record can be unreadable if another process has
/// damaged the shared memory.
fn read(queued: &[(u64, Vec<u8>)]) -> Vec<Numbered> {
    let (mut read, mut unreadable) = (Vec::with_capacity(queued.len()), Vec::new());
    for (number, bytes) in queued {
        match serde_json::from_slice(bytes) {
            Ok(record) => read.push(Numbered { number: *number, record }),
            Err(_) => {
                LogLine::new(bytes, "it cannot be read").iter().for_each(LogLine::write);
                unreadable.push(*number);
            }
        }
    }
    queue::drop_logged(current_database(), &unreadable);
    read
}

enum Batch {
    /// The extension was dropped. The worker's main loop notices that the extension is absent, and
    /// ends the worker.
    Dropped,
    /// The transaction has committed.
    Written,
    /// The transaction has failed. The entry of each record must be written in a transaction of its
    /// own.
    OneByOne,
}

/// Writes the entries of all records in one transaction. If one record makes the transaction fail,
/// returns [`Batch::OneByOne`], so that the other records still get their entries.
fn write_batch(records: &[Numbered], progress: &queue::Progress) -> Result<Batch, ServerError> {
    if records.first().is_some_and(|first| is_written_alone(first.number)) {
        return Ok(Batch::OneByOne);
    }
    match in_extension_transaction(c"writing failed operations", || {
        write_all(records, Some(progress))
    }) {
        Ok(None) => Ok(Batch::Dropped),
        Ok(Some(())) => Ok(Batch::Written),
        Err(error) if is_passing(&error) => Err(error),
        Err(_) => Ok(Batch::OneByOne),
    }
}

/// Makes the entries of the records. A record that concerns no watched table gets no entry, and is
/// removed from the queue. If `progress` is given, stores the sequence number of each record in
/// `progress` before the record is processed.
fn write_all(records: &[Numbered], progress: Option<&queue::Progress>) {
    let last = records.last().map_or(0, |record| record.number);
    let mut batch = Gathering::new();
    let mut gather_all = |isolation| {
        let mut unneeded = Vec::new();
        for some in records.chunks(YIELD_EVERY) {
            for one in some {
                progress.iter().for_each(|progress| progress.set(one.number, last));
                if !batch.gather(&one.record, isolation) {
                    unneeded.push(one.number);
                }
            }
            progress.iter().for_each(|progress| progress.set(0, last));
            entries::flush();
            if records.len() > YIELD_EVERY && records.len() < BATCH / 2 {
                // SAFETY: the call only sleeps.
                unsafe { pg_sys::pg_usleep(YIELD_MICROSECONDS) };
            }
        }
        unneeded
    };
    // The first attempt makes the entries of all records in one subtransaction. Errors are rare,
    // and a subtransaction for each record would take more time.
    let unneeded = in_subtransaction(|| gather_all(ErrorIsolation::Together))
        .unwrap_or_else(|_| gather_all(ErrorIsolation::Each));
    // These records leave the queue before the commit. If the worker dies after the commit, the
    // next worker counts all remaining records through `last` as written.
    queue::remove_unneeded(current_database(), &unneeded);
    if last > 0 {
        set_position(last);
    }
}

// ---- the number of the last written record ------------------------------------------------------

fn int8(value: i64) -> DatumWithOid<'static> {
    // SAFETY: INT8OID is the oid of the type bigint, and the value is a bigint.
    unsafe { DatumWithOid::new(value, pg_sys::INT8OID) }
}

/// Returns the sequence number of the last record of this queue whose entry was written in this
/// database. Returns 0 if there is no such record.
fn position() -> u64 {
    let query = "SELECT position FROM lead_audit.queue_position WHERE queue = $1";
    let found = Spi::get_one_with_args::<i64>(query, &[int8(queue::queue_number())]);
    found.ok().flatten().and_then(|position| u64::try_from(position).ok()).unwrap_or(0)
}

fn set_position(last: u64) {
    let command = "WITH others AS (DELETE FROM lead_audit.queue_position WHERE queue <> $1)
        INSERT INTO lead_audit.queue_position (queue, position) VALUES ($1, $2)
        ON CONFLICT (queue) DO UPDATE SET position = excluded.position";
    if let Err(error) =
        Spi::run_with_args(command, &[int8(queue::queue_number()), int8(last as i64)])
    {
        ServerError {
            code: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            message: error.to_string(),
            detail: None,
        }
        .raise(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_single_records_has_no_pauses_and_a_long_series_has() {
        let intervals_end = Cell::new(None);
        let begin = Instant::now();
        let series = |mut now: Instant, end: Instant| {
            let mut transactions = Vec::new();
            while now < end {
                transactions.push(now - begin);
                now += pause_after(&intervals_end, now, 1).max(Duration::from_millis(1));
            }
            transactions
        };
        let first = series(begin, begin + Duration::from_secs(60));
        assert!(first[9] < INTERVAL, "{:?}", first[9]);
        assert!((3000..=3011).contains(&first.len()), "{}", first.len());
        // After a quiet time, the worker may again begin some transactions without pauses.
        let later = begin + Duration::from_secs(61);
        assert_eq!(series(later, later + INTERVAL).len(), 11);
    }

    #[test]
    fn many_records_or_transactions_cause_no_longer_pause_than_permitted() {
        let intervals_end = Cell::new(None);
        let now = Instant::now();
        for records in [0, 1, 2, 11, BATCH, usize::MAX] {
            for _ in 0..1000 {
                assert!(pause_after(&intervals_end, now, records) <= LONGEST_PAUSE);
            }
        }
    }
}
