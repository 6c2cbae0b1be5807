//! Looks up the extension in the catalog.

use super::{OpenRelation, catalog_column};
use pgrx::pg_sys;
use std::ffi::CStr;

const NAME: &CStr = c"lead_audit";

/// Prevents other sessions from dropping lead_audit until the transaction ends. Returns whether the
/// extension exists.
pub fn hold_extension() -> bool {
    // SAFETY: the look-ups are by name, and the end of the transaction releases the lock.
    // LockDatabaseObject() processes invalidation messages after it has taken the lock. The second
    // look-up notices if the extension was dropped while this session waited for the lock.
    unsafe {
        let extension = pg_sys::get_extension_oid(NAME.as_ptr(), true);
        if extension == pg_sys::InvalidOid {
            return false;
        }
        pg_sys::LockDatabaseObject(
            pg_sys::ExtensionRelationId,
            extension,
            0,
            pg_sys::AccessShareLock as pg_sys::LOCKMODE,
        );
        pg_sys::get_extension_oid(NAME.as_ptr(), true) == extension
    }
}

/// Returns the version of the extension's SQL objects in this database. Returns `None` if the
/// database does not have the extension.
pub fn extension_version() -> Option<String> {
    let catalog = OpenRelation::open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock);
    // SAFETY: the catalog is open, and the index scan ends before the catalog is closed. The name
    // in the scan key is a constant. The tuple is valid until the scan ends, and the code copies
    // the value before the scan ends. After an error, the abort of the transaction ends the scan.
    unsafe {
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_extension_extname as pg_sys::AttrNumber,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(pg_sys::F_NAMEEQ),
            pg_sys::Datum::from(NAME.as_ptr()),
        );
        let index = pg_sys::Oid::from(pg_sys::ExtensionNameIndexId);
        let scan = pg_sys::systable_beginscan(
            catalog.as_ptr(),
            index,
            true,
            std::ptr::null_mut(),
            1,
            &mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let mut version = None;
        if !tuple.is_null() {
            let mut is_null = true;
            let column = pg_sys::Anum_pg_extension_extversion as i32;
            let value = pg_sys::heap_getattr(tuple, column, catalog.tuple_desc(), &mut is_null);
            version = <String as pgrx::FromDatum>::from_datum(value, is_null);
        }
        pg_sys::systable_endscan(scan);
        version
    }
}

/// Returns the owner of the schema lead_audit. Returns `None` if the schema does not exist.
pub fn extension_owner() -> Option<pg_sys::Oid> {
    let column = pg_sys::Anum_pg_namespace_nspowner;
    let cache = pg_sys::SysCacheIdentifier::NAMESPACENAME;
    // SAFETY: the key is a C string, which the cache accepts as a name, and the column is an oid.
    let owner = unsafe { catalog_column(cache, pg_sys::Datum::from(NAME.as_ptr()), column) };
    owner.map(|owner| pg_sys::Oid::from(owner.value() as u32))
}
