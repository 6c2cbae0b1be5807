//! Decides whether this session records failed statements.

use crate::failures::queue;
use crate::pg::current_database;
use crate::settings;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    /// The number is the value of the queue's counter `generation` at the last call of `is_active`,
    /// plus 1. The flag is the result of this call. `is_active` reads the queue's list of databases
    /// only if the counter has changed since the last call.
    static KNOWN: Cell<(u32, bool)> = const { Cell::new((0, false)) };
    /// The value of the queue's counter `generation` when `is_active_or_found` last looked for the
    /// extension in the catalog, plus 1.
    static LOOKED: Cell<u32> = const { Cell::new(0) };
    static OFF: Cell<bool> = const { Cell::new(false) };
}

/// Turns off the recording of failed statements in this process. Only the launcher and the workers
/// call the function.
pub fn switch_off() {
    OFF.set(true);
}

/// Returns whether this session records failed statements. A session records failed statements if
/// the library is preloaded, `lead_audit.enabled` is on, and the session's database is known to
/// have the extension.
pub fn is_active() -> bool {
    if OFF.get() || !settings::enabled() || !queue::is_there() {
        return false;
    }
    let generation = queue::generation().wrapping_add(1);
    let (known, present) = KNOWN.get();
    if known == generation {
        return present;
    }
    // A parallel worker writes to no table, so it records no failed statements.
    // SAFETY: the code only reads a variable of this process.
    let is_parallel_worker = unsafe { pg_sys::ParallelWorkerNumber >= 0 };
    let database = current_database();
    let present =
        database != pg_sys::InvalidOid && !is_parallel_worker && queue::slot_of(database).is_some();
    KNOWN.set((generation, present));
    present
}

/// Returns the result of [`is_active`]. If the session's database is not known to have the
/// extension, first looks for the extension in the catalog. After the start of the server, a
/// session can begin before a worker has looked for the extension in the session's database.
pub fn is_active_or_found() -> bool {
    if is_active() {
        return true;
    }
    if OFF.get() || !settings::enabled() || !queue::is_there() || LOOKED.get() == KNOWN.get().0 {
        return false;
    }
    let looked = LOOKED.replace(KNOWN.get().0);
    // SAFETY: the code reads variables of this process, and reads the catalog within a transaction.
    unsafe {
        if current_database() == pg_sys::InvalidOid
            || pg_sys::ParallelWorkerNumber >= 0
            || !pg_sys::IsTransactionState()
            || pg_sys::RecoveryInProgress()
        {
            return false;
        }
        // The code does not wait for the lock on pg_extension, because another session may hold a
        // conflicting lock for a long time. If this session does not get the lock at once, a worker
        // finds the extension later.
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
