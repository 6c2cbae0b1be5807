//! `lead_audit.verify()` and `lead_audit.verify_entry()`: entries are read in order of their ids through a cursor, so that
//! memory does not grow with the trail and a cancel is heard between any two.

use super::stored_entry::{COLUMN_LIST, StoredEntry, StoredFault};
use crate::journal::check_columns;
use crate::server::{RowMemory, ServerError};
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::iter::TableIterator;
use pgrx::prelude::name;
use pgrx::{PgBuiltInOids, PgSqlErrorCode, Spi, pg_extern, pg_sys};
use std::time::{Duration, Instant};

/// Rows per fetch.
const FETCH: i64 = 500;

/// How often a long verification says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// One fault: the entry's id, its kind, what is wrong.
type Row = (i64, String, String);

/// `lead_audit.verify(bigint, bigint, timestamptz, timestamptz)`.
#[pg_extern(sql = false)]
fn verify(
    from_id: Option<i64>,
    to_id: Option<i64>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: Option<TimestampWithTimeZone>,
) -> TableIterator<'static, (name!(id, i64), name!(fault, String), name!(detail, String))> {
    let query = format!(
        "SELECT {COLUMN_LIST} FROM lead_audit.entry e WHERE ($1 IS NULL OR e.id >= $1) AND ($2 IS NULL OR e.id <= $2) \
         AND ($3 IS NULL OR e.occurred_at >= $3) AND ($4 IS NULL OR e.occurred_at <= $4) ORDER BY e.id"
    );
    let time = PgBuiltInOids::TIMESTAMPTZOID.value();
    // SAFETY: each argument says its own type.
    let arguments = unsafe {
        [
            DatumWithOid::new(from_id, pg_sys::INT8OID),
            DatumWithOid::new(to_id, pg_sys::INT8OID),
            DatumWithOid::new(from_time, time),
            DatumWithOid::new(to_time, time),
        ]
    };
    let mut faults: Vec<Row> = Vec::new();
    let mut progress = Progress::new();
    check_entries(&query, &arguments, |id, result| {
        if let Err(fault) = result {
            faults.push((id.unwrap_or(0), fault.kind().to_owned(), fault.detail()));
        }
        progress.one_more(id, faults.len());
    });
    TableIterator::new(faults)
}

/// `lead_audit.verify_entry(bigint)`.
#[pg_extern(sql = false)]
fn verify_entry(id: Option<i64>) -> bool {
    let query = format!("SELECT {COLUMN_LIST} FROM lead_audit.entry e WHERE e.id = $1");
    // SAFETY: the argument is a bigint and says so.
    let arguments = unsafe { [DatumWithOid::new(id, pg_sys::INT8OID)] };
    let (mut found, mut intact) = (false, true);
    check_entries(&query, &arguments, |_, result| {
        found = true;
        intact &= result.is_ok();
    });
    found && intact
}

/// Runs the query, whose columns are those of `COLUMN_LIST`, and checks each row.
fn check_entries(query: &str, arguments: &[DatumWithOid], mut each: impl FnMut(Option<i64>, Result<(), StoredFault>)) {
    let mut scratch = Vec::new();
    let result = Spi::connect(|client| -> pgrx::spi::Result<()> {
        let mut cursor = client.try_open_cursor(query, arguments)?;
        loop {
            let rows = cursor.fetch(FETCH)?;
            if rows.is_empty() {
                return Ok(());
            }
            // SAFETY: the fetch left its rows in SPI_tuptable, where they stay until the next one.
            unsafe { check_fetched(&mut scratch, &mut each) };
        }
    });
    if let Err(error) = result {
        ServerError {
            code: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            message: format!("could not read the entries: {error}"),
            detail: None,
        }
        .raise(None);
    }
}

/// # Safety
/// SPI_tuptable must hold rows with the columns of `COLUMN_LIST`.
unsafe fn check_fetched(scratch: &mut Vec<u8>, each: &mut impl FnMut(Option<i64>, Result<(), StoredFault>)) {
    // SAFETY: the table has numvals tuples of its row type. What is detoasted is in a context that is emptied after each row.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        if let Err(error) = check_columns((*table).tupdesc) {
            error.raise(Some("lead_audit.entry was altered: its entries cannot be read as they were written.".to_owned()));
        }
        let columns = (*(*table).tupdesc).natts as usize;
        let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); columns], vec![true; columns]);
        let mut memory = RowMemory::new(c"lead_audit verified entry");
        for i in 0..(*table).numvals as usize {
            pgrx::check_for_interrupts!();
            memory.for_row(|| {
                pg_sys::heap_deform_tuple(*(*table).vals.add(i), (*table).tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr());
                let entry = StoredEntry { values: &values, nulls: &nulls };
                each(entry.id(), entry.verify(scratch));
            });
        }
    }
}

/// Says from time to time how far a verification is.
struct Progress {
    entries: u64,
    last_said: Instant,
}

impl Progress {
    fn new() -> Self {
        Progress { entries: 0, last_said: Instant::now() }
    }

    fn one_more(&mut self, id: Option<i64>, faults: usize) {
        self.entries += 1;
        if self.entries.is_multiple_of(1024) && self.last_said.elapsed() >= PROGRESS {
            self.last_said = Instant::now();
            let id = id.unwrap_or(0);
            pgrx::notice!("verified {} entries, up to id {id}; faults so far: {faults}", self.entries);
        }
    }
}
