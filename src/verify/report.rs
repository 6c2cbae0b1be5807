//! Implements `lead_audit.verify()` and `lead_audit.verify_entry()`.

use super::entries::{self, Wanted};
use super::faults::{Faults, Row};
use super::leaves::Leaves;
use super::tree;
use crate::pg::{ServerError, with_spi};
use crate::version;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::name;
use pgrx::{pg_extern, pg_sys};

/// `lead_audit.verify(bigint, bigint, timestamptz, timestamptz)`: returns the faults of the entries
/// in a range of ids and times. Without arguments, returns the faults of the whole log.
#[pg_extern(sql = false)]
fn verify(
    from_id: Option<i64>,
    to_id: Option<i64>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: Option<TimestampWithTimeZone>,
) -> TableIterator<'static, (name!(id, Option<i64>), name!(fault, String), name!(detail, String))> {
    let microseconds = |time: TimestampWithTimeZone| i64::from(time);
    let wanted = Wanted {
        from_id: from_id.unwrap_or(Wanted::ALL.from_id),
        to_id: to_id.unwrap_or(Wanted::ALL.to_id),
        from_time: from_time.map_or(Wanted::ALL.from_time, microseconds),
        to_time: to_time.map_or(Wanted::ALL.to_time, microseconds),
    };
    let is_whole = from_id.is_none() && to_id.is_none() && from_time.is_none() && to_time.is_none();
    TableIterator::new(faults(&wanted, is_whole).0)
}

/// `lead_audit.verify_entry(bigint)`: returns whether the entry exists and has no fault.
#[pg_extern(sql = false)]
fn verify_entry(id: Option<i64>) -> bool {
    let Some(id) = id else { return false };
    let (faults, entries) = faults(&Wanted { from_id: id, to_id: id, ..Wanted::ALL }, false);
    entries == 1 && faults.is_empty()
}

/// Returns the faults of the entries that `wanted` selects, and the number of entries in the id
/// range of `wanted`. If `is_whole` is true, also returns the faults of the tree.
fn faults(wanted: &Wanted, is_whole: bool) -> (Vec<Row>, u64) {
    version::require();
    let checked = with_spi(|| -> Result<(Faults, u64), ServerError> {
        let mut faults = Faults::default();
        // SAFETY: a statement that calls a function has an active snapshot, which stays active
        // until the function returns.
        unsafe {
            let snapshot = pg_sys::GetActiveSnapshot();
            let leaves = Leaves::open(snapshot, wanted.from_id, wanted.to_id)?;
            let checked = entries::check(snapshot, wanted, leaves, &mut faults)?;
            if is_whole {
                tree::check(snapshot, &checked.key_changes, &mut faults)?;
            }
            Ok((faults, checked.entries))
        }
    });
    match checked {
        Ok((faults, entries)) => (faults.into_rows(), entries),
        Err(error) => error.raise(None),
    }
}
