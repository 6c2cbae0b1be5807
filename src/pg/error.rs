//! Represents a caught PostgreSQL error as a value.

use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::fmt;

/// The fields of an error, copied from PostgreSQL's error stack.
#[derive(Debug, Clone)]
pub struct ServerError {
    /// The error's SQLSTATE.
    pub code: PgSqlErrorCode,
    /// The error's primary message.
    pub message: String,
    /// The error's DETAIL.
    pub detail: Option<String>,
}

impl ServerError {
    /// Copies the caught error. Rethrows an error that must end the statement at once, for example
    /// a cancelled query, a timeout, a shutdown or a serialization failure. After a serialization
    /// failure, the client has to repeat the transaction.
    pub fn from_caught(caught: CaughtError) -> Self {
        let error = Self::of_caught(&caught);
        if error.must_not_be_held_up() {
            caught.rethrow();
        }
        error
    }

    /// Copies the caught error, and never rethrows the error. Callers of this function end the
    /// transaction after the error.
    pub fn of_caught(caught: &CaughtError) -> Self {
        Self::of(match caught {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
            CaughtError::RustPanic { ereport, .. } => ereport,
        })
    }

    /// Raises the error in the current statement.
    pub fn raise(self, hint: Option<String>) -> ! {
        let mut report = ErrorReport::new(self.code, self.message, "lead_audit");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = hint {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an error does not return")
    }

    fn of(report: &ErrorReportWithLevel) -> Self {
        // Functions of users can raise errors with texts of any length. The library puts the texts
        // into WARNINGs, records and entries, so it cuts them here.
        const LIMIT: usize = 64 * 1024;
        let text = |text: &str| capped(text.as_bytes(), LIMIT);
        ServerError {
            code: report.sql_error_code(),
            message: text(report.message()),
            detail: report.detail().map(text),
        }
    }

    fn must_not_be_held_up(&self) -> bool {
        matches!(
            self.code,
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED
                | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN
                | PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN
                | PgSqlErrorCode::ERRCODE_DATABASE_DROPPED
                | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
        )
    }
}

/// Returns the five characters of a SQLSTATE. PostgreSQL packs each character into six bits.
pub fn sqlstate_text(code: PgSqlErrorCode) -> String {
    packed_sqlstate_text(code as i32)
}

/// Returns the five characters of a packed SQLSTATE, even if pgrx has no name for the SQLSTATE.
pub fn packed_sqlstate_text(code: i32) -> String {
    (0..5).map(|place| char::from(((code >> (6 * place)) & 0x3f) as u8 + b'0')).collect()
}

/// Cuts a text so that its JSON takes at most `limit` bytes. In JSON, most control characters take
/// six bytes. A text that was cut ends with "…". Invalid UTF-8 becomes U+FFFD.
pub fn capped(text: &[u8], limit: usize) -> String {
    const ELLIPSIS: char = '…';
    let limit = limit.saturating_sub(ELLIPSIS.len_utf8());
    let (mut out, mut length) = (String::new(), 0);
    for chunk in text.utf8_chunks() {
        let replacement = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for character in chunk.valid().chars().chain(replacement) {
            length += match character {
                '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
                '\0'..=' ' if character != ' ' => 6,
                _ => character.len_utf8(),
            };
            if length > limit {
                out.push(ELLIPSIS);
                return out;
            }
            out.push(character);
        }
    }
    out
}

impl std::error::Error for ServerError {}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_are_five_characters() {
        assert_eq!(sqlstate_text(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION), "23505");
        assert_eq!(sqlstate_text(PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION), "P0001");
        assert_eq!(sqlstate_text(PgSqlErrorCode::ERRCODE_EXCLUSION_VIOLATION), "23P01");
    }

    #[test]
    fn texts_are_cut_by_their_length_in_json() {
        assert_eq!(capped("é\"x".as_bytes(), 100), "é\"x");
        assert_eq!(capped(b"a\xffb", 100), "a\u{fffd}b");
        let cut = capped("\u{1}".repeat(1_000).as_bytes(), 63);
        assert_eq!((cut.chars().count(), cut.chars().last()), (11, Some('…')));
        let cut = capped("ä".repeat(1_000).as_bytes(), 64);
        assert!(cut.len() <= 64 && cut.ends_with('…'), "{cut}");
    }
}
