//! A lock that stands for a task, not for the rows of a table.

use super::current_database;
use pgrx::pg_sys;

/// Locks the relation *as an object*, exclusively, until the transaction ends: whoever does the task that the relation stands
/// for is alone in that. Readers, writers, VACUUM and pg_dump lock the relation as such and never meet this lock; nor can
/// anybody take it from SQL. Returns whether it was got: always, if `wait`.
pub fn lock_task(relation: pg_sys::Oid, wait: bool) -> bool {
    const DEFAULT_LOCKMETHOD: u8 = 1;
    // SAFETY: the tag is that of LockDatabaseObject(); a lock that is not of the session goes with the transaction.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: current_database().to_u32(),
            locktag_field2: pg_sys::RelationRelationId.to_u32(),
            locktag_field3: relation.to_u32(),
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: DEFAULT_LOCKMETHOD,
        };
        let got = pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false, !wait);
        got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}
