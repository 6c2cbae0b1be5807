//! Implements the SQL functions that count queued, written and dropped records of failed
//! statements.

use crate::failures::queue;
use crate::pg::current_database;
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern, pg_sys};
use std::ffi::CStr;

/// Implements `lead_audit.queue()`, which returns the numbers of records for each database.
#[pg_extern(sql = false)]
#[expect(clippy::type_complexity, reason = "pgrx wants the columns spelt out here")]
fn queue() -> TableIterator<
    'static,
    (
        name!(database, pg_sys::Oid),
        name!(database_name, Option<String>),
        name!(queued, i64),
        name!(written, i64),
        name!(dropped, i64),
        name!(waiting, i64),
        name!(worker_pid, Option<i32>),
    ),
> {
    let mut found = Vec::new();
    queue::each_database(|database| {
        if database.presence == queue::Presence::Present {
            found.push((
                database.oid(),
                database.counts,
                database.waiting_bytes(),
                database.worker,
            ));
        }
    });
    TableIterator::new(found.into_iter().map(|(oid, counts, waiting, worker)| {
        (
            oid,
            database_name(oid),
            number(counts.queued),
            number(counts.written),
            number(counts.dropped),
            number(waiting),
            (worker != 0).then_some(worker),
        )
    }))
}

/// Implements `lead_audit_internal.own_queue()`, which returns the numbers of records for the
/// current database.
#[pg_extern(sql = false)]
fn own_queue()
-> TableIterator<'static, (name!(queued, i64), name!(written, i64), name!(dropped, i64))> {
    let counts = queue::counts(current_database()).unwrap_or_default();
    TableIterator::once((number(counts.queued), number(counts.written), number(counts.dropped)))
}

/// Implements `lead_audit_internal.quarantined()`, which returns the number of quarantined records
/// of the current database.
#[pg_extern(sql = false)]
fn quarantined() -> i64 {
    number(queue::counts(current_database()).unwrap_or_default().quarantined)
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn database_name(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: get_database_name() returns null or a C string in the current memory context.
    unsafe {
        let name = pg_sys::get_database_name(oid);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}
