//! Limits how long the worker waits for locks on the tables of the records and on their indexes.
//! Another session may hold such a lock for hours (ALTER TABLE), and all other records and sealing
//! would wait. If a table cannot be locked, its entry is written without the row.

use crate::pg::OpenRelation;
use pgrx::{PgList, pg_sys};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// The longest wait for all records of a batch.
const LONGEST: Duration = Duration::from_millis(500);

/// The pause between two attempts.
const STEP_MICROSECONDS: core::ffi::c_long = 5_000;

/// The remaining time.
pub struct LockBudget {
    until: Option<Instant>,
    given_up: HashSet<u32>,
}

impl LockBudget {
    /// A full budget. Its time starts at the first wait.
    pub fn new() -> Self {
        LockBudget { until: None, given_up: HashSet::new() }
    }

    /// Opens a table and locks its indexes, so that they can be opened without waiting. `None` if
    /// the table does not exist, or is locked for too long.
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
        // REINDEX locks the index exclusively, but permits reads of the table.
        // SAFETY: the relation is open; the list is of its indexes' oids.
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
        // SAFETY: takes any oid. The (sub)transaction holds the lock.
        while !unsafe {
            pg_sys::ConditionalLockRelationOid(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
        } {
            if Instant::now() >= *self.until.get_or_insert_with(|| Instant::now() + LONGEST) {
                return false;
            }
            pgrx::check_for_interrupts!();
            // SAFETY: sleeps.
            unsafe { pg_sys::pg_usleep(STEP_MICROSECONDS) };
        }
        true
    }

    /// Gives up on a table: code of its owner waited in vain, and must not do so for each row.
    pub fn give_up(&mut self, relation: u32) {
        self.given_up.insert(relation);
    }
}
