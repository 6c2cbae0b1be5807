//! Decides whether this session records failures.

use crate::failures::queue;
use crate::pg::current_database;
use crate::settings;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    /// The last answer, with the region's generation at that time. The region is read again only
    /// after the generation has changed.
    static KNOWN: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    /// The generation in which the catalog was last read.
    static LOOKED: Cell<u32> = const { Cell::new(0) };
    static OFF: Cell<bool> = const { Cell::new(false) };
}

/// Turns recording off in the library's own processes.
pub fn switch_off() {
    OFF.set(true);
}

/// Whether this database has the extension and recording is on.
pub fn is_active() -> bool {
    if OFF.get() || !settings::enabled() || !queue::is_there() {
        return false;
    }
    let generation = queue::generation().wrapping_add(1);
    let (known, present) = KNOWN.get();
    if known == generation {
        return present;
    }
    // SAFETY: reads a variable of the process. Parallel workers write nothing.
    let is_parallel_worker = unsafe { pg_sys::ParallelWorkerNumber >= 0 };
    let database = current_database();
    let present =
        database != pg_sys::InvalidOid && !is_parallel_worker && queue::slot_of(database).is_some();
    KNOWN.set((generation, present));
    present
}

/// Like [`is_active`], but reads the catalog if necessary: after the server's start a session may
/// begin before the launcher has looked into its database.
pub fn is_active_or_found() -> bool {
    if is_active() {
        return true;
    }
    if OFF.get() || !settings::enabled() || !queue::is_there() || LOOKED.get() == KNOWN.get().0 {
        return false;
    }
    let looked = LOOKED.replace(KNOWN.get().0);
    // SAFETY: reads variables of the process, and the catalog in a transaction.
    unsafe {
        if current_database() == pg_sys::InvalidOid
            || pg_sys::ParallelWorkerNumber >= 0
            || !pg_sys::IsTransactionState()
            || pg_sys::RecoveryInProgress()
        {
            return false;
        }
        // Does not wait for a lock on the catalog, which may be held for long. Most databases do
        // not have the extension, and the launcher will look.
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        if !pg_sys::ConditionalLockRelationOid(pg_sys::ExtensionRelationId, lock) {
            LOOKED.set(looked);
            return false;
        }
        let extension = pg_sys::get_extension_oid(c"lead_audit".as_ptr(), true);
        pg_sys::UnlockRelationOid(pg_sys::ExtensionRelationId, lock);
        if extension == pg_sys::InvalidOid {
            return false;
        }
        queue::found(current_database());
    }
    queue::wake_launcher(false);
    is_active()
}
