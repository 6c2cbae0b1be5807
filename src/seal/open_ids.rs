//! Stores the open ids. A round of sealing found no entry with an open id, but a transaction in
//! progress may still commit the entry.
//!
//! A transaction gets its transaction id before it takes the id of an entry from the sequence.
//! Sealing reads the highest id from the sequence, and then takes a snapshot. The transaction that
//! took an id without a visible entry has rolled back, or is in progress *in the snapshot*. A
//! transaction that starts after the snapshot cannot have taken an id up to the highest id. An open
//! gap is a row of `lead_audit.open_gap`: ids without an entry, and the transactions in progress
//! that may have taken the ids. Sealing examines an open gap again when one of its transactions has
//! ended. Sealing deletes an open gap when all of its transactions have ended.

use super::stored_tree::{TreeRow, to_bigint};
use crate::pg::{NewestSnapshot, ServerError, SpiPlan};
use ledger::IdRanges;
use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};

/// Parses PostgreSQL's text form of an int8multirange.
pub fn parse_ids(text: &str) -> Result<IdRanges, ServerError> {
    IdRanges::parse(text).map_err(|_| ServerError {
        code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        message: "ids in schema lead_audit are not what sealing has written".to_owned(),
        detail: Some(format!("{}…", text.chars().take(200).collect::<String>())),
    })
}

/// Returns the highest id that the sequence lead_audit.entry_id_seq has given out. Fails if the
/// sequence caches ids, cycles, or has an increment other than 1. Sealing requires that ids grow in
/// the order in which sessions take them.
///
/// Does not use SELECT last_value, which reads the sequence's page without a lock. While another
/// process writes WAL for the sequence, the sequence's page shows a value that is up to 32 too
/// high.
pub fn last_id_given_out() -> Result<i64, ServerError> {
    let plan = SpiPlan::prepare(
        "SELECT coalesce(pg_catalog.pg_sequence_last_value(q.seqrelid), 0), q.seqincrement = 1 \
         AND q.seqcache = 1 AND NOT q.seqcycle FROM pg_catalog.pg_sequence q \
         WHERE q.seqrelid = 'lead_audit.entry_id_seq'::pg_catalog.regclass",
        &[],
    );
    // The query can use any snapshot, because the value of a sequence does not depend on the
    // snapshot.
    let snapshot = NewestSnapshot::take();
    let rows = plan.read(snapshot.as_ptr(), &[]);
    match (rows.get(0, 0), rows.get(0, 1)) {
        // The largest bigint is never returned, because an int8multirange cannot contain it.
        (Some(last_id), Some(true)) => Ok(i64::min(last_id, i64::MAX - 1)),
        _ => Err(ServerError {
            code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: "the sequence lead_audit.entry_id_seq does not give out ids one by one"
                .to_owned(),
            detail: Some(
                "Entries can be sealed only if their ids are taken in ascending order, whatever \
                 the session."
                    .to_owned(),
            ),
        }),
    }
}

/// Maximum number of ranges in one row of `lead_audit.open_gap`, so that a row stays small.
const RANGES: usize = 4096;

/// An open gap, which is one row of `lead_audit.open_gap`: open ids, and the transactions that may
/// have taken the ids.
pub struct OpenIds {
    first_id: i64,
    /// The open ids.
    pub ids: IdRanges,
    /// The transactions that may have taken the ids.
    in_progress: Vec<u64>,
}

/// Returns the keys of the open gaps that this round must examine, in ascending order. An open gap
/// must be examined when one of its transactions has ended. If the tree comes from another cluster
/// or database, all open gaps must be examined. `in_progress` must be in ascending order.
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

impl OpenIds {
    /// Reads the open gap with the key `first_id`.
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
        Ok(Some(OpenIds { first_id, ids: parse_ids(&ids)?, in_progress }))
    }

    /// Reduces the open gap to `missing`, the ids that still have no entry. Deletes the open gap if
    /// none of the missing ids can still get an entry. Returns whether the open gap remains.
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
            "UPDATE lead_audit.open_gap SET ids = $2::pg_catalog.int8multirange, in_progress = $3 \
             WHERE first_id = $1",
            &[pg_sys::INT8OID, pg_sys::TEXTOID, pg_sys::INT8ARRAYOID],
        );
        plan.write(
            snapshot,
            &[self.first_id.into_datum(), missing.to_string().into_datum(), still.into_datum()],
        );
        true
    }
}

/// Stores new open gaps for the ids `missing`. Each transaction in `in_progress` may have taken any
/// id in `missing`. Returns the number of new open gaps.
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

/// Returns whether lead_audit.open_gap has as many rows as lead_audit.tree states. During a
/// restore, rows of lead_audit.open_gap may still be missing.
pub fn are_complete(snapshot: pg_sys::Snapshot, tree: &TreeRow) -> bool {
    let plan = SpiPlan::prepare("SELECT pg_catalog.count(*) FROM lead_audit.open_gap", &[]);
    plan.read(snapshot, &[]).get::<i64>(0, 0) == Some(tree.open_gaps)
}
