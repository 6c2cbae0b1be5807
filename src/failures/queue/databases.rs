//! Keeps the list of databases that have, or may have, the extension. Sessions, workers and the
//! launcher use this list of databases.

use super::region::{
    Counts, Database, NONE, Presence, Problem, Progress, Region, Stage, WorkerExit, locked,
    set_latch,
};
use pgrx::pg_sys;
use std::sync::atomic::Ordering;

impl Region {
    /// Returns the index of a database in the list `databases`.
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

/// Adds a database that has, or may have, the extension to the list of databases. Returns false if
/// the list of databases is full.
pub fn note(oid: pg_sys::Oid) -> bool {
    locked(|region| region.place_for(oid).is_some()).unwrap_or(false)
}

/// Notes that the database has the extension. After this call, sessions of the database record
/// failed statements.
pub fn found(oid: pg_sys::Oid) {
    locked(|region| {
        if let Some(place) = region.place_for(oid) {
            let database = &mut region.databases[place];
            database.presence = Presence::Present;
            // If the last worker of this database did not find the extension, `last_exit` is
            // `NoExtension`, and the launcher starts no new worker. After `Stopped`, the launcher
            // starts the next worker at once.
            if database.last_exit == WorkerExit::NoExtension {
                database.last_exit = WorkerExit::Stopped;
            }
            region.generation.fetch_add(1, Ordering::AcqRel);
        }
    });
}

/// Notes that the worker did not find the extension in the database. `generation` is the value that
/// the region's counter `generation` had before the worker looked for the extension. Returns false
/// if the counter has changed while the worker looked for the extension. If the result is false,
/// the worker must look for the extension once more, because a session may have created the
/// extension in the meantime.
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

/// Notes that the extension may have been dropped, and wakes the database's worker. After this
/// call, the worker checks whether the extension still exists.
pub fn doubted(oid: pg_sys::Oid) {
    let latch = locked(|region| {
        let place = region.place_of(oid)?;
        region.databases[place].presence = Presence::Unknown;
        region.generation.fetch_add(1, Ordering::AcqRel);
        Some(region.databases[place].latch)
    });
    // SAFETY: the worker stored the address of its own latch in the region.
    unsafe { set_latch(latch.flatten().unwrap_or(0)) };
}

/// Returns the index of a database in the region's list, if the database is known to have the
/// extension.
pub fn slot_of(oid: pg_sys::Oid) -> Option<usize> {
    locked(|region| {
        region.place_of(oid).filter(|&place| region.databases[place].presence == Presence::Present)
    })
    .flatten()
}

/// Removes a database without records from the region's list. Removes the database only if it was
/// dropped (`is_gone`), or if its last worker did not find the extension.
pub fn forget(oid: pg_sys::Oid, is_gone: bool) {
    locked(|region| {
        if let Some(place) = region.place_of(oid)
            // The database must have neither confirmed nor unconfirmed records. `slots_used` counts
            // the slots of all these records, whereas the database's list of records contains only
            // the confirmed records.
            && region.databases[place].slots_used == 0
            && (is_gone || region.databases[place].last_exit == WorkerExit::NoExtension)
        {
            region.databases[place].oid = 0;
            region.generation.fetch_add(1, Ordering::AcqRel);
        }
    });
}

/// Runs `work` on the database, if the region's list contains the database.
pub fn update<R>(oid: pg_sys::Oid, work: impl FnOnce(&mut Database) -> R) -> Option<R> {
    locked(|region| region.place_of(oid).map(|place| work(&mut region.databases[place]))).flatten()
}

/// Returns whether no record waits for the database's worker. Only the worker itself calls this
/// function. If the result is `true`, the session that queues the next record wakes the worker.
pub fn is_empty_for(database: pg_sys::Oid) -> bool {
    update(database, |place| {
        let is_empty = place.first == NONE;
        place.looks_again = !is_empty;
        is_empty
    })
    .unwrap_or(true)
}

/// Runs `work` on every database of the region's list.
pub fn each_database(mut work: impl FnMut(&mut Database)) {
    locked(|region| {
        region.databases.iter_mut().filter(|database| database.oid != 0).for_each(&mut work)
    });
}

/// Runs `look` on the database, if the region's list contains the database.
pub fn find<R>(oid: pg_sys::Oid, look: impl FnOnce(&Database) -> R) -> Option<R> {
    update(oid, |database| look(database))
}

/// Notes that this process is the database's worker. Returns false if the region's list of
/// databases is full, or if the database has another worker.
pub fn adopt(oid: pg_sys::Oid) -> bool {
    // SAFETY: the code only reads variables of this process.
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

/// Adds 1 to the number of dropped records of the database, for a record that the queue never
/// received. The function is called if memory for the record is exhausted, or if the record is only
/// in the server's log.
pub fn count_dropped(oid: pg_sys::Oid) {
    update(oid, |database| database.counts.dropped += 1);
}

/// Returns the sequence numbers of the records that the database's worker is processing. If the
/// worker died, returns the sequence numbers of the records that the worker was processing when it
/// died.
pub fn progress_of(oid: pg_sys::Oid) -> Option<&'static Progress> {
    locked(|region| {
        let place = region.place_of(oid)?;
        let progress = &raw const region.databases[place].progress;
        // SAFETY: the region is mapped as long as the process lives, and `progress` consists of
        // atomics. The index `place` belongs to this database as long as the database has a worker.
        Some(unsafe { &*progress })
    })
    .flatten()
}

/// Notes the reason why the database has no running worker.
pub fn set_problem(oid: pg_sys::Oid, problem: Problem) {
    update(oid, |database| database.problem = problem);
}

/// Returns the counts of a database's records.
pub fn counts(oid: pg_sys::Oid) -> Option<Counts> {
    find(oid, |database| database.counts)
}

/// Asks the database's worker to end, because another database waits for a background process.
pub fn ask_to_give_way(oid: pg_sys::Oid) {
    let latch = update(oid, |database| {
        database.gives_way = true;
        database.latch
    });
    // SAFETY: the worker stored the address of its own latch in the region.
    unsafe { set_latch(latch.unwrap_or(0)) };
}

/// Makes the database's worker fail if the worker is still connecting to the database, for example
/// while the worker waits for a lock on the database. Does nothing to a connected worker.
pub fn stop_connecting(oid: pg_sys::Oid) {
    update(oid, |database| {
        if database.worker != 0 && database.stage == Stage::Connecting {
            // SAFETY: the code only sends a signal, which cancels a wait of the worker. The worker
            // clears `worker` under the region's lock before the worker ends. This process holds
            // the region's lock, so the worker's process still exists.
            unsafe { libc::kill(database.worker, libc::SIGINT) };
        }
    });
}

/// The result of [`hold`].
pub enum Hold {
    /// The session holds the database, so the launcher starts no worker in the database. Contains
    /// the process id of the worker that must still end, or 0 if the database has no worker.
    Held(i32),
    /// The session does not hold the database, and must try later. The reason is that another
    /// session holds the database, or that no worker has run in the database since a session last
    /// held the database.
    NotYet,
}

/// Holds the database for this session. Asks the database's worker to end, and prevents the
/// launcher from starting a new worker. The session calls this function before a command that fails
/// while another process is connected to the database, for example DROP DATABASE.
pub fn hold(oid: pg_sys::Oid) -> Hold {
    // SAFETY: the code only reads a variable of this process.
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
            // SAFETY: the worker stored the address of its own latch in the region.
            unsafe { set_latch(latch) };
            Hold::Held(worker)
        }
    }
}

/// Releases a database that this session holds, so that the launcher can start a worker in the
/// database.
pub fn release(oid: pg_sys::Oid) {
    // SAFETY: the code only reads a variable of this process.
    let pid = unsafe { pg_sys::MyProcPid };
    update(oid, |database| {
        if database.held_by == pid {
            database.held_by = 0;
            // If the worker has ended, it ended because the session held the database (see `hold`),
            // and not because of an error.
            // With `Stopped` in `last_exit`, the launcher starts the next worker as soon as
            // possible. Before the next worker has started, no session can hold the database.
            let has_left = [WorkerExit::Unknown, WorkerExit::GaveWay].contains(&database.last_exit);
            if database.worker == 0 && has_left {
                database.last_exit = WorkerExit::Stopped;
            }
        }
    });
}
