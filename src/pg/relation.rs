//! An open relation that closes itself.

use pgrx::pg_sys;

/// A relation that is open and locked. Its lock stays until the transaction ends, as after any statement.
pub struct OpenRelation(pg_sys::Relation);

impl OpenRelation {
    /// Opens the relation, waiting for the lock. Raises Postgres's error if it is gone.
    pub fn open(relation: pg_sys::Oid, lock: u32) -> Self {
        // SAFETY: table_open takes any oid and raises an error for one that is none; it returns an open relation.
        OpenRelation(unsafe { pg_sys::table_open(relation, lock as pg_sys::LOCKMODE) })
    }

    /// The same; `None` if it is gone.
    pub fn try_open(relation: pg_sys::Oid, lock: u32) -> Option<Self> {
        // SAFETY: takes any oid; null for one that is none.
        let open = unsafe { pg_sys::try_relation_open(relation, lock as pg_sys::LOCKMODE) };
        // Not then_some(): it would make the value first, whose drop closes a null relation.
        (!open.is_null()).then(|| OpenRelation(open))
    }

    /// The relation, valid as long as this is alive.
    pub fn as_ptr(&self) -> pg_sys::Relation {
        self.0
    }

    /// Its row type, valid as long as this is alive.
    pub fn tuple_desc(&self) -> pg_sys::TupleDesc {
        // SAFETY: an open relation points to its relcache entry, which has a descriptor.
        unsafe { (*self.0).rd_att }
    }
}

impl Drop for OpenRelation {
    fn drop(&mut self) {
        // While an error is on its way, the (sub)transaction's abort closes the relation; doing it twice would be wrong.
        if !std::thread::panicking() {
            // SAFETY: opened by us and not closed since. NoLock keeps the lock.
            unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}

/// The attribute at `index`, counted from 0.
///
/// # Safety
/// `descriptor` must be a row type with more attributes than `index`, and outlive the result.
pub unsafe fn attribute<'a>(descriptor: pg_sys::TupleDesc, index: usize) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: as the caller promises; the attributes follow the descriptor.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        &*(*descriptor).attrs.as_ptr().add(index)
    }
    // SAFETY: the same; since 18 as many short forms of them come first.
    #[cfg(feature = "pg18")]
    unsafe {
        let short_forms = (*descriptor).compact_attrs.as_ptr().add((*descriptor).natts as usize);
        &*short_forms.cast::<pg_sys::FormData_pg_attribute>().add(index)
    }
}
