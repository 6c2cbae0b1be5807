//! Contains the background processes of a preloaded library: a launcher, which connects to no
//! database, and a worker in each database that has the extension.
//!
//! A session that creates or changes a database, or creates the extension, wakes the launcher
//! (`failures::utility_commands`). Without a wake-up, the launcher reads pg_database once a minute.
//! After the start of the server, the launcher probes each database once. To probe a database, the
//! launcher starts a worker in the database, and the worker looks for the extension. If the worker
//! does not find the extension, it ends. On a standby, neither the launcher nor a worker runs until
//! the standby is promoted.

mod launcher;
mod tasks;
mod worker_main;

use pgrx::pg_sys;
use std::ffi::{CStr, c_char};

/// Registers the launcher. _PG_init() calls this function while the server preloads the library.
pub fn register_launcher() {
    let mut launcher =
        description(c"lead_audit launcher", c"lead_audit launcher", c"lead_audit_launcher_main");
    launcher.bgw_restart_time = launcher::RESTART_SECONDS;
    // SAFETY: the server is preloading libraries, as PostgreSQL requires for this call. PostgreSQL
    // copies the description of the launcher.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut launcher) };
}

/// Returns the description of a background process, with the values that are the same for the
/// launcher and the workers.
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

/// Copies `text` into `field`, and cuts the text if it is too long. All bytes of `field` are zero
/// before the call, so a NUL byte follows the copy.
fn copy<const N: usize>(field: &mut [c_char; N], text: &CStr) {
    let text = text.to_string_lossy();
    let length = text.floor_char_boundary(N - 1);
    for (to, &from) in field.iter_mut().zip(&text.as_bytes()[..length]) {
        *to = from.cast_signed();
    }
}
