//! The text and the parameters of a statement, as records contain them.

use super::statement_scope::StatementScope;
use crate::failures::queue::record::{TEXT_LIMIT, capped_c};
use crate::pg::in_context;
use crate::{entries, settings};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{c_char, c_int};

thread_local! {
    /// The text of the last successful statement on a watched table, and the number of such
    /// statements in this transaction.
    static LAST_STATEMENT: RefCell<(Option<String>, u32)> = const { RefCell::new((None, 0)) };
}

/// The statement's part of a query string, which can contain several statements. At most `limit`
/// bytes.
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
    // A little more than the limit, so that white space in front does not count. Long texts are not
    // copied in full.
    const WHITE_SPACE: usize = 256;
    let wanted = length.min(limit.saturating_add(WHITE_SPACE));
    // SAFETY: `text` is a C string (see # Safety), and is not read beyond its end.
    let part = unsafe {
        let there = libc::strnlen(text, from.saturating_add(wanted));
        let from = from.min(there);
        std::slice::from_raw_parts(text.cast::<u8>().add(from), there - from)
    };
    let part = String::from_utf8_lossy(part);
    let part = part.trim();
    Some(part[..part.floor_char_boundary(limit)].to_owned())
}

/// The text, cut to the configured length. `None` if that is 0.
pub fn bounded(text: &str) -> Option<String> {
    match settings::failures::log_statement_length() {
        0 => None,
        limit => Some(text[..text.floor_char_boundary(limit)].to_owned()),
    }
}

/// The statement's part of a query string, cut to the configured length. `None` if that is 0.
///
/// # Safety
/// `text` must be null or a C string.
pub unsafe fn wanted_text(text: *const c_char, location: i32, length: i32) -> Option<String> {
    match settings::failures::log_statement_length() {
        0 => None,
        // SAFETY: `text` is null or a C string (see # Safety).
        limit => unsafe { statement_text(text, location, length, limit) },
    }
}

/// Converts the parameters to text in advance, since that is impossible during an error.
///
/// # Safety
/// `parameters` must be null or those of a statement that is about to start.
pub unsafe fn remember_parameters(parameters: pg_sys::ParamListInfo) {
    // SAFETY: the parameters are live (see # Safety). The text is stored where PostgreSQL itself
    // stores it, and lives as long as the parameters.
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

/// The text of the parameters that `remember_parameters` stored.
///
/// # Safety
/// `parameters` must be null or live.
pub unsafe fn parameters_text(parameters: pg_sys::ParamListInfo) -> Option<String> {
    // SAFETY: the parameters are null or live (see # Safety).
    unsafe {
        if !settings::failures::log_parameters() || parameters.is_null() {
            return None;
        }
        capped_c((*parameters).paramValuesStr, TEXT_LIMIT)
    }
}

/// Called when the outermost statement on a watched table has succeeded. Its rows now count, and
/// its text is kept for an error at commit.
///
/// # Safety
/// The scope must be of the statement that has just ended, whose text must still be live.
pub unsafe fn statement_succeeded(scope: &StatementScope) {
    entries::statement_succeeded();
    LAST_STATEMENT.with_borrow_mut(|(last, count)| {
        *count += 1;
        // With several statements, a later error does not say which one it concerns.
        *last = if *count == 1 {
            // SAFETY: the scope is of the statement that has just ended, and its text is still
            // live.
            unsafe { wanted_text(scope.text, scope.location, scope.length) }
        } else {
            None
        };
    });
}

/// The text of the last successful statement on a watched table, if it was the only one in this
/// transaction, and the number of such statements.
pub fn last_statement() -> (Option<String>, u32) {
    LAST_STATEMENT.with_borrow(Clone::clone)
}

/// Called when the transaction has ended.
pub fn transaction_ends() {
    LAST_STATEMENT.with_borrow_mut(|last| *last = (None, 0));
}
