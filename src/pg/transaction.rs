//! Wrappers for transactions: subtransactions that catch errors, new snapshots, and a lock for a
//! task that only one session may do at a time.

use super::{ServerError, current_database};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use std::panic::AssertUnwindSafe;

/// The way in which a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionEnd {
    /// The transaction was committed.
    Committed,
    /// The transaction was prepared for a two-phase commit. Another session can commit the prepared
    /// transaction, or roll it back.
    Prepared,
    /// The transaction was rolled back, by ROLLBACK or by an error.
    RolledBack,
}

/// Returns the id of the innermost subtransaction. The transaction itself counts as a
/// subtransaction. The id of a subtransaction is higher than the id of its parent.
pub fn current_subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: the call only reads a variable. The library runs only within transactions.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// Returns the nesting depth of triggers, which is the result of pg_trigger_depth(). The nesting
/// depth is 0 outside of triggers.
pub fn trigger_depth() -> i32 {
    // SAFETY: the function has no arguments and reads a variable of the session.
    unsafe { pgrx::direct_function_call(pg_sys::pg_trigger_depth, &[]).unwrap_or(0) }
}

/// Runs `work` in a subtransaction. If `work` raises an error, rolls back the subtransaction and
/// returns the error.
///
/// A session can continue safely after an error only if it aborts a subtransaction around the
/// failed code. The abort releases the locks, pins and memory of the failed code. The function does
/// not return the error of a cancelled query, a shutdown or a serialization failure, but raises
/// this error after the rollback.
pub fn in_subtransaction<R>(work: impl FnOnce() -> R) -> Result<R, ServerError> {
    // SAFETY: the code does what PL/pgSQL does for a block with EXCEPTION. When the function
    // returns, even after an error, the memory context and the resource owner are again those of
    // the caller.
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

/// A new snapshot that is active while this value is alive.
pub struct NewestSnapshot(pg_sys::Snapshot);

impl NewestSnapshot {
    /// Takes the snapshot and makes it active.
    pub fn take() -> Self {
        // SAFETY: the active snapshot is a copy that lives until the copy is popped. Only `drop`
        // pops the active snapshot.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            NewestSnapshot(pg_sys::GetActiveSnapshot())
        }
    }

    /// Returns the snapshot, which is valid while `self` is alive.
    pub fn as_ptr(&self) -> pg_sys::Snapshot {
        self.0
    }

    /// Returns the ids of the transactions that are in progress in the snapshot, in ascending
    /// order. The list includes prepared transactions, and the session's own transaction if it has
    /// an id. Returns `None` if the list would have too many ids.
    ///
    /// A snapshot contains the ids of running transactions below its xmax (`named`), and treats all
    /// ids from xmax on as running (`unnamed`). An id from xmax on can belong to a transaction or
    /// to a subtransaction. Ids of transactions and ids of subtransactions cannot be distinguished,
    /// so the list includes all ids from xmax on.
    pub fn in_progress(&self) -> Option<Vec<u64>> {
        const UNNAMED: u64 = 1 << 20;
        // SAFETY: the array `xip` of the snapshot has `xcnt` ids.
        unsafe {
            let next = pg_sys::ReadNextFullTransactionId().value;
            // An id of the snapshot differs from the next id by less than 2³¹, so `widen` can
            // compute the epoch of the id.
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
        // After an error, the abort of the (sub)transaction pops the snapshot.
        if !std::thread::panicking() {
            // SAFETY: `take` pushed the snapshot, and all later snapshots have been popped.
            unsafe { pg_sys::PopActiveSnapshot() }
        }
    }
}

/// Takes an exclusive object lock on the relation, and not a relation lock, until the transaction
/// ends. While a session holds this lock, no other session may do the task that the lock protects.
/// Readers, writers, VACUUM and pg_dump take relation locks, which do not conflict with object
/// locks. No SQL command takes this object lock. Returns whether this session holds the lock after
/// the call. If `wait` is false and another session holds the lock, returns false at once.
pub fn lock_task(relation: pg_sys::Oid, wait: bool) -> bool {
    const DEFAULT_LOCKMETHOD: u8 = 1;
    // SAFETY: the tag has the form that LockDatabaseObject() uses. The end of the transaction
    // releases the lock.
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
