//! The background processes, where the library is preloaded: a launcher, which is in no database,
//! and a worker in each database that has the extension.
//!
//! The launcher learns of databases from the sessions that make or use them
//! (`failures::utility_commands`), so none is polled. It looks into each database once after the
//! server's start; one without the extension costs a process for that moment only. On a standby
//! nothing of this runs until it is promoted.

mod launcher;
mod tasks;
mod worker_main;

use pgrx::pg_sys;
use std::ffi::{CStr, c_char};

/// Registers the launcher, while the server is preloading the library.
pub fn register_launcher() {
    let mut launcher =
        description(c"lead_audit launcher", c"lead_audit launcher", c"lead_audit_launcher_main");
    launcher.bgw_restart_time = launcher::RESTART_SECONDS;
    // SAFETY: called where Postgres allows it; it copies the description.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut launcher) };
}

/// What launcher and workers have in common.
fn description(name: &CStr, kind: &CStr, function: &CStr) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION)
            as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        ..pg_sys::BackgroundWorker::default()
    };
    copy(&mut worker.bgw_name, name);
    copy(&mut worker.bgw_type, kind);
    copy(&mut worker.bgw_library_name, c"lead_audit");
    copy(&mut worker.bgw_function_name, function);
    worker
}

/// As much of a text as fits, with a NUL at its end.
fn copy<const N: usize>(field: &mut [c_char; N], text: &CStr) {
    let text = text.to_string_lossy();
    let length = text.floor_char_boundary(N - 1);
    for (to, &from) in field.iter_mut().zip(&text.as_bytes()[..length]) {
        *to = from.cast_signed();
    }
}
