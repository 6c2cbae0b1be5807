//! Wrappers for relations (their names, columns, rows, triggers and partitions) and for sequences.
//!
//! A name in the catalog need not be UTF-8. The wrappers return a name as its bytes, as a [`Text`],
//! which percent-encodes invalid bytes, or as a String, in which invalid bytes become U+FFFD.

use super::{RowMemory, Text};
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// An open relation. The lock on the relation is kept until the transaction ends.
pub struct OpenRelation(pg_sys::Relation);

impl OpenRelation {
    /// Opens the relation and waits for the lock. Raises PostgreSQL's error if the relation does
    /// not exist.
    pub fn open(relation: pg_sys::Oid, lock: u32) -> Self {
        // SAFETY: table_open() takes any oid. For an unknown oid, table_open() raises an error. For
        // a known oid, table_open() returns an open relation.
        OpenRelation(unsafe { pg_sys::table_open(relation, lock as pg_sys::LOCKMODE) })
    }

    /// Opens the relation and waits for the lock. Returns `None` if the relation does not exist.
    pub fn try_open(relation: pg_sys::Oid, lock: u32) -> Option<Self> {
        // SAFETY: try_relation_open() takes any oid, and returns null for an unknown oid.
        let open = unsafe { pg_sys::try_relation_open(relation, lock as pg_sys::LOCKMODE) };
        // This code uses then() and not then_some(). then_some() would make an `OpenRelation` even
        // for a null pointer, and dropping it would close a null relation.
        (!open.is_null()).then(|| OpenRelation(open))
    }

    /// Returns the relation, which is valid as long as `self` is alive.
    pub fn as_ptr(&self) -> pg_sys::Relation {
        self.0
    }

    /// Returns the relation's row type, which is valid as long as `self` is alive.
    pub fn tuple_desc(&self) -> pg_sys::TupleDesc {
        // SAFETY: an open relation points to its relcache entry, which has a descriptor.
        unsafe { (*self.0).rd_att }
    }
}

impl Drop for OpenRelation {
    fn drop(&mut self) {
        // After an error, the abort of the (sub)transaction closes the relation, and a relation
        // must be closed only once.
        if !std::thread::panicking() {
            // SAFETY: `open` or `try_open` opened the relation, and only `drop` closes it. NoLock
            // means that the lock is kept.
            unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}

/// Returns the attribute at `index`, counted from 0.
///
/// # Safety
/// `descriptor` must be a row type with more than `index` attributes, and must outlive the result.
pub unsafe fn attribute<'a>(
    descriptor: pg_sys::TupleDesc,
    index: usize,
) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: the attribute exists (see # Safety). The array of attributes is part of the
    // descriptor.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        &*(*descriptor).attrs.as_ptr().add(index)
    }
    // SAFETY: the attribute exists (see # Safety). Since PostgreSQL 18, the array of attributes
    // follows an array of compact attributes, which has the same length.
    #[cfg(feature = "pg18")]
    unsafe {
        let short_forms = (*descriptor).compact_attrs.as_ptr().add((*descriptor).natts as usize);
        &*short_forms.cast::<pg_sys::FormData_pg_attribute>().add(index)
    }
}

/// Returns the relation's name.
///
/// # Safety
/// `relation` must be an open relation.
pub unsafe fn relation_name(relation: pg_sys::Relation) -> Text {
    // SAFETY: an open relation has a copy of its row of pg_class. A name in a catalog is a C string
    // within 64 bytes.
    unsafe {
        Text::from_server(CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()).to_bytes())
    }
}

/// Returns the name of the attribute at `index`, counted from 0, as bytes.
///
/// # Safety
/// `descriptor` must be a row type with more than `index` attributes, and must outlive the result.
pub unsafe fn attribute_name<'a>(descriptor: pg_sys::TupleDesc, index: usize) -> &'a [u8] {
    // SAFETY: the attribute exists (see # Safety). A name in a catalog is a C string within 64
    // bytes.
    unsafe { CStr::from_ptr(attribute(descriptor, index).attname.data.as_ptr()).to_bytes() }
}

/// Returns the schema's name, or an empty text if the schema does not exist.
pub fn schema_name(schema: pg_sys::Oid) -> Text {
    // SAFETY: the look-up by oid returns null or a C string in the current memory context.
    unsafe {
        let name = pg_sys::get_namespace_name(schema);
        if name.is_null() {
            Text::new()
        } else {
            Text::from_server(CStr::from_ptr(name).to_bytes())
        }
    }
}

mod raw {
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        // The function nextval_internal() is declared in commands/sequence.h. pgrx has no binding
        // for this function.
        pub fn nextval_internal(relid: pg_sys::Oid, check_permissions: bool) -> i64;
        // The function find_all_inheritors() is declared in catalog/pg_inherits.h. pgrx has no
        // binding for this function.
        pub fn find_all_inheritors(
            parent: pg_sys::Oid,
            lock: pg_sys::LOCKMODE,
            parent_counts: *mut *mut pg_sys::List,
        ) -> *mut pg_sys::List;
        // The function get_partition_ancestors() is declared in catalog/partition.h. pgrx has no
        // binding for this function.
        pub fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
    }
}

/// Calls `each` for every row of the table that is visible in a new snapshot. The arguments of
/// `each` are the relation that stores the row, and the row's tuple. For a partitioned table, the
/// rows are those of its partitions. The rows of inheritance children are not included.
///
/// Memory that `each` allocates in the current memory context is freed after each row. The caller
/// must hold a lock on the table.
pub fn for_each_row(table: pg_sys::Oid, mut each: impl FnMut(pg_sys::Relation, pg_sys::HeapTuple)) {
    for leaf in leaves(table) {
        let relation = OpenRelation::open(leaf, pg_sys::AccessShareLock);
        let fork = pg_sys::ForkNumber::MAIN_FORKNUM;
        // SAFETY: the relation is open, and `leaves` returns only relations that have storage.
        if unsafe { pg_sys::RelationGetNumberOfBlocksInFork(relation.as_ptr(), fork) } == 0 {
            continue;
        }
        // SAFETY: the table is open, and the scan ends before the table is closed. A tuple is valid
        // until the next tuple is fetched. After an error, the abort of the (sub)transaction ends
        // the scan, and releases the slot and the snapshot.
        unsafe {
            let mut memory = RowMemory::new(c"lead_audit row");
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let slot = pg_sys::table_slot_create(relation.as_ptr(), std::ptr::null_mut());
            let scan =
                pg_sys::table_beginscan(relation.as_ptr(), snapshot, 0, std::ptr::null_mut());
            while pg_sys::table_scan_getnextslot(
                scan,
                pg_sys::ScanDirection::ForwardScanDirection,
                slot,
            ) {
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

/// Returns the tables that store the rows of `table`. For a partitioned table, these are all
/// partitions that are ordinary tables, and neither partitioned nor foreign tables. For any other
/// table, the result is only the table itself.
pub fn leaves(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: the look-ups are by oid, and an unknown oid has no relkind. pgrx's guard turns an
    // error's longjmp into unwinding.
    unsafe {
        let kind = |relation| pg_sys::get_rel_relkind(relation) as u8;
        if kind(table) != pg_sys::RELKIND_PARTITIONED_TABLE {
            return vec![table];
        }
        let all = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            raw::find_all_inheritors(
                table,
                pg_sys::AccessShareLock as pg_sys::LOCKMODE,
                std::ptr::null_mut(),
            )
        });
        PgList::<pg_sys::Oid>::from_pg(all)
            .iter_oid()
            .filter(|&leaf| kind(leaf) == pg_sys::RELKIND_RELATION)
            .collect()
    }
}

/// Returns the partitioned tables to which a partition belongs. The first element is the parent of
/// the partition, and the last element is the root of the partition tree. For a table that is not a
/// partition, the list is empty.
pub fn partition_ancestors(table: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: the look-ups are by oid. pgrx's guard turns an error's longjmp into unwinding.
    unsafe {
        if !pg_sys::get_rel_relispartition(table) {
            return Vec::new();
        }
        let all = pg_sys::ffi::pg_guard_ffi_boundary(|| raw::get_partition_ancestors(table));
        PgList::<pg_sys::Oid>::from_pg(all).iter_oid().collect()
    }
}

/// The description of a watched relation. The library reads the description from the relation's
/// audit triggers.
pub struct WatchTriggers {
    /// The relation's schema.
    pub schema: String,
    /// The relation's name.
    pub name: String,
    /// The watch id of the watched table.
    pub watch_id: [u8; 16],
    /// The name of the watched table's soft-delete column, or an empty string.
    pub soft_delete_column: String,
}

/// Reads the arguments of the relation's enabled audit triggers. Returns `None` if the relation
/// does not exist or is not watched.
pub fn watch_of_triggers(relation: pg_sys::Oid) -> Option<WatchTriggers> {
    // SAFETY: a transaction is in progress, and the relcache entry stays open until
    // RelationClose().
    let (triggers, namespace, name) = unsafe {
        let open = pg_sys::RelationIdGetRelation(relation);
        if open.is_null() {
            return None;
        }
        let triggers = candidates(open);
        let class = (*open).rd_rel;
        let namespace = (*class).relnamespace;
        let name = owned((*class).relname.data.as_ptr());
        pg_sys::RelationClose(open);
        (triggers, namespace, name)
    };
    // SAFETY: the look-ups accept any oid, and return null or an invalid oid for an unknown oid.
    unsafe {
        let own = pg_sys::get_namespace_oid(c"lead_audit".as_ptr(), true);
        if own == pg_sys::InvalidOid {
            return None;
        }
        let mut found: Option<Candidate> = None;
        for trigger in triggers {
            if (trigger.is_row || found.is_none())
                && pg_sys::get_func_namespace(trigger.function) == own
            {
                found = Some(trigger);
            }
        }
        let Candidate { watch_id, soft_delete_column, .. } = found?;
        let schema = pg_sys::get_namespace_name(namespace);
        let schema = if schema.is_null() { String::new() } else { owned(schema) };
        Some(WatchTriggers { schema, name, watch_id, soft_delete_column })
    }
}

/// An enabled trigger whose first argument is a UUID. If the trigger's function is in the schema
/// lead_audit, the trigger is an audit trigger.
struct Candidate {
    function: pg_sys::Oid,
    is_row: bool,
    watch_id: [u8; 16],
    soft_delete_column: String,
}

/// Returns the enabled triggers of a relation whose first argument is a UUID. If a look-up in the
/// catalog processes an invalidation of the relation, PostgreSQL frees `trigdesc`, even while the
/// relation is open. Therefore this function makes no look-up, and returns no pointer into
/// `trigdesc`.
///
/// # Safety
/// `open` must be an open relation.
unsafe fn candidates(open: pg_sys::Relation) -> Vec<Candidate> {
    let mut found = Vec::new();
    // SAFETY: the relation is open (see # Safety), and nothing in this block processes
    // invalidations. A trigger has `tgnargs` arguments, which are C strings.
    unsafe {
        let description = (*open).trigdesc;
        if description.is_null() {
            return found;
        }
        for index in 0..(*description).numtriggers as usize {
            let trigger = &*(*description).triggers.add(index);
            if !matches!(trigger.tgenabled as u8, b'O' | b'A') || trigger.tgnargs < 1 {
                continue;
            }
            let Some(watch_id) = super::text::parse_uuid(&owned(*trigger.tgargs)) else {
                continue;
            };
            let is_row = trigger.tgtype as u32 & pg_sys::TRIGGER_TYPE_ROW != 0;
            let soft_delete_column = if is_row && trigger.tgnargs > 1 {
                owned(*trigger.tgargs.add(1))
            } else {
                String::new()
            };
            found.push(Candidate {
                function: trigger.tgfoid,
                is_row,
                watch_id,
                soft_delete_column,
            });
        }
    }
    found
}

/// Returns a copy of a C string. Invalid bytes become U+FFFD.
///
/// # Safety
/// `text` must be a C string.
unsafe fn owned(text: *const core::ffi::c_char) -> String {
    // SAFETY: the text is a C string (see # Safety).
    unsafe { CStr::from_ptr(text).to_string_lossy().into_owned() }
}

/// Returns the sequence's next value. Checks no privilege, because the user of the session needs no
/// privilege on the library's sequences.
pub fn next_value(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: nextval_internal raises an error if the oid is not that of a sequence. pgrx's guard
    // turns the error's longjmp into unwinding, so that the error does not jump over Rust frames.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| raw::nextval_internal(sequence, false)) }
}
