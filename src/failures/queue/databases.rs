//! The databases that have the extension, or may have it: what sessions and the launcher know of
//! them.

use super::region::{
    Counts, Database, NONE, Presence, Problem, Progress, Region, WorkerExit, locked, set_latch,
};
use pgrx::pg_sys;
use std::sync::atomic::Ordering;

impl Region {
    /// The database's place.
    pub fn place_of(&self, oid: pg_sys::Oid) -> Option<usize> {
        let wanted = oid.to_u32();
        self.databases.iter().position(|database| database.oid == wanted && wanted != 0)
    }

    fn place_for(&mut self, oid: pg_sys::Oid) -> Option<usize> {
        if let Some(place) = self.place_of(oid) {
            return Some(place);
        }
        let free = self.databases.iter().position(|database| database.oid == 0)?;
        self.databases[free].begin(oid);
        self.generation.fetch_add(1, Ordering::AcqRel);
        Some(free)
    }
}

/// Takes note of a database that has the extension, or may have it. False if there is no room for
/// it.
pub fn note(oid: pg_sys::Oid) -> bool {
    locked(|region| region.place_for(oid).is_some()).unwrap_or(false)
}

/// The extension is in the database: sessions follow failures there from now on.
pub fn found(oid: pg_sys::Oid) {
    locked(|region| {
        if let Some(place) = region.place_for(oid) {
            let database = &mut region.databases[place];
            database.presence = Presence::Present;
            // A worker that looked before it came may have ended; the launcher has not forgotten
            // the database yet. Nothing was wrong with that worker, so the next one comes at once.
            if database.last_exit == WorkerExit::NoExtension {
                database.last_exit = WorkerExit::Stopped;
            }
            region.generation.fetch_add(1, Ordering::AcqRel);
        }
    });
}

/// The extension is not in the database, as its worker saw after it had asked for the generation.
/// False if something has changed since, in this database or another: then the worker has to look
/// again, or an extension that came meanwhile would be forgotten.
pub fn absent(oid: pg_sys::Oid, generation: u32) -> bool {
    locked(|region| {
        if region.generation.load(Ordering::Acquire) != generation {
            return false;
        }
        if let Some(place) = region.place_of(oid) {
            let database = &mut region.databases[place];
            (database.last_exit, database.presence) = (WorkerExit::NoExtension, Presence::Unknown);
        }
        true
    })
    .unwrap_or(true)
}

/// The extension may not be in the database any more: its worker is to look.
pub fn doubted(oid: pg_sys::Oid) {
    let latch = locked(|region| {
        let place = region.place_of(oid)?;
        region.databases[place].presence = Presence::Unknown;
        region.generation.fetch_add(1, Ordering::AcqRel);
        Some(region.databases[place].latch)
    });
    // SAFETY: the worker left the address of its own.
    unsafe { set_latch(latch.flatten().unwrap_or(0)) };
}

/// The place of a database in the region, if a worker found the extension there.
pub fn slot_of(oid: pg_sys::Oid) -> Option<usize> {
    locked(|region| {
        region.place_of(oid).filter(|&place| region.databases[place].presence == Presence::Present)
    })
    .flatten()
}

/// Forgets a database that is gone or still has no extension, and has no records waiting.
pub fn forget(oid: pg_sys::Oid, is_gone: bool) {
    locked(|region| {
        if let Some(place) = region.place_of(oid)
            // Records that a session has not confirmed yet are in no list.
            && region.databases[place].slots_used == 0
            && (is_gone || region.databases[place].last_exit == WorkerExit::NoExtension)
        {
            region.databases[place].oid = 0;
            region.generation.fetch_add(1, Ordering::AcqRel);
        }
    });
}

/// Runs `work` on a database's place, if it has one.
pub fn update<R>(oid: pg_sys::Oid, work: impl FnOnce(&mut Database) -> R) -> Option<R> {
    locked(|region| region.place_of(oid).map(|place| work(&mut region.databases[place]))).flatten()
}

/// Whether nothing waits for a database, of whose worker this is the last look: the next record
/// wakes it.
pub fn is_empty_for(database: pg_sys::Oid) -> bool {
    update(database, |place| {
        let is_empty = place.first == NONE;
        place.looks_again = u32::from(!is_empty);
        is_empty
    })
    .unwrap_or(true)
}

/// Runs `work` on every database that is known.
pub fn each_database(mut work: impl FnMut(&mut Database)) {
    locked(|region| {
        region.databases.iter_mut().filter(|database| database.oid != 0).for_each(&mut work)
    });
}

/// A look at one database.
pub fn find<R>(oid: pg_sys::Oid, look: impl FnOnce(&Database) -> R) -> Option<R> {
    update(oid, |database| look(database))
}

/// The database's worker says that it is there, and that it found the extension.
pub fn adopt(oid: pg_sys::Oid) -> bool {
    // SAFETY: reads variables of this process.
    let (pid, latch) = unsafe { (pg_sys::MyProcPid, pg_sys::MyLatch as usize) };
    locked(|region| {
        let Some(place) = region.place_for(oid) else { return false };
        let database = &mut region.databases[place];
        if database.worker != 0 && database.worker != pid {
            return false;
        }
        (database.worker, database.latch, database.looks_again) = (pid, latch, 0);
        (database.problem, database.last_exit) = (Problem::None, WorkerExit::Unknown);
        true
    })
    .unwrap_or(false)
}

/// A record has no entry, and is not in the server's log either: there was no memory for it, or it
/// is there already.
pub fn count_dropped(oid: pg_sys::Oid) {
    update(oid, |database| database.counts.dropped += 1);
}

/// What the worker of a database is busy with, or was when it died.
pub fn progress_of(oid: pg_sys::Oid) -> Option<&'static Progress> {
    locked(|region| {
        let place = region.place_of(oid)?;
        let progress = &raw const region.databases[place].progress;
        // SAFETY: the region is mapped as long as the process lives, and the field has atomics
        // only. The place stays this database's as long as it has a worker.
        Some(unsafe { &*progress })
    })
    .flatten()
}

/// Why its worker does not run.
pub fn set_problem(oid: pg_sys::Oid, problem: Problem) {
    update(oid, |database| database.problem = problem);
}

/// What became of a database's records.
pub fn counts(oid: pg_sys::Oid) -> Option<Counts> {
    find(oid, |database| database.counts)
}

/// What came of asking for a database without our worker.
pub enum Hold {
    /// The worker leaves, and none is started. Its process, or 0.
    Held(i32),
    /// Somebody else holds the database, or no worker has come since somebody did: between two
    /// holds one does its work.
    NotYet,
}

/// A session needs the database without our worker.
pub fn hold(oid: pg_sys::Oid) -> Hold {
    // SAFETY: reads a variable of this process.
    let pid = unsafe { pg_sys::MyProcPid };
    let found = update(oid, |database| {
        let is_awaited = database.worker == 0
            && database.last_exit == WorkerExit::Stopped
            && database.presence == Presence::Present;
        if is_awaited || ![0, pid].contains(&database.held_by) {
            return None;
        }
        database.held_by = pid;
        Some((database.worker, database.latch))
    });
    match found {
        None => Hold::Held(0),
        Some(None) => Hold::NotYet,
        Some(Some((worker, latch))) => {
            // SAFETY: the worker left the address of its own.
            unsafe { set_latch(latch) };
            Hold::Held(worker)
        }
    }
}

/// The session does not any more.
pub fn release(oid: pg_sys::Oid) {
    // SAFETY: reads a variable of this process.
    let pid = unsafe { pg_sys::MyProcPid };
    update(oid, |database| {
        if database.held_by == pid {
            database.held_by = 0;
            // Nothing was wrong with a worker that is not there: the next one comes at once.
            if database.worker == 0 && database.last_exit == WorkerExit::Unknown {
                database.last_exit = WorkerExit::Stopped;
            }
        }
    });
}
