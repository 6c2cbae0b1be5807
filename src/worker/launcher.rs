//! The launcher: starts a worker for each database that has the extension. It connects to no
//! database, so it never blocks DROP DATABASE, and reads only pg_database.

use crate::failures;
use crate::failures::queue::{self, MAX_DATABASES, Presence, Problem, WorkerExit};
use crate::pg::{handle_signals, in_transaction, must_stop, wait};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

/// Time until PostgreSQL restarts the launcher after a crash.
pub const RESTART_SECONDS: i32 = 5;

/// Interval between reads of pg_database when no session reported a new or dropped database.
const LOOK_AROUND: Duration = Duration::from_secs(60);

/// Time until a worker is restarted after it ended with an error.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Pause when no background process is free.
const AFTER_SHORTAGE: Duration = Duration::from_secs(5);

/// Maximum number of databases probed at the same time.
const PROBES: usize = 2;

/// Time for the workers to write queued records when the server shuts down.
const LAST_WRITES: Duration = Duration::from_secs(10);

struct Started {
    handle: *mut pg_sys::BackgroundWorkerHandle,
}

struct Launcher {
    databases: HashMap<pg_sys::Oid, CString>,
    /// Databases that no worker has probed yet.
    unknown: VecDeque<pg_sys::Oid>,
    /// Workers that were started and have not reported yet.
    started: HashMap<pg_sys::Oid, Started>,
    retry_at: HashMap<pg_sys::Oid, Instant>,
    next_look: Instant,
    short_of_processes: bool,
}

/// The entry point of the launcher's process.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn lead_audit_launcher_main(_argument: pg_sys::Datum) {
    handle_signals();
    failures::switch_off();
    // SAFETY: at the beginning of the process. No database and no user: only shared catalogs can be
    // read.
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
        next_look: Instant::now(),
        short_of_processes: false,
    };
    while !must_stop() {
        launcher.turn();
        wait(launcher.time_to_wait());
    }
    launcher.end();
    // SAFETY: no Rust value is left to drop. PostgreSQL restarts a process that exits with 1.
    unsafe { pg_sys::proc_exit(1) }
}

/// Runs when the launcher ends for any reason. Running workers continue. In a database without a
/// worker, records of failed statements go to the server's log.
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
        let mut vacant = Vec::new();
        let mut probing = 0;
        queue::each_database(|database| {
            let oid = database.oid();
            if database.worker != 0 || database.held_by != 0 {
                probing += usize::from(database.presence == Presence::Unknown);
            } else {
                vacant.push((oid, database.presence, database.last_exit));
            }
        });
        for (oid, presence, outcome) in vacant {
            if self.started.contains_key(&oid) {
                probing += usize::from(presence == Presence::Unknown);
                continue;
            }
            let is_gone = !self.databases.contains_key(&oid);
            if outcome == WorkerExit::NoExtension || is_gone {
                self.let_go(oid, is_gone);
            } else if self.is_due(oid) {
                self.start(oid);
            }
        }
        while probing < PROBES
            && let Some(oid) = self.unknown.pop_front()
        {
            if queue::find(oid, |_| ()).is_none()
                && self.databases.contains_key(&oid)
                && queue::note(oid)
            {
                self.start(oid);
                probing += 1;
            }
        }
    }

    /// Reads the list of databases. Queues new databases for a probe, and forgets dropped ones.
    fn look_around(&mut self) {
        let found = match in_transaction(c"looking for databases", read_databases) {
            Ok(found) => found,
            Err(error) => return pgrx::log!("lead_audit: pg_database could not be read: {error}"),
        };
        for oid in found.keys() {
            if !self.databases.contains_key(oid) {
                self.unknown.push_back(*oid);
            }
        }
        self.databases = found;
        self.retry_at.retain(|oid, _| self.databases.contains_key(oid));
        let mut places = HashSet::new();
        queue::each_database(|database| {
            places.insert(database.oid());
        });
        if places.len() >= MAX_DATABASES {
            pgrx::log!(
                "lead_audit: more than {MAX_DATABASES} databases have the extension: there are no \
                 workers for the others"
            );
        }
    }

    /// Checks whether the started workers have reported, or have ended.
    fn see_to_started(&mut self) {
        let asked: Vec<_> =
            self.started.iter().map(|(oid, started)| (*oid, started.handle)).collect();
        for (oid, handle) in asked {
            let mut pid = 0;
            // SAFETY: PostgreSQL created the handle for this process.
            let status = unsafe { pg_sys::GetBackgroundWorkerPid(handle, &mut pid) };
            if status != pg_sys::BgwHandleStatus::BGWH_STOPPED {
                continue;
            }
            self.started.remove(&oid);
            // SAFETY: the handle was allocated for this process and is not used any more.
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

    fn start(&mut self, oid: pg_sys::Oid) {
        let name = self.databases.get(&oid).cloned().unwrap_or_default();
        let title = format!("lead_audit worker for database {}", name.to_string_lossy());
        let title = CString::new(title).unwrap_or_default();
        let mut worker =
            super::description(&title, c"lead_audit worker", c"lead_audit_worker_main");
        worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
        worker.bgw_main_arg = pg_sys::Datum::from(oid);
        let mut handle = std::ptr::null_mut();
        // SAFETY: PostgreSQL copies the description. The handle must outlive the transaction.
        let registered = unsafe {
            worker.bgw_notify_pid = pg_sys::MyProcPid;
            pg_sys::CurrentMemoryContext = pg_sys::TopMemoryContext;
            pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle)
        };
        if registered {
            self.started.insert(oid, Started { handle });
            self.retry_at.remove(&oid);
            queue::set_problem(oid, Problem::None);
            if std::mem::take(&mut self.short_of_processes) {
                pgrx::log!("lead_audit: background processes are available again");
            }
            return;
        }
        queue::set_problem(oid, Problem::NoProcess);
        self.retry_at.insert(oid, Instant::now() + AFTER_SHORTAGE);
        if !std::mem::replace(&mut self.short_of_processes, true) {
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                format!(
                    "lead_audit: no background process is left for database {}",
                    name.to_string_lossy()
                ),
                "lead_audit",
            )
            .set_detail(
                "Until there is one, nothing is sealed there, and failed operations wait in the \
                 queue.",
            )
            .set_hint("Raise max_worker_processes in postgresql.conf, and restart the server.")
            .report(PgLogLevel::LOG);
        }
    }

    /// Releases a database that was dropped or lacks the extension. Its queued records go to the
    /// log.
    fn let_go(&mut self, oid: pg_sys::Oid, is_gone: bool) {
        failures::log_rest(oid);
        queue::forget(oid, is_gone);
        self.retry_at.remove(&oid);
    }

    fn time_to_wait(&self) -> Duration {
        let now = Instant::now();
        let next =
            self.retry_at.values().min().copied().unwrap_or(self.next_look).min(self.next_look);
        // A worker wakes the launcher when it starts or ends. A session wakes it when it releases a
        // database that it held.
        let longest =
            if self.unknown.is_empty() { LOOK_AROUND } else { Duration::from_millis(100) };
        next.saturating_duration_since(now).clamp(Duration::from_millis(10), longest)
    }

    /// At a shutdown of the server, waits for the workers to write, and sends the remaining records
    /// to the log. If the workers do not end, only the launcher was terminated, and PostgreSQL
    /// restarts it.
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

fn is_any_worker_alive() -> bool {
    let mut alive = false;
    queue::each_database(|database| alive |= database.worker != 0);
    alive
}

/// Returns name and oid of each database that accepts connections or has a worker.
fn read_databases() -> HashMap<pg_sys::Oid, CString> {
    let mut databases = HashMap::new();
    // SAFETY: a scan of a shared catalog, ended before the catalog is closed; a tuple stays until
    // the next is fetched.
    unsafe {
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(table, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            // An owner can close a database to new sessions while existing sessions continue.
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
