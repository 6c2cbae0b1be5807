//! Contains the main loop of a worker. The worker runs as the bootstrap superuser with a fixed
//! search_path.

use super::tasks::{self, Schedule};
use crate::failures;
use crate::failures::queue::{self, Presence, Stage, WorkerExit};
use crate::pg::{handle_signals, in_extension_transaction, must_stop, set_signal_handler, wait};
use crate::seal;
use crate::settings;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

/// The maximum time that the worker sleeps. After each sleep, the worker checks whether the
/// extension still exists.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The maximum time that the worker waits at a shutdown for sessions that may still queue records.
const LAST_SESSIONS: Duration = Duration::from_secs(3);

thread_local! {
    static DATABASE: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
}

/// Runs a worker. PostgreSQL calls this function as the main function of the worker's process. The
/// argument is the oid of the worker's database.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn lead_audit_worker_main(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    DATABASE.set(database);
    handle_signals();
    failures::switch_off();
    seal::publish_by_itself();
    let reported = queue::find(database, |place| {
        if place.last_exit == WorkerExit::GaveWay { place.reported } else { 0 }
    });
    if !queue::adopt(database) {
        return; // The database has another worker, or the queue's list is full.
    }
    on_crash_of_another(queue::progress_of(database));
    // SAFETY: the process has just started, and is not connected yet. InvalidOid in place of a role
    // means the bootstrap superuser.
    unsafe {
        pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0));
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            database,
            pg_sys::InvalidOid,
            pg_sys::BGWORKER_BYPASS_ALLOWCONN,
        );
        // The owner of the database can have set session_authorization for the database.
        // SetSessionAuthorization() restores the authenticated role.
        pg_sys::SetSessionAuthorization(pg_sys::GetAuthenticatedUserId(), true);
        pg_sys::pgstat_report_appname(c"lead_audit worker".as_ptr());
    }
    queue::update(database, |place| place.stage = Stage::Connected);
    fix_settings();
    if is_absent() {
        return;
    }
    queue::found(database);
    if let Err(error) =
        in_extension_transaction(c"reading the names of watched tables", failures::load_names)
    {
        pgrx::log!("lead_audit: could not read the names of watched tables: {error}");
    }
    let mut schedules = tasks::schedules(reported.unwrap_or(0));
    let (mut must_restart, mut has_worked) = (false, false);
    // If `must_leave` is true, the worker ends only after it has run all tasks once. If the worker
    // ended earlier, repeated requests to end could prevent all work in the database.
    while !(must_stop() || has_worked && must_leave()) {
        let sleep = schedules
            .iter()
            .map(Schedule::time_left)
            .min()
            .unwrap_or(LONGEST_SLEEP)
            .min(LONGEST_SLEEP);
        if sleep > Duration::ZERO {
            let woken = wait(sleep);
            if must_stop() || must_leave() {
                break;
            }
            schedules.iter_mut().for_each(|schedule| schedule.wake(woken));
        } else {
            pgrx::check_for_interrupts!();
        }
        if is_absent() {
            return;
        }
        if queue::find(database, |place| place.presence != Presence::Present).unwrap_or(false) {
            queue::found(database);
        }
        // If ALTER DATABASE has reset a setting for sealing, only a new process can determine the
        // value of the setting. After such a reset, this worker ends, and the launcher starts a new
        // worker for the database.
        must_restart = settings::was_reset();
        if must_restart {
            break;
        }
        let missing_calls =
            schedules.iter_mut().map(Schedule::run_if_due).filter(|&may_miss| may_miss).count();
        if missing_calls > 0 {
            schedules.iter_mut().for_each(|schedule| schedule.wake(false));
        }
        if !has_worked {
            queue::update(database, |place| place.stage = Stage::HasWorked);
        }
        has_worked = true;
    }
    if must_stop() && !is_held() && !must_restart {
        write_rest(&mut schedules);
    }
    queue::update(database, |place| {
        place.reported = tasks::reported(&schedules);
        place.last_exit = if place.gives_way { WorkerExit::GaveWay } else { WorkerExit::Stopped };
    });
}

/// Returns whether a session holds the database. A session holds a database while it runs a command
/// that fails if a worker is connected to the database, for example DROP DATABASE.
fn is_held() -> bool {
    queue::find(DATABASE.get(), |place| place.held_by != 0).unwrap_or(true)
}

/// Returns whether the worker has to end because another database waits for a background process,
/// or because a session holds the database.
fn must_leave() -> bool {
    queue::find(DATABASE.get(), |place| place.held_by != 0 || place.gives_way).unwrap_or(true)
}

/// Returns whether the extension is absent. If the extension is absent, the function notes the
/// absence in the queue.
fn is_absent() -> bool {
    loop {
        let generation = queue::generation();
        if extension_is_here() {
            return false;
        }
        if queue::absent(DATABASE.get(), generation) {
            return true;
        }
    }
}

/// Notes in the queue that the database has no worker, and wakes the launcher. PostgreSQL calls
/// this function when the worker ends, for any reason.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _argument: pg_sys::Datum) {
    if postmaster_is_gone() {
        forget_progress();
    }
    queue::update(DATABASE.get(), |place| {
        (place.worker, place.latch, place.looks_again) = (0, 0, false);
    });
    queue::wake_launcher(false);
}

/// Returns whether the postmaster has ended. The postmaster has opened one end of a pipe, and the
/// kernel closes this end when the postmaster ends. PostgreSQL itself uses this pipe to find out
/// whether the postmaster has ended. The function does not examine the id of the parent process,
/// because the kernel changes this id only after it has closed the pipe.
fn postmaster_is_gone() -> bool {
    // SAFETY: the code only reads a variable that does not change after the start of the process.
    let pipe = unsafe { pg_sys::postmaster_alive_fds[pg_sys::POSTMASTER_FD_WATCH as usize] };
    let mut state = libc::pollfd { fd: pipe, events: libc::POLLIN, revents: 0 };
    // SAFETY: the system call gets one valid struct, and does not wait.
    unsafe { libc::poll(&mut state, 1, 0) == 1 }
}

/// The progress of this worker, which the handler of SIGQUIT clears. The pointer is null until the
/// worker has installed the handler.
static PROGRESS: AtomicPtr<queue::Progress> = AtomicPtr::new(std::ptr::null_mut());

/// Installs a handler for SIGQUIT, which the postmaster sends after the crash of another process.
/// The handler clears `progress`, because the records that this worker is processing did not cause
/// the crash.
fn on_crash_of_another(progress: Option<&'static queue::Progress>) {
    let progress =
        progress.map_or(std::ptr::null_mut(), |progress| std::ptr::from_ref(progress).cast_mut());
    PROGRESS.store(progress, Ordering::Release);
    // SAFETY: the handler has the signature that PostgreSQL requires and makes only
    // async-signal-safe calls.
    unsafe { set_signal_handler(libc::SIGQUIT, Some(crash_exit)) };
}

/// Clears the worker's progress, because no record has caused the end of the worker.
fn forget_progress() {
    // SAFETY: the pointer is null, or points into memory that stays mapped as long as the process
    // lives. All fields of Progress are atomics.
    if let Some(progress) = unsafe { PROGRESS.load(Ordering::Acquire).as_ref() } {
        progress.set(0, 0);
    }
}

/// Handles SIGQUIT. Clears the progress, and ends the process in the same way as
/// SignalHandlerForCrashExit().
// Unguarded: pgrx's guard must not run in a signal handler. The handler stores two numbers and ends
// the process.
unsafe extern "C-unwind" fn crash_exit(_signal: i32) {
    forget_progress();
    // SAFETY: the call ends the process, and runs no other code in it.
    unsafe { libc::_exit(2) }
}

/// Sets fixed values for settings that ALTER DATABASE or ALTER ROLE can have changed. The worker's
/// transactions must not depend on changes of these settings.
fn fix_settings() {
    const FIXED: &[(&CStr, &CStr)] = &[
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"default_transaction_read_only", c"off"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_deferrable", c"off"),
        (c"transform_null_equals", c"off"),
        (c"standard_conforming_strings", c"on"),
        (c"array_nulls", c"on"),
        (c"session_replication_role", c"origin"),
        (c"row_security", c"off"),
        // The owner of the database can set `role` and `exit_on_error` for the database.
        (c"role", c"none"),
        (c"exit_on_error", c"off"),
        #[cfg(any(feature = "pg17", feature = "pg18"))] // PostgreSQL 17 added transaction_timeout.
        (c"transaction_timeout", c"0"),
        (c"statement_timeout", c"0"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"lock_timeout", c"10s"),
        // If synchronous_commit were "off", a record could be removed from the queue before its
        // entry is on disk. If synchronous_commit were "on", a standby that is not connected could
        // delay the commit.
        (c"synchronous_commit", c"local"),
        (c"lead_audit.on_error", c"abort"),
    ];
    // Only some minor versions of PostgreSQL have these settings.
    const FIXED_IF_PRESENT: &[(&CStr, &CStr)] = &[(c"restrict_nonsystem_relation_kind", c"")];
    // SAFETY: the name is a C string, and the function returns null for a setting that does not
    // exist.
    let is_there =
        |name: &CStr| unsafe { !pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() };
    let if_there = FIXED_IF_PRESENT.iter().filter(|(name, _)| is_there(name));
    for (name, value) in FIXED.iter().chain(if_there) {
        // SAFETY: the name and the value are C strings, the setting exists, and a process of a
        // superuser may set it.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

fn extension_is_here() -> bool {
    match in_extension_transaction(c"looking for the extension", || ()) {
        Ok(found) => found.is_some(),
        Err(error) => {
            pgrx::log!("lead_audit: could not look for the extension: {error}");
            true
        }
    }
}

/// Runs all tasks a last time. The worker calls this function when the worker is told to end,
/// usually at a shutdown of the server. Sessions that end during the shutdown may still queue
/// records. The worker waits briefly until all sessions of the database have ended, and then writes
/// their records.
fn write_rest(schedules: &mut [Schedule]) {
    schedules.iter_mut().for_each(Schedule::run_last);
    let deadline = Instant::now() + LAST_SESSIONS;
    // SAFETY: the call counts entries of the process array.
    while unsafe { pg_sys::CountDBConnections(DATABASE.get()) } > 0 && Instant::now() < deadline {
        wait(Duration::from_millis(10));
        schedules.iter_mut().for_each(Schedule::run_last);
    }
    schedules.iter_mut().for_each(Schedule::run_last);
}
