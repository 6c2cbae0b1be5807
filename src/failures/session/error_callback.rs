//! An error is being raised: what there is to say of it becomes a record now, while the session still is as it was. Whether the
//! record becomes an entry is for `xact_end`.
//!
//! Nothing here may ask a catalog, wait, run anybody's code or call what can raise an error (`hooks/error.rs` says why), and
//! nothing may take memory without a limit.

use super::failing_row::FailingRow;
use super::following;
use super::masked::masked;
use super::names;
use super::scope::{StatementScope, error_callbacks, statement_text};
use super::temporary;
use super::xact_end;
use crate::entries::{self, Outcome, Written};
use crate::failures::queue::record::{Count, Record, TEXT_LIMIT, Table, Unresolved, capped_c};
use crate::pg::{capped, current_subtransaction, in_context, new_context, packed_sqlstate_text};
use crate::{actor, settings};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char};

thread_local! {
    static BASE: Cell<*mut pg_sys::ErrorContextCallback> = const { Cell::new(std::ptr::null_mut()) };
    static MEMORY: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
    /// Whether a record is being made or written to the server's log: an error or a message of that is not another failure. An
    /// error leaves it set, until the next statement or the end of the transaction.
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    /// The last statement on a watched table that succeeded, and how many there were in this transaction.
    static LAST_STATEMENT: RefCell<(Option<String>, u32)> = const { RefCell::new((None, 0)) };
}

/// Sees to it that the callback for errors outside of any statement is at the bottom of the list. PostgreSQL empties the list
/// after an error.
#[inline]
pub fn keep_base() {
    // SAFETY: an empty list takes a callback that lives as long as the process.
    unsafe {
        if pg_sys::error_context_stack.is_null() {
            RECORDING.set(false);
            if BASE.get().is_null() {
                make_base();
            }
            // Null without callbacks: the list stays empty.
            pg_sys::error_context_stack = BASE.get();
        }
    }
}

#[cold]
fn make_base() {
    let Some(callbacks) = error_callbacks() else { return };
    actor::remember_client_addr();
    // SAFETY: a context of our own that stays.
    MEMORY.set(unsafe { new_context(pg_sys::TopMemoryContext, c"lead_audit error being raised") });
    BASE.set(Box::into_raw(Box::new(pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(callbacks.outside_of_statements),
        arg: std::ptr::null_mut(),
    })));
}

/// Whether the error being raised may be recorded: the memory context to copy it into, or null. Ends with `end_record`.
pub fn begin_record() -> pg_sys::MemoryContext {
    // SAFETY: reads variables of the session.
    let is_possible = unsafe {
        !RECORDING.get()
            && pg_sys::CritSectionCount == 0
            && !pg_sys::proc_exit_inprogress
            && pg_sys::IsTransactionState()
            && !MEMORY.get().is_null()
            && following::is_on()
    };
    if !is_possible {
        return std::ptr::null_mut();
    }
    RECORDING.set(true);
    MEMORY.get()
}

/// The record is made. The error's copy and the rows go.
pub fn end_record() {
    RECORDING.set(false);
    if !MEMORY.get().is_null() {
        // SAFETY: a context of our own, which nothing points into any more.
        unsafe { pg_sys::MemoryContextReset(MEMORY.get()) };
    }
}

/// A record is to be written to the server's log: false if one is being made or written already.
pub fn begin_log() -> bool {
    !RECORDING.replace(true)
}

/// An abort ends whatever was under way.
pub fn abort() {
    RECORDING.set(false);
    keep_base();
}

/// Makes the record of an error: of the innermost statement on a watched table, or of what the statement's text is about.
///
/// # Safety
/// The scope must be the innermost one, and the row one that `FailingRow` found for it.
pub unsafe fn error_raised(scope: Option<&StatementScope>, data: &pg_sys::ErrorData, row: &FailingRow) {
    // SAFETY: reads a variable in shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return;
    }
    // SAFETY: the data is PostgreSQL's own copy of the error: its texts are C strings or null.
    let error = unsafe { RaisedError::of(data) };
    match scope {
        // SAFETY: as the caller promises.
        Some(scope) => unsafe { in_statement(scope, data, &error, row) },
        None => outside_of_statements(&error),
    }
}

/// A statement on a watched table was under way.
///
/// # Safety
/// The scope must be the innermost one.
unsafe fn in_statement(scope: &StatementScope, data: &pg_sys::ErrorData, error: &RaisedError, row: &FailingRow) {
    // SAFETY: the error's copy is live, as the caller promises.
    let Some(target) = (unsafe { scope.target_of(data) }) else { return };
    let mut record = record_of(error, Outcome::Failed);
    // SAFETY: a scope's targets stay until the transaction ends.
    record.table = Some(unsafe { &(*target.watched).table }.clone());
    target.operation.clone_into(&mut record.operation);
    // SAFETY: the text and the parameters are those of the statement that is under way; the rows were copied for this record.
    unsafe {
        record.statement = wanted_text(scope.text, scope.location, scope.length);
        record.parameters = parameters_text(scope.parameters);
        record.row = row.to_raw();
    }
    xact_end::error_raised(record, scope.subtransaction);
}

/// The error came while no statement on a watched table was under way.
fn outside_of_statements(error: &RaisedError) {
    let written = entries::written();
    if let Some(record) = at_commit(error, &written).or_else(|| in_text(error)) {
        xact_end::error_raised(record, current_subtransaction());
    } else {
        xact_end::cause(&error.code, &error.message);
    }
}

/// The error came when the transaction was to be committed: a deferred constraint, a serialization failure.
fn at_commit(error: &RaisedError, written: &[Written]) -> Option<Record> {
    // SAFETY: reads variables of the session.
    let (in_portal, text) = unsafe { (!pg_sys::ActivePortal.is_null(), pg_sys::debug_query_string) };
    // SAFETY: null or a C string.
    let text = unsafe { statement_text(text, 0, 0, LONGEST) };
    let first_word = text.as_deref().and_then(|text| text.split(|c: char| !c.is_alphanumeric()).next()).unwrap_or("");
    let ends = ["commit", "end", "prepare", "release"].iter().any(|word| first_word.eq_ignore_ascii_case(word));
    // SAFETY: reads the state of the transaction.
    let in_block = unsafe { pg_sys::IsTransactionBlock() };
    // In a portal, only SET CONSTRAINTS checks what was deferred.
    let by_command = in_portal && first_word.eq_ignore_ascii_case("set");
    let by_end = !in_portal && (ends || text.is_none() || !in_block);
    let is_end_of_session = error.code.starts_with("57P") || error.code.starts_with("25P");
    if written.is_empty() || is_end_of_session || !(by_command || by_end) {
        return None;
    }
    let named: Vec<&Written> = written.iter().filter(|one| error.names(&one.schema, &one.table)).collect();
    let one_table = written.iter().all(|one| one.relation == written[0].relation);
    let about = match (&named[..], one_table) {
        ([], true) => written.iter().collect(),
        ([], false) => Vec::new(),
        _ => named,
    };
    let mut record = record_of(error, Outcome::Failed);
    // What of several operations the check was about, nothing says.
    let operations: Vec<&str> = about.iter().map(|one| one.operation).filter(|name| fits(&error.code, name)).collect();
    record.operation = if let [only] = operations[..] { only.to_owned() } else { "COMMIT".to_owned() };
    record.table = about.first().map(|one| table_written(one));
    let (last, count) = LAST_STATEMENT.with_borrow(Clone::clone);
    record.statement = if count == 1 { last } else { text.and_then(|text| bounded(&text)) };
    if !in_block {
        xact_end::is_whole_transaction();
    }
    Some(record)
}

/// Whether an operation can break what this SQLSTATE is of.
fn fits(code: &str, operation: &str) -> bool {
    operation != "TRUNCATE" && (operation != "DELETE" || !matches!(code, "23505" | "23514" | "23P01" | "23502"))
}

/// Longest text that is looked at.
const LONGEST: usize = 64 * 1024;

/// The error came before Postgres had the statement's table: the text says what it was about.
fn in_text(error: &RaisedError) -> Option<Record> {
    // SAFETY: null or C strings, which stay while the error is being raised.
    let text = unsafe {
        match error.internal_query.is_null() {
            false => statement_text(error.internal_query, 0, 0, LONGEST)?,
            true => statement_text(pg_sys::debug_query_string, 0, 0, LONGEST)?,
        }
    };
    if error.code == "25P02" || error.code == "0A000" && text.is_empty() || !names::may_concern(&text) {
        return None;
    }
    let mut record = record_of(error, Outcome::Failed);
    let (mut temporary, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: both read variables of the session; the setting is a C string or null.
    let search_path = unsafe {
        pg_sys::GetTempNamespaceState(&mut temporary, &mut toast);
        capped_c(pg_sys::namespace_search_path, TEXT_LIMIT).unwrap_or_default()
    };
    // Postgres counts characters, from 1; 0 is none.
    let character = if error.internal_query.is_null() { error.position } else { error.internal_position };
    let position = usize::try_from(character - 1).ok().and_then(|character| text.char_indices().nth(character));
    let temporary_tables = temporary::in_text(&text);
    record.unresolved = Some(Unresolved {
        masked: masked(&text),
        position: position.map(|(byte, _)| byte),
        text: bounded(&text),
        search_path,
        temporary_schema: temporary.to_u32(),
        temporary_tables,
    });
    Some(record)
}

/// A watched table as records have it.
pub fn table_written(written: &Written) -> Table {
    Table {
        relation: written.relation.to_u32(),
        watch_id: Some(written.watch_id),
        schema: written.schema.clone(),
        name: written.table.clone(),
    }
}

/// What a transaction had written, as records have it.
pub fn counts(written: &[Written]) -> Vec<Count> {
    let count = |one: &Written| Count { table: table_written(one), operation: one.operation.to_owned(), rows: one.rows };
    written.iter().map(count).collect()
}

/// The session's side of a record: who it was, when, in which transaction.
pub fn record_of_session(outcome: Outcome) -> Record {
    // SAFETY: these read variables of the session and the clock.
    unsafe {
        let now = actor::Now::read();
        Record {
            outcome,
            txid: pg_sys::GetTopFullTransactionIdIfAny().value,
            occurred_at: pg_sys::GetCurrentTimestamp(),
            backend_pid: pg_sys::MyProcPid,
            session_user: now.session_user.to_u32(),
            current_user: now.current_user.to_u32(),
            user_id: now.user_id,
            user_ip: now.user_ip,
            user_agent: now.user_agent,
            request_id: now.request_id,
            client_addr: now.client_addr,
            application_name: now.application_name,
            ..Record::default()
        }
    }
}

fn record_of(error: &RaisedError, outcome: Outcome) -> Record {
    let mut record = record_of_session(outcome);
    record.error_code = Some(error.code.clone());
    record.error_message = Some(error.message.clone());
    record.error_detail = error.detail.clone();
    record.constraint = error.constraint.clone();
    record.column = error.column.clone();
    record
}

/// As much of a statement as is wanted, if any.
fn bounded(text: &str) -> Option<String> {
    match settings::failure::log_statement_length() {
        0 => None,
        limit => Some(text[..text.floor_char_boundary(limit)].to_owned()),
    }
}

/// As much of a statement's text as is wanted, if any.
///
/// # Safety
/// `text` must be null or a C string.
unsafe fn wanted_text(text: *const c_char, location: i32, length: i32) -> Option<String> {
    match settings::failure::log_statement_length() {
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
    // SAFETY: as the caller promises. The text is put where Postgres itself puts it, and lives as long as the parameters.
    unsafe {
        if !settings::failure::log_parameters()
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
                settings::failure::log_statement_length().max(64) as i32,
            )
        });
    }
}

/// # Safety
/// `parameters` must be null or live.
unsafe fn parameters_text(parameters: pg_sys::ParamListInfo) -> Option<String> {
    // SAFETY: as the caller promises.
    unsafe {
        if !settings::failure::log_parameters() || parameters.is_null() {
            return None;
        }
        capped_c((*parameters).paramValuesStr, TEXT_LIMIT)
    }
}

/// The outermost statement on a watched table has succeeded: what it wrote counts, and its text is kept for an error at commit.
///
/// # Safety
/// The scope must be of the statement that has just ended, whose text is still there.
pub unsafe fn statement_succeeded(scope: &StatementScope) {
    entries::settle_written();
    LAST_STATEMENT.with_borrow_mut(|(last, count)| {
        *count += 1;
        // SAFETY: as the caller promises. Of several nothing says which a later error is about.
        *last = if *count == 1 { unsafe { wanted_text(scope.text, scope.location, scope.length) } } else { None };
    });
}

/// The transaction is over.
pub fn transaction_ends() {
    LAST_STATEMENT.with_borrow_mut(|last| *last = (None, 0));
}

/// What an error says, as much of it as a record has.
struct RaisedError {
    code: String,
    message: String,
    detail: Option<String>,
    constraint: Option<String>,
    column: Option<String>,
    schema: Option<String>,
    table: Option<String>,
    position: i32,
    internal_position: i32,
    /// Null, or a C string that lives as long as the error's copy.
    internal_query: *const c_char,
}

impl RaisedError {
    /// # Safety
    /// The texts must be C strings or null, and outlive this.
    unsafe fn of(data: &pg_sys::ErrorData) -> Self {
        // SAFETY: as the caller promises.
        let text = |text: *const c_char| unsafe { capped_c(text, TEXT_LIMIT) };
        RaisedError {
            code: packed_sqlstate_text(data.sqlerrcode),
            message: text(data.message).unwrap_or_default(),
            detail: text(data.detail),
            constraint: text(data.constraint_name),
            column: text(data.column_name),
            schema: text(data.schema_name),
            table: text(data.table_name),
            position: data.cursorpos,
            internal_position: data.internalpos,
            internal_query: data.internalquery,
        }
    }

    /// Whether the error names this table.
    fn names(&self, schema: &str, table: &str) -> bool {
        self.schema.as_deref() == Some(schema) && self.table.as_deref() == Some(table)
    }
}

/// SQLSTATE and message of an error that is being reported, as its record has them.
pub fn code_and_message(data: &pg_sys::ErrorData) -> (String, String) {
    // SAFETY: PostgreSQL's own error: its message is a C string or null.
    let message = unsafe { capped_c(data.message, TEXT_LIMIT) };
    (packed_sqlstate_text(data.sqlerrcode), message.unwrap_or_default())
}

/// Whether an error names a table of this schema and name.
///
/// # Safety
/// The error's names must be C strings or null.
pub unsafe fn error_names(data: &pg_sys::ErrorData, schema: &str, table: &CStr) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        !data.schema_name.is_null()
            && !data.table_name.is_null()
            && CStr::from_ptr(data.schema_name).to_bytes() == schema.as_bytes()
            && CStr::from_ptr(data.table_name) == table
    }
}

/// The text as a record may have it, for what is not from PostgreSQL.
pub fn limited(text: &str) -> String {
    capped(text.as_bytes(), TEXT_LIMIT)
}
