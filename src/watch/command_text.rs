//! Finds the text of the running DDL command. The text of the running command can differ from the
//! client's text, because a function can build a command and run it.
//!
//! A `CommandScope` lies on the C stack of the hook that runs the command. A `CommandScope` is also
//! linked into PostgreSQL's list of error callbacks. An error removes the scope from the stack and
//! from the list at the same time, so no clean-up is needed.

use crate::pg::UtilityCall;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_int, c_void};

/// A running command: a text that contains the command, and the position of the command in this
/// text.
#[repr(C)]
pub struct CommandScope {
    callback: pg_sys::ErrorContextCallback,
    text: *const c_char,
    location: c_int,
    length: c_int,
}

impl CommandScope {
    /// Returns a scope that is not linked yet.
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

    /// Links the scope into PostgreSQL's list of error callbacks.
    ///
    /// # Safety
    /// PostgreSQL must have made the call of the utility hook that `call` describes. The function
    /// that called `open` must call `close` before it drops the scope. If an error unwinds the
    /// function, `close` is not needed.
    pub unsafe fn open(&mut self, call: &UtilityCall) {
        // SAFETY: PostgreSQL made the call (see # Safety), so the statement and its text live
        // longer than the scope.
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

    /// Unlinks the scope from PostgreSQL's list of error callbacks.
    ///
    /// # Safety
    /// `close` must be called in the function that called `open`.
    pub unsafe fn close(&mut self) {
        // SAFETY: `open` was called in the same function, so the previous callback is still alive.
        unsafe { pg_sys::error_context_stack = self.callback.previous }
    }
}

/// Marks a scope in PostgreSQL's list of error callbacks. This callback adds no context to an
/// error.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn in_command(_scope: *mut c_void) {}

const IN_COMMAND: unsafe extern "C-unwind" fn(*mut c_void) = in_command;

/// Returns the text of the running command. If the query string contains further commands, the
/// result does not include them. Returns `None` if the command began before the library was loaded.
pub fn being_run() -> Option<String> {
    // SAFETY: all callbacks in PostgreSQL's list are alive. A callback with the function
    // `in_command` belongs to a scope, and its `arg` points to this scope. The text of a scope is a
    // C string that lives as long as the command runs.
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

/// Returns the text that PostgreSQL would now report as the CONTEXT of an error. Returns `None` if
/// there is no CONTEXT, because the client itself sent the running command.
pub fn context() -> Option<String> {
    // SAFETY: GetErrorContextStack() returns null or a C string in the current memory context.
    unsafe {
        let context = pg_sys::GetErrorContextStack();
        (!context.is_null())
            .then(|| CStr::from_ptr(context).to_string_lossy().into_owned())
            .filter(|text| !text.is_empty())
    }
}
