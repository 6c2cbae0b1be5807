//! Rows of `lead_audit.checkpoint`.

use super::id_ranges::IdRanges;
use super::tree_row::objects_are_current;
use crate::pg::{ServerError, SpiPlan};
use ledger::merkle::Hash;
use pgrx::{IntoDatum, PgSqlErrorCode, Uuid, pg_sys};

/// A checkpoint as it is stored, not necessarily as it was written.
#[derive(Debug, Clone)]
pub struct StoredCheckpoint {
    /// Leaves in the tree.
    pub size: u64,
    /// The root.
    pub root: Hash,
    /// The note, signed or not.
    pub note: String,
    /// The highest id among those that it added.
    pub last_id: i64,
}

const COLUMNS: &str = "SELECT c.tree_size, c.root, c.note, pg_catalog.upper(c.entry_ids) - 1 FROM lead_audit.checkpoint c";

impl StoredCheckpoint {
    /// The one with the largest tree.
    pub fn newest(snapshot: pg_sys::Snapshot) -> Result<Option<Self>, ServerError> {
        Self::first(snapshot, &format!("{COLUMNS} ORDER BY c.tree_size DESC LIMIT 1"), None)
    }

    /// The one of this size.
    pub fn of_size(snapshot: pg_sys::Snapshot, size: i64) -> Result<Option<Self>, ServerError> {
        Self::first(snapshot, &format!("{COLUMNS} WHERE c.tree_size = $1"), Some(size))
    }

    fn first(snapshot: pg_sys::Snapshot, sql: &str, argument: Option<i64>) -> Result<Option<Self>, ServerError> {
        let types = [pg_sys::INT8OID];
        let plan = SpiPlan::prepare(sql, if argument.is_some() { &types } else { &[] });
        let arguments: Vec<_> = argument.map(IntoDatum::into_datum).into_iter().collect();
        let rows = plan.read(snapshot, &arguments);
        if rows.len() == 0 {
            return Ok(None);
        }
        let checkpoint = || {
            Some(StoredCheckpoint {
                size: u64::try_from(rows.get::<i64>(0, 0)?).ok()?,
                root: rows.get::<Vec<u8>>(0, 1)?.try_into().ok()?,
                note: rows.get(0, 2)?,
                last_id: rows.get(0, 3)?,
            })
        };
        checkpoint().map(Some).ok_or_else(|| ServerError {
            code: PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            message: "a row of lead_audit.checkpoint is not what sealing has written".to_owned(),
            detail: None,
        })
    }

    /// Writes a new one, which adds these ids to the tree of `before` leaves.
    pub fn store(snapshot: pg_sys::Snapshot, log_id: Uuid, before: u64, ids: &IdRanges, size: u64, root: &Hash, note: &str) {
        let (column, value) = if objects_are_current() { (", log_id", ", $5") } else { ("", "") };
        let insert = SpiPlan::prepare(
            &format!(
                "INSERT INTO lead_audit.checkpoint (tree_size, sealed_at, root, entry_ids, note{column}) \
                 VALUES ($1, pg_catalog.clock_timestamp(), $2, $3::pg_catalog.int8multirange, $4{value})"
            ),
            &[pg_sys::INT8OID, pg_sys::BYTEAOID, pg_sys::TEXTOID, pg_sys::TEXTOID, pg_sys::UUIDOID],
        );
        let ids_text = ids.to_multirange();
        insert.write(
            snapshot,
            &[
                (size as i64).into_datum(),
                root.as_slice().into_datum(),
                ids_text.into_datum(),
                note.into_datum(),
                log_id.into_datum(),
            ],
        );
        let array = pg_sys::INT8ARRAYOID;
        let ranges = SpiPlan::prepare(
            "INSERT INTO lead_audit.leaf_range (first_id, last_id, first_leaf) SELECT * FROM ROWS FROM \
             (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) r",
            &[array, array, array],
        );
        let mut leaf = before as i64;
        let (mut first_ids, mut last_ids, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
        for range in ids.as_slice() {
            first_ids.push(range.first);
            last_ids.push(range.last);
            leaves.push(leaf);
            leaf += range.len() as i64;
        }
        ranges.write(snapshot, &[first_ids.into_datum(), last_ids.into_datum(), leaves.into_datum()]);
    }
}
