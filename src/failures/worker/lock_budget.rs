//! Limits the time that the worker waits for locks on watched tables and on their indexes. Another
//! session can hold a conflicting lock for hours, for example during ALTER TABLE. Without a limit,
//! all other records, and sealing, would have to wait for the session that holds the lock. If the
//! worker cannot lock a watched table in time, the worker writes the entry without the rejected
//! row.

use crate::pg::OpenRelation;
use pgrx::{PgList, pg_sys};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// The maximum total time that the worker waits for locks in one transaction.
const LONGEST: Duration = Duration::from_millis(500);

/// The pause between two attempts to get a lock.
const STEP_MICROSECONDS: core::ffi::c_long = 5_000;

/// The lock budget of one transaction.
pub struct LockBudget {
    /// The time at which the lock budget ends, or `None` before the first wait.
    until: Option<Instant>,
    /// The tables that the worker does not try to lock again before the transaction ends.
    given_up: HashSet<u32>,
}

impl LockBudget {
    /// Returns a full lock budget. The time of the budget starts at the worker's first wait for a
    /// lock.
    pub fn new() -> Self {
        LockBudget { until: None, given_up: HashSet::new() }
    }

    /// Opens a table and locks its indexes, so that later code opens the indexes without waiting.
    /// Returns `None` if the table does not exist, or if another session holds a conflicting lock
    /// for too long.
    pub fn open(&mut self, relation: u32) -> Option<OpenRelation> {
        if self.given_up.contains(&relation) {
            return None;
        }
        let oid = pg_sys::Oid::from(relation);
        let open = if self.lock(oid) {
            OpenRelation::try_open(oid, pg_sys::AccessShareLock)?
        } else {
            return self.refuse(relation);
        };
        // The code locks the indexes separately, because REINDEX locks an index exclusively, but
        // permits reads of the index's table.
        // SAFETY: the relation is open, and RelationGetIndexList() returns the oids of the
        // relation's indexes.
        let indexes =
            unsafe { PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(open.as_ptr())) };
        if indexes.iter_oid().all(|index| self.lock(index)) {
            Some(open)
        } else {
            self.refuse(relation)
        }
    }

    fn refuse(&mut self, relation: u32) -> Option<OpenRelation> {
        self.given_up.insert(relation);
        None
    }

    fn lock(&mut self, oid: pg_sys::Oid) -> bool {
        // SAFETY: ConditionalLockRelationOid() takes any oid. The (sub)transaction holds the lock.
        while !unsafe {
            pg_sys::ConditionalLockRelationOid(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
        } {
            if Instant::now() >= *self.until.get_or_insert_with(|| Instant::now() + LONGEST) {
                return false;
            }
            pgrx::check_for_interrupts!();
            // SAFETY: the call only sleeps.
            unsafe { pg_sys::pg_usleep(STEP_MICROSECONDS) };
        }
        true
    }

    /// Makes `open` return `None` for this table until the transaction ends. The function is called
    /// when code of the table's owner, for example a cast, has waited in vain for a lock. Without
    /// `give_up`, the owner's code would wait once more for each further rejected row of the table.
    pub fn give_up(&mut self, relation: u32) {
        self.given_up.insert(relation);
    }
}
