//! The background processes of a preloaded library: a launcher without a database, and a worker in
//! each database that has the extension.
//!
//! The launcher learns of databases from the sessions that create or use them
//! (`failures::utility_commands`), so it does not poll. It probes each database once after the
//! server starts. A database without the extension costs a process only during the probe. On a
//! standby no process runs until promotion.

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
    // SAFETY: called while the server preloads libraries, as PostgreSQL requires; PostgreSQL copies
    // the description.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut launcher) };
}

/// Builds the description that launcher and workers share.
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

/// Copies as much of the text as fits, with a NUL at its end.
fn copy<const N: usize>(field: &mut [c_char; N], text: &CStr) {
    let text = text.to_string_lossy();
    let length = text.floor_char_boundary(N - 1);
    for (to, &from) in field.iter_mut().zip(&text.as_bytes()[..length]) {
        *to = from.cast_signed();
    }
}
