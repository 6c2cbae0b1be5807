//! Reading all rows of a table below SQL: no rights, no row-level security and no rules stand in between.

use super::{OpenRelation, RowMemory};
use pgrx::{PgList, pg_sys};

mod raw {
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        // catalog/pg_inherits.h, which pgrx does not bind.
        pub fn find_all_inheritors(
            parent: pg_sys::Oid,
            lock: pg_sys::LOCKMODE,
            parent_counts: *mut *mut pg_sys::List,
        ) -> *mut pg_sys::List;
        // catalog/partition.h
        pub fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
    }
}

/// Calls `each` with every row of the table, as the newest snapshot has them; of a partitioned table, with those of its
/// partitions and the partition that each is in. Rows of child tables by inheritance are not the table's own.
///
/// What `each` allocates is given back after each row. The caller holds a lock on the table.
pub fn for_each_row(table: pg_sys::Oid, mut each: impl FnMut(pg_sys::Relation, pg_sys::HeapTuple)) {
    for leaf in leaves(table) {
        let relation = OpenRelation::open(leaf, pg_sys::AccessShareLock);
        // SAFETY: a scan of an open table, ended before the table is closed; the tuple stays until the next is fetched.
        // After an error the abort of the (sub)transaction gives back what is left open.
        unsafe {
            let mut memory = RowMemory::new(c"lead_audit row");
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let slot = pg_sys::table_slot_create(relation.as_ptr(), std::ptr::null_mut());
            let scan = pg_sys::table_beginscan(relation.as_ptr(), snapshot, 0, std::ptr::null_mut());
            while pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
                pgrx::check_for_interrupts!();
                memory.for_row(|| {
                    let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, std::ptr::null_mut());
                    each(relation.as_ptr(), tuple);
                });
            }
            pg_sys::table_endscan(scan);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::UnregisterSnapshot(snapshot);
        }
    }
}

/// The tables that rows of `table` are in: itself, or its partitions that are tables of this database.
pub fn leaves(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: look-ups by oid; an oid of no relation has no kind. The guard turns an error's longjmp into unwinding.
    unsafe {
        let kind = |relation| pg_sys::get_rel_relkind(relation) as u8;
        if kind(table) != pg_sys::RELKIND_PARTITIONED_TABLE {
            return vec![table];
        }
        let all = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            raw::find_all_inheritors(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE, std::ptr::null_mut())
        });
        PgList::<pg_sys::Oid>::from_pg(all).iter_oid().filter(|&leaf| kind(leaf) == pg_sys::RELKIND_RELATION).collect()
    }
}

/// The partitioned tables that a table is a partition of, the nearest first; none for a table that is no partition.
pub fn partition_ancestors(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: look-ups by oid. The guard turns an error's longjmp into unwinding.
    unsafe {
        if !pg_sys::get_rel_relispartition(table) {
            return Vec::new();
        }
        let all = pg_sys::ffi::pg_guard_ffi_boundary(|| raw::get_partition_ancestors(table));
        PgList::<pg_sys::Oid>::from_pg(all).iter_oid().collect()
    }
}
