//! Wrappers for transactions: subtransactions that catch errors, the newest snapshot, and a lock
//! for a task.

use super::{ServerError, current_database};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use std::panic::AssertUnwindSafe;

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionEnd {
    /// COMMIT.
    Committed,
    /// PREPARE TRANSACTION. Another session commits it or rolls it back.
    Prepared,
    /// ROLLBACK, or an error.
    RolledBack,
}

/// The innermost subtransaction; the transaction itself counts as a subtransaction. A child's id is
/// higher than its parent's.
pub fn current_subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: reads a variable of the transaction system. The library runs only within
    // transactions.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// The nesting depth of triggers, as pg_trigger_depth() returns it: 0 outside of any trigger.
pub fn trigger_depth() -> i32 {
    // SAFETY: the function has no arguments and reads a variable of the session.
    unsafe { pgrx::direct_function_call(pg_sys::pg_trigger_depth, &[]).unwrap_or(0) }
}

/// Runs `work` in a subtransaction of its own. If `work` raises an error, rolls back the
/// subtransaction and returns the error.
///
/// A session can continue safely after an error only if a subtransaction was aborted: the abort
/// releases the locks, pins and memory of the failing code. Cancels, shutdowns and serialization
/// failures are not caught.
pub fn in_subtransaction<R>(work: impl FnOnce() -> R) -> Result<R, ServerError> {
    // SAFETY: this is what PL/pgSQL does for a block with EXCEPTION. On both paths, memory context
    // and resource owner are the caller's again when this returns.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = context;
        let result = pgrx::PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
            .catch_others(|caught| Err::<R, Box<CaughtError>>(Box::new(caught)))
            .catch_rust_panic(|caught| Err(Box::new(caught)))
            .execute();
        pg_sys::CurrentMemoryContext = context;
        let result = match result {
            Ok(value) => {
                pg_sys::ReleaseCurrentSubTransaction();
                Ok(value)
            }
            Err(caught) => {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
                Err(caught)
            }
        };
        pg_sys::CurrentMemoryContext = context;
        pg_sys::CurrentResourceOwner = owner;
        result.map_err(|caught| ServerError::from_caught(*caught))
    }
}

/// A snapshot that is active while this value is alive.
pub struct NewestSnapshot(pg_sys::Snapshot);

impl NewestSnapshot {
    /// Takes the snapshot and makes it active.
    pub fn take() -> Self {
        // SAFETY: the active snapshot is a copy that lives until it is popped. No other code pops
        // below this level.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            NewestSnapshot(pg_sys::GetActiveSnapshot())
        }
    }

    /// The snapshot, valid while `self` is alive.
    pub fn as_ptr(&self) -> pg_sys::Snapshot {
        self.0
    }

    /// The transactions in progress in the snapshot, in ascending order. Includes prepared
    /// transactions, and the own transaction if it has an id. `None` if there are too many to list.
    ///
    /// A snapshot lists the running transactions below its xmax and treats all later ones as
    /// running. Later ids can belong to transactions or subtransactions, which cannot be
    /// distinguished, so all of them are listed.
    pub fn in_progress(&self) -> Option<Vec<u64>> {
        const UNNAMED: u64 = 1 << 20;
        // SAFETY: `xip` has `xcnt` ids. All are within 2³¹ of the next id.
        unsafe {
            let next = pg_sys::ReadNextFullTransactionId().value;
            let widen = |xid: pg_sys::TransactionId| {
                let (xid, epoch) = (xid.into_inner(), next >> 32);
                let epoch = if xid > next as u32 { epoch.saturating_sub(1) } else { epoch };
                epoch << 32 | u64::from(xid)
            };
            let unnamed = widen((*self.0).xmax)..next;
            if unnamed.end.saturating_sub(unnamed.start) > UNNAMED {
                return None;
            }
            let is_own = |xid: u64| {
                pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from_inner(
                    xid as u32,
                ))
            };
            let named = (0..(*self.0).xcnt as usize).map(|i| widen(*(*self.0).xip.add(i)));
            let mut all: Vec<u64> = named.chain(unnamed.filter(|&xid| !is_own(xid))).collect();
            all.extend(Some(pg_sys::GetTopFullTransactionIdIfAny().value).filter(|&own| own != 0));
            all.sort_unstable();
            Some(all)
        }
    }
}

impl Drop for NewestSnapshot {
    fn drop(&mut self) {
        // During an error the abort of the (sub)transaction pops it.
        if !std::thread::panicking() {
            // SAFETY: `take` pushed it, and all later snapshots have been popped.
            unsafe { pg_sys::PopActiveSnapshot() }
        }
    }
}

/// Locks the relation *as an object*, exclusively, until the transaction ends. The lock stands for
/// a task that only one session may do at a time. Readers, writers, VACUUM and pg_dump take
/// relation locks, which never conflict with it, and no SQL command takes it. Returns whether the
/// lock was taken. With `wait` it always is.
pub fn lock_task(relation: pg_sys::Oid, wait: bool) -> bool {
    const DEFAULT_LOCKMETHOD: u8 = 1;
    // SAFETY: the tag is that of LockDatabaseObject(). The end of the transaction releases the
    // lock.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: current_database().to_u32(),
            locktag_field2: pg_sys::RelationRelationId.to_u32(),
            locktag_field3: relation.to_u32(),
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: DEFAULT_LOCKMETHOD,
        };
        let got =
            pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false, !wait);
        got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}
