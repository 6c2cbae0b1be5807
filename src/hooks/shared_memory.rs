//! Contains the hooks for shared memory. PostgreSQL calls the hook shmem_request after it has
//! preloaded the library. PostgreSQL calls the hook shmem_startup when the server starts, and again
//! after a crash of a server process.

use crate::failures::queue;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    static PREVIOUS_REQUEST: Cell<pg_sys::shmem_request_hook_type> = const { Cell::new(None) };
    static PREVIOUS_STARTUP: Cell<pg_sys::shmem_startup_hook_type> = const { Cell::new(None) };
}

pub fn install() {
    // SAFETY: `install` is called once, while the library is being loaded. The hook functions exist
    // for the life of the process.
    unsafe {
        PREVIOUS_REQUEST.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP.set(pg_sys::shmem_startup_hook);
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: PostgreSQL calls this hook at the time when it would call the previous hook.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST.get() {
            previous();
        }
    }
    queue::request_lock();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: PostgreSQL calls this hook at the time when it would call the previous hook.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP.get() {
            previous();
        }
    }
    queue::start_up();
}
