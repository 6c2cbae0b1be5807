//! The text of the command that is being run, which need not be what the client sent: a function
//! can make a command up and run it.
//!
//! The scope of a command lies on the C stack of the hook and hangs in PostgreSQL's own list of
//! error callbacks, so it goes with the stack when an error jumps over it: nothing has to be put
//! right.

use crate::pg::UtilityCall;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_int, c_void};

/// Where a command is in the text that it is part of.
#[repr(C)]
pub struct CommandScope {
    callback: pg_sys::ErrorContextCallback,
    text: *const c_char,
    location: c_int,
    length: c_int,
}

impl CommandScope {
    /// One that hangs nowhere yet.
    pub const fn new() -> Self {
        CommandScope {
            callback: pg_sys::ErrorContextCallback {
                previous: std::ptr::null_mut(),
                callback: None,
                arg: std::ptr::null_mut(),
            },
            text: std::ptr::null(),
            location: 0,
            length: 0,
        }
    }

    /// Hangs it into the list.
    ///
    /// # Safety
    /// The call must be PostgreSQL's. `close` must be called before this goes, unless an error
    /// jumps over both.
    pub unsafe fn open(&mut self, call: &UtilityCall) {
        // SAFETY: as the caller promises: the statement and its text live as long as the call.
        unsafe {
            self.text = call.text;
            (self.location, self.length) =
                ((*call.statement).stmt_location, (*call.statement).stmt_len);
            self.callback.previous = pg_sys::error_context_stack;
            self.callback.callback = Some(IN_COMMAND);
            self.callback.arg = std::ptr::from_mut(self).cast();
            pg_sys::error_context_stack = &raw mut self.callback;
        }
    }

    /// Takes it off the list.
    ///
    /// # Safety
    /// Where `open` was called.
    pub unsafe fn close(&mut self) {
        // SAFETY: as the caller promises: what was there is still there.
        unsafe { pg_sys::error_context_stack = self.callback.previous }
    }
}

/// Tells a scope from other callbacks, and has nothing to say about an error.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn in_command(_scope: *mut c_void) {}

const IN_COMMAND: unsafe extern "C-unwind" fn(*mut c_void) = in_command;

/// The command that is being run, without what comes before and after it in its text. `None`, if it
/// began before the library was loaded.
pub fn being_run() -> Option<String> {
    // SAFETY: the list holds live callbacks; those with this function are of scopes, which `arg`
    // points to. A text is a C string that lives as long as the command runs.
    unsafe {
        let mut callback = pg_sys::error_context_stack;
        while !callback.is_null()
            && !(*callback)
                .callback
                .is_some_and(|function| std::ptr::fn_addr_eq(function, IN_COMMAND))
        {
            callback = (*callback).previous;
        }
        let command = callback.as_ref()?.arg.cast::<CommandScope>();
        let text = (*command).text;
        if text.is_null() {
            return None;
        }
        let text = CStr::from_ptr(text).to_bytes();
        let text = text.get(usize::try_from((*command).location).unwrap_or(0)..)?;
        let length = usize::try_from((*command).length)
            .ok()
            .filter(|&length| length > 0)
            .unwrap_or(text.len());
        Some(String::from_utf8_lossy(&text[..length.min(text.len())]).trim().to_owned())
    }
}

/// What PostgreSQL would say of where an error came from; `None` in a command of the client's own.
pub fn context() -> Option<String> {
    // SAFETY: returns null or a C string in the current memory context.
    unsafe {
        let context = pg_sys::GetErrorContextStack();
        (!context.is_null())
            .then(|| CStr::from_ptr(context).to_string_lossy().into_owned())
            .filter(|text| !text.is_empty())
    }
}
