//! The launcher: sees to it that each database with the extension has its worker. It is in no
//! database itself, so it is in nobody's way, and reads nothing but pg_database.

use crate::failures;
use crate::failures::queue::{self, MAX_DATABASES, Presence, Problem, WorkerExit};
use crate::pg::{handle_signals, in_transaction, must_stop, wait};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

/// How long after a crash of the launcher Postgres starts it again.
pub const RESTART_SECONDS: i32 = 5;

/// How often pg_database is read although nobody said that a database had come or gone.
const LOOK_AROUND: Duration = Duration::from_secs(60);

/// How long after a worker ended with an error it is started again.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How long to wait for a process when there is none left.
const AFTER_SHORTAGE: Duration = Duration::from_secs(5);

/// How many databases are looked into at a time.
const PROBES: usize = 2;

/// How long the workers have to write what is queued when the server shuts down.
const LAST_WRITES: Duration = Duration::from_secs(10);

struct Started {
    handle: *mut pg_sys::BackgroundWorkerHandle,
}

struct Launcher {
    databases: HashMap<pg_sys::Oid, CString>,
    /// Those that nobody has looked into yet.
    unknown: VecDeque<pg_sys::Oid>,
    /// Workers that were asked for and have not said yet that they are there.
    started: HashMap<pg_sys::Oid, Started>,
    retry_at: HashMap<pg_sys::Oid, Instant>,
    next_look: Instant,
    short_of_processes: bool,
}

/// What Postgres calls in the launcher's process.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn lead_audit_launcher_main(_argument: pg_sys::Datum) {
    handle_signals();
    failures::switch_off();
    // SAFETY: at the beginning of the process. No database and no user: only what all databases
    // share can be read.
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
    // SAFETY: nothing of Rust's is left that would have to be dropped. Postgres starts a process
    // again that ends with 1.
    unsafe { pg_sys::proc_exit(1) }
}

/// Whatever ends the launcher: workers that are there go on, but where there is none, failures go
/// to the server's log.
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

    /// Reads which databases there are. New ones are to be looked into, those that are gone are
    /// forgotten.
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
                "lead_audit: more than {MAX_DATABASES} databases have the extension: there are no workers for the others"
            );
        }
    }

    /// Whether the workers that were asked for have come, or will not.
    fn see_to_started(&mut self) {
        let asked: Vec<_> =
            self.started.iter().map(|(oid, started)| (*oid, started.handle)).collect();
        for (oid, handle) in asked {
            let mut pid = 0;
            // SAFETY: the handle is one that Postgres made for this process.
            let status = unsafe { pg_sys::GetBackgroundWorkerPid(handle, &mut pid) };
            if status != pg_sys::BgwHandleStatus::BGWH_STOPPED {
                continue;
            }
            self.started.remove(&oid);
            // SAFETY: the handle was allocated for us and is not used any more.
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
        // SAFETY: Postgres copies the description. The handle is to live longer than a transaction.
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
                format!("lead_audit: no background process is left for database {}", name.to_string_lossy()),
                "lead_audit",
            )
            .set_detail("Until there is one, nothing is sealed there, and failed operations wait in the queue.")
            .set_hint("Raise max_worker_processes in postgresql.conf, and restart the server.")
            .report(PgLogLevel::LOG);
        }
    }

    /// A database that is gone, or has no extension. What was queued for it goes to the log.
    fn let_go(&mut self, oid: pg_sys::Oid, is_gone: bool) {
        failures::log_rest(oid);
        queue::forget(oid, is_gone);
        self.retry_at.remove(&oid);
    }

    fn time_to_wait(&self) -> Duration {
        let now = Instant::now();
        let next =
            self.retry_at.values().min().copied().unwrap_or(self.next_look).min(self.next_look);
        // A worker that starts or ends wakes us; those that hold a database do when they let it go.
        let longest =
            if self.unknown.is_empty() { LOOK_AROUND } else { Duration::from_millis(100) };
        next.saturating_duration_since(now).clamp(Duration::from_millis(10), longest)
    }

    /// The server shuts down: the workers get time to write, the rest goes to the log. If they do
    /// not end, it was the launcher alone that somebody ended; Postgres starts it again.
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

/// Name and oid of each database that can be connected to, or that has a worker.
fn read_databases() -> HashMap<pg_sys::Oid, CString> {
    let mut databases = HashMap::new();
    // SAFETY: a scan of a shared catalog, ended before it is closed; a tuple stays until the next
    // is fetched.
    unsafe {
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(table, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            // An owner can close a database to new sessions while others are in it.
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
