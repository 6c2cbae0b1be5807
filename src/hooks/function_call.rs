//! Contains the hooks on the look-up and on the call of a function. PostgreSQL calls
//! `needs_fmgr_hook` at each look-up of a function. On its usual path, this hook has no guard
//! (`pg_guard`), because a guard would cost time.

use crate::watch;
use pgrx::pg_sys;
use std::cell::Cell;

thread_local! {
    static PREVIOUS_NEEDS: Cell<pg_sys::needs_fmgr_hook_type> = const { Cell::new(None) };
    static PREVIOUS: Cell<pg_sys::fmgr_hook_type> = const { Cell::new(None) };
}

pub fn install() {
    // SAFETY: `install` is called once, while the library is being loaded. The hook functions exist
    // for the life of the process.
    unsafe {
        PREVIOUS_NEEDS.set(pg_sys::needs_fmgr_hook);
        pg_sys::needs_fmgr_hook = Some(needs_fmgr_hook);
        PREVIOUS.set(pg_sys::fmgr_hook);
        pg_sys::fmgr_hook = Some(fmgr_hook);
    }
}

unsafe fn previous_needs(function: pg_sys::Oid) -> bool {
    // SAFETY: PostgreSQL passed the argument.
    PREVIOUS_NEEDS.get().is_some_and(|previous| unsafe { previous(function) })
}

// Unguarded: PostgreSQL calls this hook at each look-up of a function. The hook itself only reads
// one variable of the session. The function `concerns`, which the hook calls next, has the guard
// `pg_guard`.
unsafe extern "C-unwind" fn needs_fmgr_hook(function: pg_sys::Oid) -> bool {
    // SAFETY: PostgreSQL passed the argument.
    unsafe { watch::restricts_calls() && concerns(function) || previous_needs(function) }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn concerns(function: pg_sys::Oid) -> bool {
    watch::concerns_call(function)
}

unsafe extern "C-unwind" fn fmgr_hook(
    event: pg_sys::FmgrHookEventType::Type,
    function: *mut pg_sys::FmgrInfo,
    argument: *mut pg_sys::Datum,
) {
    // SAFETY: PostgreSQL passed the arguments. The code calls the previous hook only for functions
    // that the previous hook has asked for.
    unsafe {
        called(event, (*function).fn_oid);
        if let Some(previous) = PREVIOUS.get()
            && previous_needs((*function).fn_oid)
        {
            previous(event, function, argument);
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn called(event: pg_sys::FmgrHookEventType::Type, function: pg_sys::Oid) {
    match event {
        pg_sys::FmgrHookEventType::FHET_START => watch::call_begins(function),
        pg_sys::FmgrHookEventType::FHET_END => watch::call_ends(function, false),
        _ => watch::call_ends(function, true),
    }
}
