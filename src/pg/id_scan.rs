//! Reads a table in the order of its ids with an index scan, and not with an SQL query. Therefore
//! the rows come in the order of ids whatever the planner would choose, and no privilege, policy or
//! rule applies.

use super::{OpenRelation, ServerError, relation_name};
use pgrx::{PgSqlErrorCode, pg_sys};

/// A scan of a table by the table's primary key. The primary key must consist of the first column
/// of the table, and this column must be a bigint.
pub struct IdScan {
    table: OpenRelation,
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
}

impl IdScan {
    /// Opens the scan. Call [`range`](Self::range) before [`next`](Self::next).
    ///
    /// # Safety
    /// The snapshot must be active or registered, and must outlive the scan.
    pub unsafe fn open(
        table: pg_sys::Oid,
        snapshot: pg_sys::Snapshot,
    ) -> Result<Self, ServerError> {
        let table = OpenRelation::open(table, pg_sys::AccessShareLock);
        // SAFETY: the table and the index are open until `drop` closes them, and stay locked until
        // the transaction ends.
        unsafe {
            #[cfg(not(feature = "pg18"))]
            let index = pg_sys::RelationGetPrimaryKeyIndex(table.as_ptr());
            // Since PostgreSQL 18, RelationGetPrimaryKeyIndex() has a second argument, which says
            // whether the primary key may be deferrable.
            #[cfg(feature = "pg18")]
            let index = pg_sys::RelationGetPrimaryKeyIndex(table.as_ptr(), false);
            if index == pg_sys::InvalidOid {
                return Err(no_key(&table));
            }
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let key = (*(*index).rd_index).indkey.values.as_slice(1)[0];
            if (*index).rd_index.read().indnkeyatts != 1
                || (*(*index).rd_opcintype) != pg_sys::INT8OID
                || key != 1
            {
                pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
                return Err(no_key(&table));
            }
            let slot = pg_sys::table_slot_create(table.as_ptr(), std::ptr::null_mut());
            // Since PostgreSQL 18, index_beginscan() has a further argument, which points to a
            // counter of index searches for EXPLAIN. The pointer to the counter may be null.
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(table.as_ptr(), index, snapshot, 2, 0);
            #[cfg(feature = "pg18")]
            let scan = pg_sys::index_beginscan(
                table.as_ptr(),
                index,
                snapshot,
                std::ptr::null_mut(),
                2,
                0,
            );
            Ok(IdScan { table, index, scan, slot })
        }
    }

    /// Restarts the scan. The scan then returns the rows with the ids from `first` to `last`, both
    /// included.
    pub fn range(&mut self, first: i64, last: i64) {
        // SAFETY: the scan was started with two keys, and index_rescan copies the new keys.
        unsafe {
            let mut keys: [pg_sys::ScanKeyData; 2] = std::mem::zeroed();
            let at_least = (pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_INT8GE, first);
            let at_most = (pg_sys::BTLessEqualStrategyNumber, pg_sys::F_INT8LE, last);
            for (key, (strategy, function, bound)) in keys.iter_mut().zip([at_least, at_most]) {
                let function = pg_sys::Oid::from(function);
                pg_sys::ScanKeyInit(
                    key,
                    1,
                    strategy as pg_sys::StrategyNumber,
                    function,
                    pg_sys::Datum::from(bound),
                );
            }
            pg_sys::index_rescan(self.scan, keys.as_mut_ptr(), 2, std::ptr::null_mut(), 0);
        }
    }

    /// Moves to the next row and returns its id. Returns `None` after the last row. Checks for
    /// interrupts.
    pub fn next(&mut self) -> Option<i64> {
        pgrx::check_for_interrupts!();
        // SAFETY: the scan and the slot are open. The first column of a row is its id, which is
        // never NULL.
        unsafe {
            if !pg_sys::index_getnext_slot(
                self.scan,
                pg_sys::ScanDirection::ForwardScanDirection,
                self.slot,
            ) {
                return None;
            }
            pg_sys::slot_getsomeattrs_int(self.slot, 1);
            Some((*(*self.slot).tts_values).value() as i64)
        }
    }

    /// Returns the table's row type.
    pub fn tuple_desc(&self) -> pg_sys::TupleDesc {
        self.table.tuple_desc()
    }

    /// Returns the values of the first `count` columns of the present row. For each of the returned
    /// columns, also returns whether the value is NULL. The values are valid until the next call of
    /// [`next`](Self::next).
    pub fn columns(&self, count: usize) -> (&[pg_sys::Datum], &[bool]) {
        // SAFETY: the slot holds the present row. The code reads no more columns than the row type
        // and the slot have.
        unsafe {
            let count = count.min((*self.tuple_desc()).natts as usize);
            if usize::try_from((*self.slot).tts_nvalid).unwrap_or(0) < count {
                pg_sys::slot_getsomeattrs_int(self.slot, count as i32);
            }
            (
                std::slice::from_raw_parts((*self.slot).tts_values, count),
                std::slice::from_raw_parts((*self.slot).tts_isnull, count),
            )
        }
    }
}

impl Drop for IdScan {
    fn drop(&mut self) {
        // After an error, the abort of the (sub)transaction releases the scan, the slot and the
        // index.
        if !std::thread::panicking() {
            // SAFETY: `open` opened the scan, the slot and the index, and only `drop` closes them.
            // The transaction keeps the locks on the table and on the index.
            unsafe {
                pg_sys::index_endscan(self.scan);
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::index_close(self.index, pg_sys::NoLock as pg_sys::LOCKMODE);
            }
        }
    }
}

fn no_key(table: &OpenRelation) -> ServerError {
    // SAFETY: `table` is an open relation.
    let name = unsafe { relation_name(table.as_ptr()) };
    ServerError {
        code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message: format!("lead_audit.{} has no primary key on its first column", name.as_str()),
        detail: Some("The library reads it in the order of that key.".to_owned()),
    }
}
