//! Contains the launcher, which starts a worker for each database that has the extension. The
//! launcher connects to no database, so it never blocks DROP DATABASE. The launcher reads no
//! catalog except pg_database.
//!
//! If the server has fewer background processes than databases that need one, the databases take
//! turns. The launcher asks the worker that has run longest to end. When the worker has ended, the
//! launcher starts a worker in the database that has waited longest.

use crate::failures;
use crate::failures::queue::{self, MAX_DATABASES, Presence, Problem, Stage, WorkerExit};
use crate::pg::{handle_signals, in_transaction, must_stop, wait};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

/// The time after which PostgreSQL restarts a crashed launcher, in seconds.
pub const RESTART_SECONDS: i32 = 5;

/// The interval at which the launcher reads pg_database, even if no session has reported a new or
/// dropped database.
const LOOK_AROUND: Duration = Duration::from_secs(60);

/// The time after which the launcher restarts a worker that has ended with an error.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The shortest time that a worker runs while other databases wait for a background process. A
/// database that is not urgent also waits at least this long before the launcher asks the worker of
/// another database to end.
const TURN: Duration = Duration::from_secs(5);

/// The shortest time that a worker runs while an urgent database waits for a background process. A
/// database is urgent if it has queued records, or if no worker has looked for the extension in the
/// database yet.
const SHORT_TURN: Duration = Duration::from_secs(2);

/// The advantage of an urgent database over other waiting databases. A database that is not urgent
/// counts as if it had begun to wait this much later than it did.
const HEAD_START: Duration = Duration::from_secs(30);

/// The interval at which the launcher tries to start workers while databases wait for a background
/// process.
const IN_SHORTAGE: Duration = Duration::from_secs(1);

/// The maximum number of databases in which workers look for the extension at the same time.
const PROBES: usize = 2;

/// The maximum time that the launcher waits for the workers at a shutdown of the server. During
/// this time, the workers write the entries of queued records.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// A worker that the launcher has started.
struct Started {
    handle: *mut pg_sys::BackgroundWorkerHandle,
}

/// The launcher's copy of the values that the queue contains for one database.
struct Seen {
    oid: pg_sys::Oid,
    presence: Presence,
    last_exit: WorkerExit,
    /// Whether the database has a worker, or the launcher has started a worker for it.
    runs: bool,
    /// The time at which the launcher first saw the current value of `runs`.
    since: Instant,
    is_held: bool,
    has_records: bool,
    stage: Stage,
    gives_way: bool,
}

impl Seen {
    fn is_urgent(&self) -> bool {
        self.has_records || self.presence == Presence::Unknown
    }

    /// Returns the sort key of a waiting database. The database with the lowest key gets a
    /// background process first.
    fn rank(&self) -> (Instant, u32) {
        let head_start = if self.is_urgent() { Duration::ZERO } else { HEAD_START };
        (self.since + head_start, self.oid.to_u32())
    }
}

struct Launcher {
    databases: HashMap<pg_sys::Oid, CString>,
    /// The databases in which no worker has looked for the extension yet.
    unknown: VecDeque<pg_sys::Oid>,
    /// The workers that the launcher has started and that have not ended, by the oid of the
    /// database.
    started: HashMap<pg_sys::Oid, Started>,
    retry_at: HashMap<pg_sys::Oid, Instant>,
    /// The values of `Seen::runs` and `Seen::since` of each database, as they were when the
    /// launcher last read the queue.
    since: HashMap<pg_sys::Oid, (bool, Instant)>,
    next_look: Instant,
    short_of_processes: bool,
}

/// Runs the launcher. PostgreSQL calls this function as the main function of the launcher's
/// process.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn lead_audit_launcher_main(_argument: pg_sys::Datum) {
    handle_signals();
    failures::switch_off();
    // SAFETY: the process has just started, and is not connected yet. The launcher connects without
    // a database and a user, so it can read only shared catalogs.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
        pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0));
    }
    if !queue::is_there() {
        pgrx::warning!(
            "lead_audit: there is no shared memory for the launcher, which therefore does nothing"
        );
        return;
    }
    queue::launcher_starts();
    queue::set_open(true);
    let mut launcher = Launcher {
        databases: HashMap::new(),
        unknown: VecDeque::new(),
        started: HashMap::new(),
        retry_at: HashMap::new(),
        since: HashMap::new(),
        next_look: Instant::now(),
        short_of_processes: false,
    };
    while !must_stop() {
        launcher.turn();
        wait(launcher.time_to_wait());
    }
    launcher.end();
    // SAFETY: no Rust value needs to be dropped. PostgreSQL restarts a background process that
    // exits with the status 1.
    unsafe { pg_sys::proc_exit(1) }
}

/// Removes the launcher from the queue's shared memory. PostgreSQL calls this function when the
/// launcher ends, for any reason. If no worker is running, this function closes the queue, so that
/// sessions write their records to the server's log. If a worker still runs, the queue stays open.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _argument: pg_sys::Datum) {
    if !is_any_worker_alive() {
        queue::set_open(false);
    }
    queue::launcher_stops();
}

impl Launcher {
    fn turn(&mut self) {
        if queue::rescan_asked() || Instant::now() >= self.next_look {
            self.look_around();
            self.next_look = Instant::now() + LOOK_AROUND;
        }
        self.see_to_started();
        let mut probing = 0;
        let (mut occupied, mut waiting) = (Vec::new(), Vec::new());
        for database in self.see() {
            let is_gone = !self.databases.contains_key(&database.oid);
            let is_unknown = usize::from(database.presence == Presence::Unknown);
            if database.runs || database.is_held {
                probing += is_unknown;
                occupied.push(database);
            } else if database.last_exit == WorkerExit::NoExtension || is_gone {
                self.let_go(database.oid, is_gone);
            } else if self.is_due(database.oid) {
                probing += is_unknown;
                waiting.push(database);
            }
        }
        while probing < PROBES
            && let Some(oid) = self.unknown.pop_front()
        {
            if queue::find(oid, |_| ()).is_none()
                && self.databases.contains_key(&oid)
                && queue::note(oid)
            {
                waiting.extend(self.see().into_iter().find(|database| database.oid == oid));
                probing += 1;
            }
        }
        waiting.sort_unstable_by_key(Seen::rank);
        let started = waiting.iter().take_while(|database| self.start(database.oid)).count();
        let waiting = &waiting[started..];
        let takes_turns = started > 0 || occupied.iter().any(|database| database.runs);
        self.note_shortage(waiting, takes_turns);
        make_room(waiting, occupied);
    }

    /// Returns a copy of the values of each database in the queue's list.
    fn see(&mut self) -> Vec<Seen> {
        let now = Instant::now();
        let mut all = Vec::new();
        queue::each_database(|database| {
            all.push(Seen {
                oid: database.oid(),
                presence: database.presence,
                last_exit: database.last_exit,
                runs: database.worker != 0,
                since: now,
                is_held: database.held_by != 0,
                has_records: database.has_records(),
                stage: database.stage,
                gives_way: database.gives_way,
            });
        });
        let mut since = HashMap::with_capacity(all.len());
        for database in &mut all {
            database.runs |= self.started.contains_key(&database.oid);
            if let Some(&(ran, at)) = self.since.get(&database.oid)
                && ran == database.runs
            {
                database.since = at;
            }
            since.insert(database.oid, (database.runs, database.since));
        }
        self.since = since;
        all
    }

    /// Reads pg_database, adds new databases to `unknown`, and forgets dropped databases.
    fn look_around(&mut self) {
        let found = match in_transaction(c"looking for databases", read_databases) {
            Ok(found) => found,
            Err(error) => return pgrx::log!("lead_audit: pg_database could not be read: {error}"),
        };
        // Databases with low oids are probed first, because they are usually older. In another
        // order, many new databases could fill the queue's list of databases before an older
        // database is added to the list.
        let mut new: Vec<_> =
            found.keys().filter(|oid| !self.databases.contains_key(oid)).copied().collect();
        new.sort_unstable_by_key(|oid| oid.to_u32());
        self.unknown.extend(new);
        self.databases = found;
        self.retry_at.retain(|oid, _| self.databases.contains_key(oid));
        let mut places = HashSet::new();
        queue::each_database(|database| {
            places.insert(database.oid());
            // `reported` marks the tasks whose errors the previous worker has logged, and the next
            // worker does not log the next error of these tasks. The launcher clears `reported`
            // each time it reads pg_database, so that a lasting error appears in the server's log
            // about once a minute.
            database.reported = 0;
        });
        if places.len() >= MAX_DATABASES {
            pgrx::log!(
                "lead_audit: more than {MAX_DATABASES} databases have the extension: there are no \
                 workers for the others"
            );
        }
    }

    /// Forgets the started workers that have ended. For a worker that has failed, sets the time at
    /// which the launcher starts the next worker of its database.
    fn see_to_started(&mut self) {
        let asked: Vec<_> =
            self.started.iter().map(|(oid, started)| (*oid, started.handle)).collect();
        for (oid, handle) in asked {
            let mut pid = 0;
            // SAFETY: PostgreSQL created the handle in this process.
            let status = unsafe { pg_sys::GetBackgroundWorkerPid(handle, &mut pid) };
            if status != pg_sys::BgwHandleStatus::BGWH_STOPPED {
                continue;
            }
            self.started.remove(&oid);
            // SAFETY: the handle was allocated in this process, and is not used any more.
            unsafe { pg_sys::pfree(handle.cast()) };
            let outcome =
                queue::find(oid, |database| database.last_exit).unwrap_or(WorkerExit::NoExtension);
            if outcome == WorkerExit::Unknown {
                queue::set_problem(oid, Problem::Failed);
                self.retry_at.insert(oid, Instant::now() + AFTER_FAILURE);
                queue::wake_launcher(true);
            }
        }
    }

    fn is_due(&self, oid: pg_sys::Oid) -> bool {
        self.retry_at.get(&oid).is_none_or(|at| *at <= Instant::now())
    }

    /// Starts the worker of a database. Returns false if no background process is free.
    fn start(&mut self, oid: pg_sys::Oid) -> bool {
        let name = self.databases.get(&oid).cloned().unwrap_or_default();
        let title = format!("lead_audit worker for database {}", name.to_string_lossy());
        let title = CString::new(title).unwrap_or_default();
        let mut worker =
            super::description(&title, c"lead_audit worker", c"lead_audit_worker_main");
        worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
        worker.bgw_main_arg = pg_sys::Datum::from(oid);
        let mut handle = std::ptr::null_mut();
        // SAFETY: PostgreSQL copies the description. PostgreSQL allocates the handle in
        // TopMemoryContext, so the handle outlives the transaction.
        let registered = unsafe {
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            pg_sys::CurrentMemoryContext = pg_sys::TopMemoryContext;
            pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle)
        };
        if registered {
            self.started.insert(oid, Started { handle });
            self.retry_at.remove(&oid);
            queue::set_problem(oid, Problem::None);
        }
        registered
    }

    /// Notes in the queue which databases wait for a background process. Logs the beginning and the
    /// end of a shortage of background processes.
    fn note_shortage(&mut self, waiting: &[Seen], takes_turns: bool) {
        waiting.iter().for_each(|database| queue::set_problem(database.oid, Problem::NoProcess));
        let was_short = std::mem::replace(&mut self.short_of_processes, !waiting.is_empty());
        let Some(first) = waiting.first().filter(|_| !was_short) else {
            if was_short && waiting.is_empty() {
                pgrx::log!("lead_audit: background processes are available again");
            }
            return;
        };
        let name = self.databases.get(&first.oid).cloned().unwrap_or_default();
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "lead_audit: no background process is left for database {}",
                name.to_string_lossy()
            ),
            "lead_audit",
        )
        .set_detail(if takes_turns {
            "The databases with the extension take turns. Sealing and entries of failed \
             operations are delayed."
        } else {
            "Until there is one, nothing is sealed there, and failed operations wait in the \
             queue."
        })
        .set_hint("Raise max_worker_processes in postgresql.conf, and restart the server.")
        .report(PgLogLevel::LOG);
    }

    /// Removes a database from the queue's list, because the database was dropped or does not have
    /// the extension. The queued records of the database go to the server's log.
    fn let_go(&mut self, oid: pg_sys::Oid, is_gone: bool) {
        failures::log_rest(oid);
        queue::forget(oid, is_gone);
        self.retry_at.remove(&oid);
    }

    fn time_to_wait(&self) -> Duration {
        let now = Instant::now();
        let next =
            self.retry_at.values().min().copied().unwrap_or(self.next_look).min(self.next_look);
        // The launcher can wait for a long time, because other processes wake it. A worker wakes
        // the launcher when the worker ends. A session wakes the launcher when the session releases
        // a database that it has held.
        let longest =
            if self.unknown.is_empty() { LOOK_AROUND } else { Duration::from_millis(100) };
        let longest = if self.short_of_processes { longest.min(IN_SHORTAGE) } else { longest };
        next.saturating_duration_since(now).clamp(Duration::from_millis(10), longest)
    }

    /// Waits until the workers have written their records and ended, and writes the remaining
    /// records to the server's log. If the workers do not end in time, the server is probably not
    /// shutting down, and only the launcher was terminated. If only the launcher was terminated,
    /// the records stay in the queue, and PostgreSQL restarts the launcher.
    fn end(&mut self) {
        let deadline = Instant::now() + LAST_WRITES;
        while is_any_worker_alive() {
            if Instant::now() >= deadline {
                return;
            }
            wait(Duration::from_millis(20));
        }
        queue::set_open(false);
        let mut all = Vec::new();
        queue::each_database(|database| all.push(database.oid()));
        all.into_iter().for_each(failures::log_rest);
    }
}

/// Asks running workers to end, at most one for each database that waits for a background process.
/// The launcher begins with the worker that has run the longest. The launcher asks a worker to end
/// only if the worker has run all tasks once and its turn has lasted long enough.
fn make_room(waiting: &[Seen], occupied: Vec<Seen>) {
    let mut running = occupied;
    let now = Instant::now();
    let time = |database: &Seen| now.saturating_duration_since(database.since);
    let leaving = running.iter().filter(|database| database.runs && database.gives_way).count();
    running.retain(|database| database.runs && !database.gives_way && !database.is_held);
    running.sort_unstable_by_key(|database| (database.since, database.oid.to_u32()));
    if !waiting.is_empty() {
        // A worker that is still connecting may be waiting for a lock on its database. Another
        // session can keep a lock on a database for any length of time. The launcher therefore
        // stops a worker that has been connecting for longer than TURN.
        let is_stuck =
            |database: &&Seen| database.stage == Stage::Connecting && time(database) >= TURN;
        running.iter().filter(is_stuck).for_each(|database| queue::stop_connecting(database.oid));
    }
    for waiting in waiting.iter().skip(leaving) {
        let turn = if waiting.is_urgent() { SHORT_TURN } else { TURN };
        if !waiting.is_urgent() && time(waiting) < TURN {
            continue;
        }
        let may_leave =
            |database: &Seen| database.stage == Stage::HasWorked && time(database) >= turn;
        if let Some(longest) = running.iter().position(may_leave) {
            queue::ask_to_give_way(running.remove(longest).oid);
        }
    }
}

fn is_any_worker_alive() -> bool {
    let mut alive = false;
    queue::each_database(|database| alive |= database.worker != 0);
    alive
}

/// Returns the oid and the name of each database that accepts connections or is in the queue's
/// list.
fn read_databases() -> HashMap<pg_sys::Oid, CString> {
    let mut databases = HashMap::new();
    // SAFETY: pg_database is shared and open, and the scan ends before the catalog is closed. A
    // tuple is valid until the next tuple is fetched.
    unsafe {
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(table, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            // A database that does not accept new connections can still have sessions. The result
            // therefore includes each database in the queue's list.
            if (*row).datallowconn || queue::find((*row).oid, |_| ()).is_some() {
                databases
                    .insert((*row).oid, CStr::from_ptr((*row).datname.data.as_ptr()).to_owned());
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(table, pg_sys::AccessShareLock as i32);
    }
    databases
}
