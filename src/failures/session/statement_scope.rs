//! Defines the statement scope, which describes a running statement on a watched table. A scope is
//! a local variable of a hook, and is linked into PostgreSQL's list of error callbacks. An error
//! that jumps over the hook also removes the scope from the list of error callbacks, so the hook
//! needs no cleanup.

use super::raised_error::error_names;
use super::watched_relations::{Watched, watched};
use crate::pg::current_subtransaction;
use pgrx::pg_sys;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::OnceLock;

/// A function for PostgreSQL's list of error callbacks.
type ErrorCallback = unsafe extern "C-unwind" fn(*mut c_void);

/// The functions that PostgreSQL calls when an error is raised. The module `hooks` defines these
/// functions, because it contains every hook and callback of the library.
pub struct ErrorCallbacks {
    /// The callback of a statement scope. The argument of this callback is the scope. A callback in
    /// PostgreSQL's list belongs to a scope if its function is `in_statement`.
    pub in_statement: ErrorCallback,
    /// The callback at the bottom of PostgreSQL's list of error callbacks. The argument of this
    /// callback is null.
    pub outside_of_statements: ErrorCallback,
}

static CALLBACKS: OnceLock<ErrorCallbacks> = OnceLock::new();

/// Sets the error callbacks. The function is called while the library is being preloaded. Without
/// error callbacks, no scope is opened.
pub fn set_error_callbacks(callbacks: ErrorCallbacks) {
    CALLBACKS.get_or_init(|| callbacks);
}

/// Returns the error callbacks, if the library is preloaded.
pub fn error_callbacks() -> Option<&'static ErrorCallbacks> {
    CALLBACKS.get()
}

/// The phase of a running statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The executor is not processing rows. The statement is being planned or started, or is COPY
    /// or TRUNCATE.
    Outside,
    /// The executor is producing and writing rows.
    Run,
    /// The executor is firing AFTER triggers.
    Finish,
}

/// A watched table that the statement writes to.
#[derive(Clone, Copy)]
pub struct Target {
    pub watched: *const Watched,
    pub operation: &'static str,
}

/// The maximum number of watched tables that a scope has. A statement with WITH can write to
/// several tables.
const TARGETS: usize = 4;

/// The scope of one statement. The type has no destructor, because an error would jump over the
/// destructor.
#[repr(C)]
pub struct StatementScope {
    callback: pg_sys::ErrorContextCallback,
    targets: [Target; TARGETS],
    count: usize,
    pub phase: Phase,
    /// The query that the executor is processing, or null.
    pub query: *mut pg_sys::QueryDesc,
    pub text: *const c_char,
    pub location: c_int,
    pub length: c_int,
    pub parameters: pg_sys::ParamListInfo,
    /// The nesting depth of triggers at the time when the executor began to process the statement's
    /// rows.
    pub trigger_depth: i32,
    /// The subtransaction that is rolled back if the statement fails.
    pub subtransaction: pg_sys::SubTransactionId,
    /// Whether no other scope of the session was open when this scope was opened.
    is_outermost: bool,
}

impl StatementScope {
    /// Returns a scope that is not open yet.
    pub const fn new() -> Self {
        StatementScope {
            callback: pg_sys::ErrorContextCallback {
                previous: std::ptr::null_mut(),
                callback: None,
                arg: std::ptr::null_mut(),
            },
            targets: [Target { watched: std::ptr::null(), operation: "" }; TARGETS],
            count: 0,
            phase: Phase::Outside,
            query: std::ptr::null_mut(),
            text: std::ptr::null(),
            location: 0,
            length: 0,
            parameters: std::ptr::null_mut(),
            trigger_depth: 0,
            subtransaction: 0,
            is_outermost: false,
        }
    }

    /// Returns whether the statement writes to a watched table. The scope is opened only if the
    /// statement writes to a watched table.
    pub fn has_target(&self) -> bool {
        self.count > 0
    }

    /// Returns the watched tables that the statement writes to. An open scope has at least one
    /// watched table.
    pub fn targets(&self) -> &[Target] {
        &self.targets[..self.count]
    }

    /// Returns the watched table of this scope that the error names. If the error names no watched
    /// table of this scope, returns the first watched table of the scope.
    ///
    /// # Safety
    /// The error's names must be C strings or null.
    pub unsafe fn target_of(&self, error: &pg_sys::ErrorData) -> Option<&Target> {
        let is_named = |target: &&Target| {
            // SAFETY: a target lives until the transaction ends.
            let table = unsafe { &(*target.watched).table };
            // SAFETY: the error's names are C strings or null (see # Safety).
            CString::new(&*table.name)
                .is_ok_and(|name| unsafe { error_names(error, &table.schema, &name) })
        };
        self.targets().iter().find(is_named).or(self.targets().first())
    }

    /// Returns whether no other scope of the session was open when this scope was opened.
    pub fn is_outermost(&self) -> bool {
        self.is_outermost
    }

    /// Adds a table to the scope, if the table is watched and the scope has fewer than TARGETS
    /// tables.
    pub fn add(&mut self, relation: pg_sys::Oid, operation: &'static str) {
        let watched = watched(relation);
        if !watched.is_null() && self.count < TARGETS {
            self.targets[self.count] = Target { watched, operation };
            self.count += 1;
        }
    }

    /// Opens the scope. Links the scope into PostgreSQL's list of error callbacks.
    ///
    /// # Safety
    /// The scope must not move until `leave` is called, or an error jumps over the hook that opened
    /// the scope.
    pub unsafe fn enter(&mut self) {
        let Some(callbacks) = error_callbacks() else { return };
        self.is_outermost = innermost_scope().is_null();
        self.subtransaction = current_subtransaction();
        self.callback.callback = Some(callbacks.in_statement);
        self.callback.arg = std::ptr::from_mut(self).cast();
        // SAFETY: the scope contains the callback, and does not move while the callback is in the
        // list (see # Safety).
        unsafe {
            self.callback.previous = pg_sys::error_context_stack;
            pg_sys::error_context_stack = &raw mut self.callback;
        }
    }

    /// Closes the scope, if the scope was opened.
    ///
    /// # Safety
    /// All callbacks that were added to the list of error callbacks after this scope must have been
    /// removed from the list.
    pub unsafe fn leave(&mut self) {
        if self.callback.callback.take().is_some() {
            // SAFETY: the previous callback belongs to a caller of the hook that opened this scope,
            // so the previous callback is still live.
            unsafe { pg_sys::error_context_stack = self.callback.previous }
        }
    }
}

/// Returns the innermost open scope, or null if no scope is open.
pub fn innermost_scope() -> *mut StatementScope {
    let Some(callbacks) = error_callbacks() else { return std::ptr::null_mut() };
    // SAFETY: all callbacks in the list of error callbacks are live. A callback with the function
    // `in_statement` belongs to a scope, and its `arg` points to the scope.
    unsafe {
        let mut callback = pg_sys::error_context_stack;
        while !callback.is_null() {
            if (*callback)
                .callback
                .is_some_and(|function| std::ptr::fn_addr_eq(function, callbacks.in_statement))
            {
                return (*callback).arg.cast();
            }
            callback = (*callback).previous;
        }
        std::ptr::null_mut()
    }
}
