//! Ids that had no visible entry when they were looked at, and may still get one.
//!
//! An entry's transaction has its id before the entry has its own. So when a snapshot is taken
//! after the highest id was read from the sequence, an id up to there that it does not show belongs
//! to a transaction that was rolled back, or is in progress *in that snapshot*: never to a later
//! one. The gap is kept together with these transactions, is looked at again only when one of them
//! has ended, and is closed when all of them have.

use super::stored_tree::{TreeRow, to_bigint};
use crate::pg::{NewestSnapshot, ServerError, SpiPlan};
use ledger::IdRanges;
use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};

/// Reads the text that PostgreSQL gives for an int8multirange.
pub fn parse_ids(text: &str) -> Result<IdRanges, ServerError> {
    IdRanges::parse(text).map_err(|_| ServerError {
        code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        message: "ids in schema lead_audit are not what sealing has written".to_owned(),
        detail: Some(format!("{}…", text.chars().take(200).collect::<String>())),
    })
}

/// The highest id that the sequence has given out. That ids grow with the order in which they are
/// taken, whoever takes them, is what sealing rests on.
///
/// Not by SELECT last_value: that looks at the sequence's page without a lock, and while a process
/// logs its taking of an id the page has, for a moment, a value that is up to 32 ahead.
pub fn last_id_given_out() -> Result<i64, ServerError> {
    let plan = SpiPlan::prepare(
        "SELECT coalesce(pg_catalog.pg_sequence_last_value(q.seqrelid), 0), \
         q.seqincrement = 1 AND q.seqcache = 1 AND NOT q.seqcycle \
         FROM pg_catalog.pg_sequence q WHERE q.seqrelid = 'lead_audit.entry_id_seq'::pg_catalog.regclass",
        &[],
    );
    // A sequence is the same in every snapshot.
    let snapshot = NewestSnapshot::take();
    let rows = plan.read(snapshot.as_ptr(), &[]);
    match (rows.get(0, 0), rows.get(0, 1)) {
        // The very last id is one that no range can end with.
        (Some(last_id), Some(true)) => Ok(i64::min(last_id, i64::MAX - 1)),
        _ => Err(ServerError {
            code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: "the sequence lead_audit.entry_id_seq does not give out ids one by one".to_owned(),
            detail: Some(
                "Entries can be sealed only if their ids are taken in ascending order, whatever the session.".to_owned(),
            ),
        }),
    }
}

/// Ranges in one row at most, so that a row stays small.
const RANGES: usize = 4096;

/// One row of `lead_audit.open_gap`.
pub struct IdGap {
    first_id: i64,
    /// The ids.
    pub ids: IdRanges,
    /// The transactions that they may belong to.
    in_progress: Vec<u64>,
}

/// Which gaps to look at now (`in_progress` is in ascending order), by their keys, in ascending
/// order of ids: those that wait for a transaction that is not in progress any more, or, after a
/// move to another cluster, all.
pub fn due(snapshot: pg_sys::Snapshot, tree: &TreeRow, in_progress: &[u64]) -> Vec<i64> {
    let rows = if tree.is_from_elsewhere() {
        SpiPlan::prepare("SELECT first_id FROM lead_audit.open_gap ORDER BY first_id", &[])
            .read(snapshot, &[])
    } else {
        let ended = tree.waits_for.iter().filter(|xid| in_progress.binary_search(xid).is_err());
        let ended: Vec<i64> = ended.copied().map(to_bigint).collect();
        if ended.is_empty() {
            return Vec::new();
        }
        let plan = SpiPlan::prepare(
            "SELECT first_id FROM lead_audit.open_gap WHERE in_progress && $1 ORDER BY first_id",
            &[pg_sys::INT8ARRAYOID],
        );
        plan.read(snapshot, &[ended.into_datum()])
    };
    (0..rows.len()).filter_map(|row| rows.get(row, 0)).collect()
}

impl IdGap {
    /// Reads one.
    pub fn load(snapshot: pg_sys::Snapshot, first_id: i64) -> Result<Option<Self>, ServerError> {
        let plan = SpiPlan::prepare(
            "SELECT ids::text, in_progress FROM lead_audit.open_gap WHERE first_id = $1",
            &[pg_sys::INT8OID],
        );
        let rows = plan.read(snapshot, &[first_id.into_datum()]);
        let (Some(ids), Some(in_progress)) = (rows.get::<String>(0, 0), rows.get::<Vec<i64>>(0, 1))
        else {
            return Ok(None);
        };
        let in_progress = in_progress.into_iter().map(|xid| xid as u64).collect();
        Ok(Some(IdGap { first_id, ids: parse_ids(&ids)?, in_progress }))
    }

    /// It was looked at, and `missing` is what is still not there: the row is narrowed to what may
    /// still come. Returns whether it stays.
    pub fn narrow(
        self,
        snapshot: pg_sys::Snapshot,
        missing: &IdRanges,
        in_progress: &[u64],
        from_elsewhere: bool,
    ) -> bool {
        let still = self.in_progress.iter().filter(|xid| in_progress.binary_search(xid).is_ok());
        let still: Vec<i64> = still.copied().map(to_bigint).collect();
        if missing.is_empty() || still.is_empty() || from_elsewhere {
            let plan = SpiPlan::prepare(
                "DELETE FROM lead_audit.open_gap WHERE first_id = $1",
                &[pg_sys::INT8OID],
            );
            plan.write(snapshot, &[self.first_id.into_datum()]);
            return false;
        }
        let plan = SpiPlan::prepare(
            "UPDATE lead_audit.open_gap SET ids = $2::pg_catalog.int8multirange, in_progress = $3 WHERE first_id = $1",
            &[pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::INT8ARRAYOID],
        );
        plan.write(
            snapshot,
            &[self.first_id.into_datum(), missing.to_string().into_datum(), still.into_datum()],
        );
        true
    }
}

/// New gaps, of which the transactions in progress may own any id. Returns the number of rows.
pub fn open(snapshot: pg_sys::Snapshot, missing: &IdRanges, in_progress: &[u64]) -> i64 {
    if in_progress.is_empty() {
        return 0;
    }
    let plan = SpiPlan::prepare(
        "INSERT INTO lead_audit.open_gap (first_id, seen_at, ids, in_progress) \
         VALUES ($1, pg_catalog.clock_timestamp(), $2::pg_catalog.int8multirange, $3)",
        &[pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::INT8ARRAYOID],
    );
    let in_progress: Vec<i64> = in_progress.iter().copied().map(to_bigint).collect();
    let mut rows = 0;
    for chunk in missing.ranges().chunks(RANGES) {
        let mut ids = IdRanges::default();
        chunk.iter().for_each(|range| ids.push_range(*range));
        let first_id = chunk.first().map(|range| range.first);
        plan.write(
            snapshot,
            &[
                first_id.into_datum(),
                ids.to_string().into_datum(),
                in_progress.clone().into_datum(),
            ],
        );
        rows += 1;
    }
    rows
}

/// Whether there are as many gaps as there should be. Within a restore there may not be, yet.
pub fn are_complete(snapshot: pg_sys::Snapshot, tree: &TreeRow) -> bool {
    let plan = SpiPlan::prepare("SELECT pg_catalog.count(*) FROM lead_audit.open_gap", &[]);
    plan.read(snapshot, &[]).get::<i64>(0, 0) == Some(tree.open_gaps)
}
