//! Which statement on a watched table is under way. A frame lies on the C stack of the hook that made it and hangs in
//! PostgreSQL's own list of error callbacks, so it goes with the stack when an error jumps over it: nothing has to be put right.

use super::raised;
use super::watched::{Watched, watched};
use crate::server::current_subtransaction;
use pgrx::pg_sys;
use std::ffi::{c_char, c_int, c_void};

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

/// One statement.
#[repr(C)]
pub struct Frame {
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
}

impl Frame {
    /// One that hangs nowhere yet.
    pub const fn new() -> Self {
        Frame {
            callback: pg_sys::ErrorContextCallback { previous: std::ptr::null_mut(), callback: None, arg: std::ptr::null_mut() },
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
        }
    }

    /// Whether the statement writes to any watched table, so that it gets a frame.
    pub fn is_there(&self) -> bool {
        self.count > 0
    }

    /// The watched tables, at least one where there is a frame.
    pub fn targets(&self) -> &[Target] {
        &self.targets[..self.count]
    }

    /// Adds a table, if it is watched and there is room.
    pub fn add(&mut self, relation: pg_sys::Oid, operation: &'static str) {
        let watched = watched(relation);
        if !watched.is_null() && self.count < TARGETS {
            self.targets[self.count] = Target { watched, operation };
            self.count += 1;
        }
    }

    /// Hangs the frame into the list. True if there is no frame around it.
    ///
    /// # Safety
    /// `leave` must be called before the frame goes, unless an error jumps over both.
    pub unsafe fn enter(&mut self) -> bool {
        // SAFETY: as the caller promises.
        unsafe {
            let outermost = innermost().is_null();
            self.subtransaction = current_subtransaction();
            self.callback.previous = pg_sys::error_context_stack;
            self.callback.callback = Some(raised::in_statement);
            self.callback.arg = std::ptr::from_mut(self).cast();
            pg_sys::error_context_stack = &raw mut self.callback;
            outermost
        }
    }

    /// Takes it off the list.
    ///
    /// # Safety
    /// Where `enter` was called.
    pub unsafe fn leave(&mut self) {
        // SAFETY: as the caller promises: what was there is still there.
        unsafe { pg_sys::error_context_stack = self.callback.previous }
    }
}

/// The innermost statement that is under way, or null.
pub fn innermost() -> *mut Frame {
    // SAFETY: the list holds live callbacks; those with this function are of frames, which `arg` points to.
    unsafe {
        let mut callback = pg_sys::error_context_stack;
        while !callback.is_null() {
            if (*callback).callback.is_some_and(|function| std::ptr::fn_addr_eq(function, IN_STATEMENT)) {
                return (*callback).arg.cast();
            }
            callback = (*callback).previous;
        }
        std::ptr::null_mut()
    }
}

const IN_STATEMENT: unsafe extern "C-unwind" fn(*mut c_void) = raised::in_statement;

/// The part of a text that a statement is, for one of several in a string: at most `limit` bytes of it.
///
/// # Safety
/// `text` must be null or a C string.
pub unsafe fn statement_text(text: *const c_char, location: c_int, length: c_int, limit: usize) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let from = usize::try_from(location).unwrap_or(0);
    let length = usize::try_from(length).ok().filter(|&length| length > 0).unwrap_or(usize::MAX);
    // A little more than the limit, so that it does not depend on white space in front; long texts are not copied for nothing.
    const WHITE_SPACE: usize = 256;
    let wanted = length.min(limit.saturating_add(WHITE_SPACE));
    // SAFETY: as the caller promises; no more is looked at than there is.
    let part = unsafe {
        let there = libc::strnlen(text, from.saturating_add(wanted));
        let from = from.min(there);
        std::slice::from_raw_parts(text.cast::<u8>().add(from), there - from)
    };
    let part = String::from_utf8_lossy(part);
    let part = part.trim();
    Some(part[..part.floor_char_boundary(limit)].to_owned())
}
