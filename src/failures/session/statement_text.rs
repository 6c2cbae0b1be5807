//! The text and the parameters of statements, as records have them.

use super::statement_scope::StatementScope;
use crate::failures::queue::record::{TEXT_LIMIT, capped_c};
use crate::pg::in_context;
use crate::{entries, settings};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{c_char, c_int};

thread_local! {
    /// The last statement on a watched table that succeeded, and how many there were in this
    /// transaction.
    static LAST_STATEMENT: RefCell<(Option<String>, u32)> = const { RefCell::new((None, 0)) };
}

/// The part of a text that a statement is, for one of several in a string: at most `limit` bytes of
/// it.
///
/// # Safety
/// `text` must be null or a C string.
pub unsafe fn statement_text(
    text: *const c_char,
    location: c_int,
    length: c_int,
    limit: usize,
) -> Option<String> {
    if text.is_null() {
        return None;
    }
    let from = usize::try_from(location).unwrap_or(0);
    let length = usize::try_from(length).ok().filter(|&length| length > 0).unwrap_or(usize::MAX);
    // A little more than the limit, so that it does not depend on white space in front; long texts
    // are not copied for nothing.
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

/// As much of a statement as is wanted, if any.
pub fn bounded(text: &str) -> Option<String> {
    match settings::failures::log_statement_length() {
        0 => None,
        limit => Some(text[..text.floor_char_boundary(limit)].to_owned()),
    }
}

/// As much of a statement's text as is wanted, if any.
///
/// # Safety
/// `text` must be null or a C string.
pub unsafe fn wanted_text(text: *const c_char, location: i32, length: i32) -> Option<String> {
    match settings::failures::log_statement_length() {
        0 => None,
        // SAFETY: as the caller promises.
        limit => unsafe { statement_text(text, location, length, limit) },
    }
}

/// The statement's parameters become text while that is still possible.
///
/// # Safety
/// `parameters` must be null or those of a statement that begins.
pub unsafe fn remember_parameters(parameters: pg_sys::ParamListInfo) {
    // SAFETY: as the caller promises. The text is put where Postgres itself puts it, and lives as
    // long as the parameters.
    unsafe {
        if !settings::failures::log_parameters()
            || parameters.is_null()
            || (*parameters).numParams == 0
            || !(*parameters).paramValuesStr.is_null()
            || (*parameters).paramFetch.is_some()
        {
            return;
        }
        let context = pg_sys::GetMemoryChunkContext(parameters.cast());
        (*parameters).paramValuesStr = in_context(context, || {
            pg_sys::BuildParamLogString(
                parameters,
                std::ptr::null_mut(),
                settings::failures::log_statement_length().max(64) as i32,
            )
        });
    }
}

/// The text of the parameters that `remember_parameters` has kept.
///
/// # Safety
/// `parameters` must be null or live.
pub unsafe fn parameters_text(parameters: pg_sys::ParamListInfo) -> Option<String> {
    // SAFETY: as the caller promises.
    unsafe {
        if !settings::failures::log_parameters() || parameters.is_null() {
            return None;
        }
        capped_c((*parameters).paramValuesStr, TEXT_LIMIT)
    }
}

/// The outermost statement on a watched table has succeeded: what it wrote counts, and its text is
/// kept for an error at commit.
///
/// # Safety
/// The scope must be of the statement that has just ended, whose text is still there.
pub unsafe fn statement_succeeded(scope: &StatementScope) {
    entries::statement_succeeded();
    LAST_STATEMENT.with_borrow_mut(|(last, count)| {
        *count += 1;
        // Of several statements nothing says which a later error is about.
        *last = if *count == 1 {
            // SAFETY: the scope is of the statement that has just ended, whose text is still there.
            unsafe { wanted_text(scope.text, scope.location, scope.length) }
        } else {
            None
        };
    });
}

/// The text of the last statement on a watched table that succeeded, if there was only one in this
/// transaction; and how many there were.
pub fn last_statement() -> (Option<String>, u32) {
    LAST_STATEMENT.with_borrow(Clone::clone)
}

/// The transaction is over.
pub fn transaction_ends() {
    LAST_STATEMENT.with_borrow_mut(|last| *last = (None, 0));
}
