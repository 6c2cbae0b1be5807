//! Looks up rows and names in the system catalogs.

use pgrx::pg_sys;

/// Returns the value of a column in the row that a system cache has for a key. Returns `None` if
/// the cache has no row for the key.
///
/// # Safety
/// The cache must have only one key column, and `key` must be of the type of this key column.
/// `column` must be the number of a NOT NULL column, whose type is passed by value.
pub unsafe fn catalog_column(
    cache: pg_sys::SysCacheIdentifier::Type,
    key: impl Into<pg_sys::Datum>,
    column: u32,
) -> Option<pg_sys::Datum> {
    let cache = cache as i32;
    // SAFETY: the look-up runs within a transaction, and `key` is of the type of the key column
    // (see # Safety). The tuple is released after the column is read, and the value does not point
    // into the tuple.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, key.into());
        if tuple.is_null() {
            return None;
        }
        let mut is_null = false;
        let value = pg_sys::SysCacheGetAttr(cache, tuple, column as i16, &mut is_null);
        pg_sys::ReleaseSysCache(tuple);
        Some(value)
    }
}

/// Looks up the relation with this name, and locks the relation. If `lock` is NoLock, takes no
/// lock. Returns InvalidOid if no relation has this name. Raises an error if the current role may
/// not use the schema that `name` contains.
///
/// # Safety
/// `name` must be a RangeVar that the parser has made.
pub unsafe fn relation_named(name: *mut pg_sys::RangeVar, lock: u32) -> pg_sys::Oid {
    let flags = pg_sys::RVROption::RVR_MISSING_OK;
    let lock = lock as pg_sys::LOCKMODE;
    // SAFETY: the parser made the name (see # Safety), and the look-up runs within a transaction.
    unsafe { pg_sys::RangeVarGetRelidExtended(name, lock, flags, None, std::ptr::null_mut()) }
}
