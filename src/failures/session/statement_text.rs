//! Reads the text and the parameters of a statement, in the form that records contain.

use super::statement_scope::StatementScope;
use crate::failures::queue::record::{TEXT_LIMIT, capped_c};
use crate::pg::in_context;
use crate::{entries, settings};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::{c_char, c_int};

thread_local! {
    /// The number of successful statements on watched tables in this transaction. If the number is
    /// 1, the value also contains the text of the only statement.
    static LAST_STATEMENT: RefCell<(Option<String>, u32)> = const { RefCell::new((None, 0)) };
}

/// Returns the statement's part of a query string, cut to at most `limit` bytes. A query string can
/// contain several statements.
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
    // The code copies only the beginning of a long text. The copy is slightly longer than `limit`
    // bytes, because leading white space is removed from the copy and does not count towards the
    // limit.
    const WHITE_SPACE: usize = 256;
    let wanted = length.min(limit.saturating_add(WHITE_SPACE));
    // SAFETY: `text` is a C string (see # Safety), and strnlen finds its end.
    let part = unsafe {
        let there = libc::strnlen(text, from.saturating_add(wanted));
        let from = from.min(there);
        std::slice::from_raw_parts(text.cast::<u8>().add(from), there - from)
    };
    let part = String::from_utf8_lossy(part);
    let part = part.trim();
    Some(part[..part.floor_char_boundary(limit)].to_owned())
}

/// Returns the text, cut to the length that `lead_audit.log_statement_length` allows. Returns
/// `None` if the setting is 0.
pub fn bounded(text: &str) -> Option<String> {
    match settings::failures::log_statement_length() {
        0 => None,
        limit => Some(text[..text.floor_char_boundary(limit)].to_owned()),
    }
}

/// Returns the statement's part of a query string, cut to the length that
/// `lead_audit.log_statement_length` allows. Returns `None` if the setting is 0.
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

/// Converts the parameters of a statement to text before the statement starts, because the
/// conversion is impossible while an error is being raised.
///
/// # Safety
/// `parameters` must be null or the parameters of a statement that is about to start.
pub unsafe fn remember_parameters(parameters: pg_sys::ParamListInfo) {
    // SAFETY: the parameters are live (see # Safety). The code stores the text of the parameters in
    // `paramValuesStr`, as PostgreSQL itself does. The text lives as long as the parameters.
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

/// Returns the text of the parameters that [`remember_parameters`] has stored.
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

/// Counts the rows that a statement has written, and keeps the statement's text in case the commit
/// raises an error. The function is called when the outermost statement on a watched table has
/// succeeded.
///
/// # Safety
/// `scope` must be the scope of the statement that has just ended. The statement's text must still
/// be live.
pub unsafe fn statement_succeeded(scope: &StatementScope) {
    entries::statement_succeeded();
    LAST_STATEMENT.with_borrow_mut(|(last, count)| {
        *count += 1;
        // If the transaction has several statements, an error at the commit does not tell which
        // statement caused the error. The session keeps the text of a statement only if the
        // transaction has no other statement on watched tables.
        *last = if *count == 1 {
            // SAFETY: `scope` is the scope of the statement that has just ended, and the
            // statement's text is still live.
            unsafe { wanted_text(scope.text, scope.location, scope.length) }
        } else {
            None
        };
    });
}

/// Returns the number of successful statements on watched tables in this transaction. If the number
/// is 1, also returns the text of the only statement.
pub fn last_statement() -> (Option<String>, u32) {
    LAST_STATEMENT.with_borrow(Clone::clone)
}

/// Forgets the statements of a transaction that has ended.
pub fn transaction_ends() {
    LAST_STATEMENT.with_borrow_mut(|last| *last = (None, 0));
}
