//! The databases that have, or may have, the extension, for sessions and the launcher.

use super::region::{
    Counts, Database, NONE, Presence, Problem, Progress, Region, Stage, WorkerExit, locked,
    set_latch,
};
use pgrx::pg_sys;
use std::sync::atomic::Ordering;

impl Region {
    /// The database's index in `databases`.
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

/// Adds a database that has, or may have, the extension. Returns false if no place is free.
pub fn note(oid: pg_sys::Oid) -> bool {
    locked(|region| region.place_for(oid).is_some()).unwrap_or(false)
}

/// Notes that the database has the extension: from now on sessions record failures there.
pub fn found(oid: pg_sys::Oid) {
    locked(|region| {
        if let Some(place) = region.place_for(oid) {
            let database = &mut region.databases[place];
            database.presence = Presence::Present;
            // A worker that looked before CREATE EXTENSION may have ended, and the launcher still
            // knows the database. That worker did not fail, so the launcher starts the next one at
            // once.
            if database.last_exit == WorkerExit::NoExtension {
                database.last_exit = WorkerExit::Stopped;
            }
            region.generation.fetch_add(1, Ordering::AcqRel);
        }
    });
}

/// Notes that the worker found no extension in the database. `generation` is the value that the
/// worker read before it looked. Returns false if the generation has changed since: then the worker
/// must look again, because the extension may have been created meanwhile.
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

/// Notes that the extension may have been dropped, and wakes the worker to look.
pub fn doubted(oid: pg_sys::Oid) {
    let latch = locked(|region| {
        let place = region.place_of(oid)?;
        region.databases[place].presence = Presence::Unknown;
        region.generation.fetch_add(1, Ordering::AcqRel);
        Some(region.databases[place].latch)
    });
    // SAFETY: the worker stored the address of its own latch.
    unsafe { set_latch(latch.flatten().unwrap_or(0)) };
}

/// The database's index in the region, if a worker found the extension there.
pub fn slot_of(oid: pg_sys::Oid) -> Option<usize> {
    locked(|region| {
        region.place_of(oid).filter(|&place| region.databases[place].presence == Presence::Present)
    })
    .flatten()
}

/// Removes a database that has been dropped or has no extension, unless it has records.
pub fn forget(oid: pg_sys::Oid, is_gone: bool) {
    locked(|region| {
        if let Some(place) = region.place_of(oid)
            // Unconfirmed records are in no list, but occupy slots.
            && region.databases[place].slots_used == 0
            && (is_gone || region.databases[place].last_exit == WorkerExit::NoExtension)
        {
            region.databases[place].oid = 0;
            region.generation.fetch_add(1, Ordering::AcqRel);
        }
    });
}

/// Runs `work` on the database, if it is known.
pub fn update<R>(oid: pg_sys::Oid, work: impl FnOnce(&mut Database) -> R) -> Option<R> {
    locked(|region| region.place_of(oid).map(|place| work(&mut region.databases[place]))).flatten()
}

/// Whether no record waits for a database. Called by its worker: if true, the worker sleeps, and
/// the next record wakes it.
pub fn is_empty_for(database: pg_sys::Oid) -> bool {
    update(database, |place| {
        let is_empty = place.first == NONE;
        place.looks_again = !is_empty;
        is_empty
    })
    .unwrap_or(true)
}

/// Runs `work` on every known database.
pub fn each_database(mut work: impl FnMut(&mut Database)) {
    locked(|region| {
        region.databases.iter_mut().filter(|database| database.oid != 0).for_each(&mut work)
    });
}

/// Reads from one database.
pub fn find<R>(oid: pg_sys::Oid, look: impl FnOnce(&Database) -> R) -> Option<R> {
    update(oid, |database| look(database))
}

/// Notes that this process is the database's worker and found the extension.
pub fn adopt(oid: pg_sys::Oid) -> bool {
    // SAFETY: reads variables of this process.
    let (pid, latch) = unsafe { (pg_sys::MyProcPid, pg_sys::MyLatch as usize) };
    locked(|region| {
        let Some(place) = region.place_for(oid) else { return false };
        let database = &mut region.databases[place];
        if database.worker != 0 && database.worker != pid {
            return false;
        }
        (database.worker, database.latch, database.looks_again) = (pid, latch, false);
        (database.stage, database.gives_way) = (Stage::Connecting, false);
        (database.problem, database.last_exit) = (Problem::None, WorkerExit::Unknown);
        true
    })
    .unwrap_or(false)
}

/// Counts a record that gets no entry and that the queue has not counted: memory was exhausted, or
/// the record is already in the server's log.
pub fn count_dropped(oid: pg_sys::Oid) {
    update(oid, |database| database.counts.dropped += 1);
}

/// The progress of the database's worker, or of its last worker when it died.
pub fn progress_of(oid: pg_sys::Oid) -> Option<&'static Progress> {
    locked(|region| {
        let place = region.place_of(oid)?;
        let progress = &raw const region.databases[place].progress;
        // SAFETY: the region is mapped as long as the process lives, and the field consists of
        // atomics. The place stays this database's as long as the database has a worker.
        Some(unsafe { &*progress })
    })
    .flatten()
}

/// Notes why the database's worker does not run.
pub fn set_problem(oid: pg_sys::Oid, problem: Problem) {
    update(oid, |database| database.problem = problem);
}

/// The counts of a database's records.
pub fn counts(oid: pg_sys::Oid) -> Option<Counts> {
    find(oid, |database| database.counts)
}

/// Asks the worker to leave, since another database waits for a process.
pub fn ask_to_give_way(oid: pg_sys::Oid) {
    let latch = update(oid, |database| {
        database.gives_way = true;
        database.latch
    });
    // SAFETY: the worker stored the address of its own latch.
    unsafe { set_latch(latch.unwrap_or(0)) };
}

/// Makes a worker fail that waits for a lock on its database before it is connected. At other times
/// this has no effect.
pub fn stop_connecting(oid: pg_sys::Oid) {
    update(oid, |database| {
        if database.worker != 0 && database.stage == Stage::Connecting {
            // SAFETY: sends a signal, which cancels a wait. The worker clears its process id
            // under the lock, so the process still exists.
            unsafe { libc::kill(database.worker, libc::SIGINT) };
        }
    });
}

/// The result of `hold`.
pub enum Hold {
    /// The worker leaves, and none is started. Contains the worker's process id, or 0.
    Held(i32),
    /// Another session holds the database, or no worker has run since the last hold: between two
    /// holds a worker must do its work.
    NotYet,
}

/// Asks the worker to leave the database and starts no other, for a session that needs the database
/// for itself.
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
            // SAFETY: the worker stored the address of its own latch.
            unsafe { set_latch(latch) };
            Hold::Held(worker)
        }
    }
}

/// Ends the session's hold on the database.
pub fn release(oid: pg_sys::Oid) {
    // SAFETY: reads a variable of this process.
    let pid = unsafe { pg_sys::MyProcPid };
    update(oid, |database| {
        if database.held_by == pid {
            database.held_by = 0;
            // The missing worker did not fail, so the launcher starts the next one as soon as it
            // can. Until then the database cannot be held again.
            let has_left = [WorkerExit::Unknown, WorkerExit::GaveWay].contains(&database.last_exit);
            if database.worker == 0 && has_left {
                database.last_exit = WorkerExit::Stopped;
            }
        }
    });
}
