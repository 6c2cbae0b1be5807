//! Look-ups in the system catalogs.

use pgrx::pg_sys;

/// A column of the row that a system cache has for a key. `None` if there is no such row.
///
/// # Safety
/// The key must be of the type of the cache's only key. The column must be NOT NULL, of a type that
/// is passed by value.
pub unsafe fn catalog_column(
    cache: pg_sys::SysCacheIdentifier::Type,
    key: impl Into<pg_sys::Datum>,
    column: u32,
) -> Option<pg_sys::Datum> {
    let cache = cache as i32;
    // SAFETY: a look-up within a transaction, with a key of the cache's type (see # Safety). The
    // tuple is released after the column is read, and the column does not point into it.
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

/// The relation of a name that the parser made, locked unless `lock` is NoLock. Returns an invalid
/// oid for a name without a relation, and raises an error for a schema that the current role may
/// not use.
///
/// # Safety
/// `name` must be made by the parser.
pub unsafe fn relation_named(name: *mut pg_sys::RangeVar, lock: u32) -> pg_sys::Oid {
    let flags = pg_sys::RVROption::RVR_MISSING_OK;
    let lock = lock as pg_sys::LOCKMODE;
    // SAFETY: the parser made the name (see # Safety). A look-up within a transaction.
    unsafe { pg_sys::RangeVarGetRelidExtended(name, lock, flags, None, std::ptr::null_mut()) }
}
