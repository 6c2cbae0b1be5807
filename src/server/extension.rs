//! What the catalog says of extensions.

use super::OpenRelation;
use pgrx::pg_sys;
use std::ffi::CStr;

/// The version of the extension's SQL objects in this database; `None` if it is not there.
pub fn extension_version(name: &CStr) -> Option<String> {
    let catalog = OpenRelation::open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock);
    // SAFETY: an index scan of an open system catalog, which ends before it is closed. The key's name lives longer than the scan; the
    // tuple stays until the scan ends, and its value is copied before. After an error the abort of the transaction cleans up.
    unsafe {
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_extension_extname as pg_sys::AttrNumber,
            pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
            pg_sys::Oid::from(pg_sys::F_NAMEEQ),
            pg_sys::Datum::from(name.as_ptr()),
        );
        let index = pg_sys::Oid::from(pg_sys::ExtensionNameIndexId);
        let scan = pg_sys::systable_beginscan(catalog.as_ptr(), index, true, std::ptr::null_mut(), 1, &mut key);
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
