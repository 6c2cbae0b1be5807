//! Contains the hook on client authentication, which PostgreSQL calls when a session begins. The
//! hook sets up the error callback, because the session's first statement can fail before
//! PostgreSQL calls any other hook.

use crate::failures;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_int;

type ClientAuthentication = unsafe extern "C-unwind" fn(port: *mut pg_sys::Port, status: c_int);

unsafe extern "C-unwind" {
    // pgrx has no binding for this variable, which libpq/auth.h declares.
    static mut ClientAuthentication_hook: Option<ClientAuthentication>;
}

thread_local! {
    static PREVIOUS: Cell<Option<ClientAuthentication>> = const { Cell::new(None) };
}

pub fn install() {
    // SAFETY: `install` is called once, while the library is being loaded. The hook functions exist
    // for the life of the process.
    unsafe {
        PREVIOUS.set(ClientAuthentication_hook);
        ClientAuthentication_hook = Some(client_authentication);
    }
}

unsafe extern "C-unwind" fn client_authentication(port: *mut pg_sys::Port, status: c_int) {
    // SAFETY: PostgreSQL passed the arguments.
    unsafe {
        if let Some(previous) = PREVIOUS.get() {
            previous(port, status);
        }
    }
    after();
}

#[pgrx::pg_guard]
extern "C-unwind" fn after() {
    failures::session_begins();
}
