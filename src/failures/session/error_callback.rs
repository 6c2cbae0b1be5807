//! Makes the record of an error while the error is being raised. While an error is being raised,
//! the session still has the state in which its statement failed. `xact_end` decides whether the
//! record becomes an entry.
//!
//! The code of this file must not read a catalog, wait, run functions of users, or allocate an
//! unlimited amount of memory. The code of this file must also not call a function that can raise
//! an error (see `hooks/error.rs` for the reason).

use super::name_filter;
use super::raised_error::RaisedError;
use super::redact::redact;
use super::rejected_row::RejectedRow;
use super::statement_scope::StatementScope;
use super::statement_text::{
    bounded, last_statement, parameters_text, statement_text, wanted_text,
};
use super::temporary_tables;
use super::xact_end;
use crate::entries::{self, Outcome, WriteCount};
use crate::failures::queue::record::{Record, TEXT_LIMIT, Table, Unresolved, capped_c};
use crate::pg::current_subtransaction;
use pgrx::pg_sys;

/// Makes the record of an error. `scope` is the innermost open statement scope. If no scope is
/// open, a commit has failed, or a statement has failed before PostgreSQL knew its table. The
/// record of a failed commit is about the tables that the transaction has written to. The record of
/// a failed statement without a scope is about the table that the statement's text names.
///
/// # Safety
/// `scope` must be the innermost open scope. `row` must have been located and copied for this scope
/// and this error.
pub unsafe fn error_raised(
    scope: Option<&StatementScope>,
    data: &pg_sys::ErrorData,
    row: &RejectedRow,
) {
    // SAFETY: the call only reads a variable in shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return;
    }
    // SAFETY: `data` is PostgreSQL's own copy of the error, so its texts are C strings or null.
    let error = unsafe { RaisedError::of(data) };
    match scope {
        // SAFETY: `scope` is the innermost open scope (see # Safety).
        Some(scope) => unsafe { in_statement(scope, data, &error, row) },
        None => outside_of_statements(&error),
    }
}

/// Makes the record of an error that was raised within a statement on a watched table.
///
/// # Safety
/// `scope` must be the innermost open scope.
unsafe fn in_statement(
    scope: &StatementScope,
    data: &pg_sys::ErrorData,
    error: &RaisedError,
    row: &RejectedRow,
) {
    // SAFETY: PostgreSQL's copy of the error is live.
    let Some(target) = (unsafe { scope.target_of(data) }) else { return };
    let mut record = record_of(error, Outcome::Failed);
    // SAFETY: the targets of a scope live until the transaction ends.
    record.table = Some(unsafe { &(*target.watched).table }.clone());
    target.operation.clone_into(&mut record.operation);
    // SAFETY: the text and the parameters are those of the current statement, and the copies in
    // `row` are live.
    unsafe {
        record.statement = wanted_text(scope.text, scope.location, scope.length);
        record.parameters = parameters_text(scope.parameters);
        record.row = row.to_raw();
    }
    xact_end::error_raised(record, scope.subtransaction);
}

/// Makes the record of an error that was raised outside of all statements on watched tables.
fn outside_of_statements(error: &RaisedError) {
    let written = entries::write_counts();
    if let Some(record) = at_commit(error, &written).or_else(|| in_text(error)) {
        xact_end::error_raised(record, current_subtransaction());
    } else {
        xact_end::cause(&error.code, &error.message);
    }
}

/// Makes the record of an error that the commit has raised, for example the violation of a deferred
/// constraint, or a serialization failure. Returns `None` if the commit has not raised the error.
fn at_commit(error: &RaisedError, written: &[WriteCount]) -> Option<Record> {
    // SAFETY: the code only reads variables of the session.
    let (in_portal, text) =
        unsafe { (!pg_sys::ActivePortal.is_null(), pg_sys::debug_query_string) };
    // SAFETY: the text is null or a C string.
    let text = unsafe { statement_text(text, 0, 0, LONGEST) };
    let first_word = text
        .as_deref()
        .and_then(|text| text.split(|c: char| !c.is_alphanumeric()).next())
        .unwrap_or("");
    let ends = ["commit", "end", "prepare", "release"]
        .iter()
        .any(|word| first_word.eq_ignore_ascii_case(word));
    // SAFETY: the call only reads the state of the transaction.
    let in_block = unsafe { pg_sys::IsTransactionBlock() };
    // Within a portal, only SET CONSTRAINTS checks deferred constraints.
    let by_command = in_portal && first_word.eq_ignore_ascii_case("set");
    let by_end = !in_portal && (ends || text.is_none() || !in_block);
    let is_end_of_session = error.code.starts_with("57P") || error.code.starts_with("25P");
    if written.is_empty() || is_end_of_session || !(by_command || by_end) {
        return None;
    }
    let named: Vec<&WriteCount> =
        written.iter().filter(|one| error.names(&one.schema, &one.table)).collect();
    let one_table = written.iter().all(|one| one.relation == written[0].relation);
    let about = match (&named[..], one_table) {
        ([], true) => written.iter().collect(),
        ([], false) => Vec::new(),
        _ => named,
    };
    let mut record = record_of(error, Outcome::Failed);
    // If exactly one operation of the transaction can have caused the error, the record names this
    // operation. Otherwise the record names the operation COMMIT.
    let operations: Vec<&str> =
        about.iter().map(|one| one.operation).filter(|name| fits(&error.code, name)).collect();
    record.operation =
        if let [only] = operations[..] { only.to_owned() } else { "COMMIT".to_owned() };
    record.table = about.first().map(|one| Table::of(one));
    let (last, count) = last_statement();
    record.statement = if count == 1 { last } else { text.and_then(|text| bounded(&text)) };
    if !in_block {
        xact_end::is_whole_transaction();
    }
    Some(record)
}

/// Returns whether an operation can cause an error with this SQLSTATE at the commit.
fn fits(code: &str, operation: &str) -> bool {
    operation != "TRUNCATE"
        && (operation != "DELETE" || !matches!(code, "23505" | "23514" | "23P01" | "23502"))
}

/// The maximum number of bytes of a statement's text in which the session searches for the name of
/// a watched table.
const LONGEST: usize = 64 * 1024;

/// Makes the record of an error that was raised before PostgreSQL knew the statement's table.
/// Returns `None` if the statement's text cannot name a watched table.
fn in_text(error: &RaisedError) -> Option<Record> {
    // SAFETY: the query strings are null or C strings, which are valid while the error is being
    // raised.
    let text = unsafe {
        match error.internal_query.is_null() {
            false => statement_text(error.internal_query, 0, 0, LONGEST)?,
            true => statement_text(pg_sys::debug_query_string, 0, 0, LONGEST)?,
        }
    };
    if error.code == "25P02"
        || error.code == "0A000" && text.is_empty()
        || !name_filter::may_concern(&text)
    {
        return None;
    }
    let mut record = record_of(error, Outcome::Failed);
    let (mut temporary, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: both calls only read variables of the session. `namespace_search_path` is a C string
    // or null.
    let search_path = unsafe {
        pg_sys::GetTempNamespaceState(&mut temporary, &mut toast);
        capped_c(pg_sys::namespace_search_path, TEXT_LIMIT).unwrap_or_default()
    };
    // PostgreSQL gives the position of an error as the number of a character, counted from 1. The
    // position 0 means that PostgreSQL does not know the position of the error.
    let character =
        if error.internal_query.is_null() { error.position } else { error.internal_position };
    let position = usize::try_from(character - 1)
        .ok()
        .and_then(|character| text.char_indices().nth(character));
    let temporary_tables = temporary_tables::in_text(&text);
    record.unresolved = Some(Unresolved {
        redacted: redact(&text),
        position: position.map(|(byte, _)| byte),
        text: bounded(&text),
        search_path,
        temporary_schema: temporary.to_u32(),
        temporary_tables,
    });
    Some(record)
}

fn record_of(error: &RaisedError, outcome: Outcome) -> Record {
    let mut record = Record::of_session(outcome);
    record.error_code = Some(error.code.clone());
    record.error_message = Some(error.message.clone());
    record.error_detail = error.detail.clone();
    record.constraint = error.constraint.clone();
    record.column = error.column.clone();
    record
}
