//! Transactions: subtransactions in which an error can be caught, the newest snapshot, and a lock
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
    /// PREPARE TRANSACTION. Another process commits it or rolls it back.
    Prepared,
    /// ROLLBACK, or an error.
    RolledBack,
}

/// The innermost subtransaction (the transaction itself counts as one). Ids grow, a child's is
/// above its parent's.
pub fn current_subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: reads a variable of the transaction system; the library runs only within
    // transactions.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// How deep triggers are nested at the moment, as pg_trigger_depth() says it: 0 outside of any.
pub fn trigger_depth() -> i32 {
    // SAFETY: the function takes nothing and reads a variable of the session.
    unsafe { pgrx::direct_function_call(pg_sys::pg_trigger_depth, &[]).unwrap_or(0) }
}

/// Runs `work` in a subtransaction of its own. If it raises an error, all that it did is undone and
/// the error returned.
///
/// Only a subtransaction makes it safe to go on after an error: its abort gives back locks, pins
/// and memory that the failing code held. Cancels, shutdowns and failures to serialize are not
/// caught.
pub fn in_subtransaction<R>(work: impl FnOnce() -> R) -> Result<R, ServerError> {
    // SAFETY: this is the sequence that PL/pgSQL uses for a block with EXCEPTION. Memory context
    // and resource owner are those of the caller again when this returns, on either way.
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

/// A snapshot that is the active one as long as this is alive.
pub struct NewestSnapshot(pg_sys::Snapshot);

impl NewestSnapshot {
    /// Takes it.
    pub fn take() -> Self {
        // SAFETY: the active snapshot is a copy that stays until it is popped; nothing else pops
        // below our level.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            NewestSnapshot(pg_sys::GetActiveSnapshot())
        }
    }

    /// The snapshot, valid as long as this is alive.
    pub fn as_ptr(&self) -> pg_sys::Snapshot {
        self.0
    }

    /// The transactions that are in progress in it, in ascending order: prepared ones too, and the
    /// own one if it has an id. `None`, if they are too many to list.
    ///
    /// A snapshot names those below its xmax and takes all others for running without naming them.
    /// Of these, ids of subtransactions cannot be told from those of transactions; they are listed
    /// as well.
    pub fn in_progress(&self) -> Option<Vec<u64>> {
        const UNNAMED: u64 = 1 << 20;
        // SAFETY: `xip` has `xcnt` ids. All are within 2³¹ of the next id to be given out.
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
        // While an error is on its way, the (sub)transaction's abort pops it.
        if !std::thread::panicking() {
            // SAFETY: pushed by us, and whatever was pushed later has been popped.
            unsafe { pg_sys::PopActiveSnapshot() }
        }
    }
}

/// Locks the relation *as an object*, exclusively, until the transaction ends: whoever does the
/// task that the relation stands for is alone in that. Readers, writers, VACUUM and pg_dump lock
/// the relation as such and never meet this lock; nor can anybody take it from SQL. Returns whether
/// it was got: always, if `wait`.
pub fn lock_task(relation: pg_sys::Oid, wait: bool) -> bool {
    const DEFAULT_LOCKMETHOD: u8 = 1;
    // SAFETY: the tag is that of LockDatabaseObject(); a lock that is not of the session goes with
    // the transaction.
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
