//! Which statement on a watched table is under way. A scope lies on the C stack of the hook that
//! made it and hangs in PostgreSQL's own list of error callbacks, so it goes with the stack when an
//! error jumps over it: nothing has to be put right.

use super::raised_error::error_names;
use super::watched_relations::{Watched, watched};
use crate::pg::current_subtransaction;
use pgrx::pg_sys;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::OnceLock;

/// A function for PostgreSQL's list of error callbacks.
type ErrorCallback = unsafe extern "C-unwind" fn(*mut c_void);

/// What PostgreSQL calls when an error is raised. The functions are entry points, so they are in
/// `hooks`.
pub struct ErrorCallbacks {
    /// Belongs to a scope, which is its argument, and tells scopes from others in the list.
    pub in_statement: ErrorCallback,
    /// Is at the bottom of the list, without an argument.
    pub outside_of_statements: ErrorCallback,
}

static CALLBACKS: OnceLock<ErrorCallbacks> = OnceLock::new();

/// Sets the callbacks, while the library is preloaded. Without them no scope is opened.
pub fn set_error_callbacks(callbacks: ErrorCallbacks) {
    CALLBACKS.get_or_init(|| callbacks);
}

/// The callbacks, where the library is preloaded.
pub fn error_callbacks() -> Option<&'static ErrorCallbacks> {
    CALLBACKS.get()
}

/// How far the executor is with the statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not in the executor: planning, COPY, TRUNCATE, or checking rights.
    Outside,
    /// Producing and writing rows.
    Run,
    /// Firing AFTER triggers.
    Finish,
}

/// A watched table that the statement writes to.
#[derive(Clone, Copy)]
pub struct Target {
    pub watched: *const Watched,
    pub operation: &'static str,
}

/// Most watched tables of one statement (with WITH it can have several).
const TARGETS: usize = 4;

/// One statement. It has nothing to drop, since errors jump over it.
#[repr(C)]
pub struct StatementScope {
    callback: pg_sys::ErrorContextCallback,
    targets: [Target; TARGETS],
    count: usize,
    pub phase: Phase,
    /// Where the executor has it, or null.
    pub query: *mut pg_sys::QueryDesc,
    pub text: *const c_char,
    pub location: c_int,
    pub length: c_int,
    pub parameters: pg_sys::ParamListInfo,
    /// How deep triggers were nested when the executor began with the rows.
    pub trigger_depth: i32,
    /// The subtransaction that goes if the statement fails.
    pub subtransaction: pg_sys::SubTransactionId,
    /// Whether no scope is around this one.
    is_outermost: bool,
}

impl StatementScope {
    /// One that is not open yet.
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

    /// Whether the statement writes to any watched table, so that its scope is to be opened.
    pub fn has_target(&self) -> bool {
        self.count > 0
    }

    /// The watched tables, at least one of a scope that is open.
    pub fn targets(&self) -> &[Target] {
        &self.targets[..self.count]
    }

    /// The table that an error of the statement is about, as far as it says.
    ///
    /// # Safety
    /// The error's names must be C strings or null.
    pub unsafe fn target_of(&self, error: &pg_sys::ErrorData) -> Option<&Target> {
        let is_named = |target: &&Target| {
            // SAFETY: a target stays until the transaction ends.
            let table = unsafe { &(*target.watched).table };
            // SAFETY: as the caller promises.
            CString::new(&*table.name)
                .is_ok_and(|name| unsafe { error_names(error, &table.schema, &name) })
        };
        self.targets().iter().find(is_named).or(self.targets().first())
    }

    /// Whether no scope is around this open one.
    pub fn is_outermost(&self) -> bool {
        self.is_outermost
    }

    /// Adds a table, if it is watched and there is room.
    pub fn add(&mut self, relation: pg_sys::Oid, operation: &'static str) {
        let watched = watched(relation);
        if !watched.is_null() && self.count < TARGETS {
            self.targets[self.count] = Target { watched, operation };
            self.count += 1;
        }
    }

    /// Opens it: it hangs in the list from now on.
    ///
    /// # Safety
    /// The scope must stay where it is until `leave` is called or an error jumps over it.
    pub unsafe fn enter(&mut self) {
        let Some(callbacks) = error_callbacks() else { return };
        self.is_outermost = innermost_scope().is_null();
        self.subtransaction = current_subtransaction();
        self.callback.callback = Some(callbacks.in_statement);
        self.callback.arg = std::ptr::from_mut(self).cast();
        // SAFETY: the list takes a callback that stays, as the caller promises.
        unsafe {
            self.callback.previous = pg_sys::error_context_stack;
            pg_sys::error_context_stack = &raw mut self.callback;
        }
    }

    /// Closes it, if it was opened.
    ///
    /// # Safety
    /// Whatever was put in front of it in the list must have been taken off.
    pub unsafe fn leave(&mut self) {
        if self.callback.callback.take().is_some() {
            // SAFETY: what was in the list before is still there, since the stack below this scope
            // is.
            unsafe { pg_sys::error_context_stack = self.callback.previous }
        }
    }
}

/// The innermost statement that is under way, or null.
pub fn innermost_scope() -> *mut StatementScope {
    let Some(callbacks) = error_callbacks() else { return std::ptr::null_mut() };
    // SAFETY: the list holds live callbacks; those with this function are of scopes, which `arg`
    // points to.
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
