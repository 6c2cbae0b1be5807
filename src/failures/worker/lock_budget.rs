//! In the worker: how long it waits for the watched tables of the records that it writes, and for
//! their indexes. Another session may hold one for hours (ALTER TABLE); the records of all others,
//! and sealing, would wait with it. An entry of a table that cannot be had does without its row.

use crate::pg::OpenRelation;
use pgrx::{PgList, pg_sys};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long, for all records that are written together.
const LONGEST: Duration = Duration::from_millis(500);

/// How long between two looks.
const STEP_MICROSECONDS: core::ffi::c_long = 5_000;

/// What is left of it.
pub struct LockBudget {
    until: Option<Instant>,
    given_up: HashSet<u32>,
}

impl LockBudget {
    /// All of it. It begins when it is first needed.
    pub fn new() -> Self {
        LockBudget { until: None, given_up: HashSet::new() }
    }

    /// Opens a table, whose indexes can be opened then without waiting; `None` if it is gone, or
    /// locked for too long.
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
        // REINDEX locks an index against every other use, and the table not against reading it.
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
        // SAFETY: takes any oid. The lock is the (sub)transaction's.
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

    /// Something else of this table, code of its owner's, waited in vain: that is not to be tried
    /// for each of its rows.
    pub fn give_up(&mut self, relation: u32) {
        self.given_up.insert(relation);
    }
}
