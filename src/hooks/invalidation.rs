//! Contains the invalidation callbacks, which PostgreSQL calls when a catalog has changed. The
//! callbacks mark the library's caches as stale. The library fills a stale cache again when it
//! needs the cache. An invalidation callback can run during any access to a catalog, so it must not
//! read a catalog itself.

use crate::{actor, capture, entries, failures, watch};
use pgrx::pg_sys;
use pgrx::pg_sys::SysCacheIdentifier as Cache;

pub fn install(preloading: bool) {
    let none = pg_sys::Datum::from(0);
    let both = pg_sys::Datum::from(usize::from(preloading));
    // SAFETY: `install` is called once, while the library is being loaded. The callbacks exist for
    // the life of the process.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), both);
        pg_sys::CacheRegisterSyscacheCallback(
            Cache::NAMESPACEOID as i32,
            Some(schema_changed),
            both,
        );
        pg_sys::CacheRegisterSyscacheCallback(Cache::SEQRELID as i32, Some(sequence_changed), none);
        pg_sys::CacheRegisterSyscacheCallback(Cache::AUTHOID as i32, Some(role_changed), none);
        pg_sys::CacheRegisterSyscacheCallback(
            Cache::CASTSOURCETARGET as i32,
            Some(cast_changed),
            none,
        );
        pg_sys::CacheRegisterSyscacheCallback(Cache::PROCOID as i32, Some(cast_changed), none);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relation_changed(preloaded: pg_sys::Datum, relation: pg_sys::Oid) {
    let relation = (relation != pg_sys::InvalidOid).then_some(relation);
    capture::relation_changed(relation);
    capture::casts_changed();
    entries::relation_changed(relation);
    watch::relation_changed();
    if preloaded.value() != 0 {
        failures::relation_changed(relation);
    }
}

/// Marks all layouts of relations as stale, because a layout contains the name of the relation's
/// schema. When a schema is renamed, PostgreSQL does not report the relations in the schema as
/// changed.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn schema_changed(preloaded: pg_sys::Datum, _cache: i32, _hash: u32) {
    capture::relation_changed(None);
    if preloaded.value() != 0 {
        failures::schema_changed();
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn sequence_changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    entries::sequence_changed();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn role_changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    actor::role_changed();
    capture::casts_changed();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn cast_changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    capture::casts_changed();
}
