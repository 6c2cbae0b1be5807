//! An error is being raised: Postgres calls back whoever is in its list of error callbacks, with the error on top of its stack.
//! What is said of it is put down now, while the session still is as it was; whether it becomes an entry is for `ending`.
//!
//! Nothing here may ask a catalog, wait, or run anybody's code.

use super::ending;
use super::failing_row;
use super::following;
use super::frame::{Frame, innermost, statement_text};
use super::masked::masked;
use super::names;
use super::record::{self, Count, Record, Table, Unresolved};
use super::temporary;
use crate::journal::{self, Outcome, Written};
use crate::server::{current_subtransaction, in_context, new_context, packed_sqlstate_text};
use crate::{origin, settings};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};

thread_local! {
    static BASE: Cell<*mut pg_sys::ErrorContextCallback> = const { Cell::new(std::ptr::null_mut()) };
    static MEMORY: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
    /// The last statement on a watched table that succeeded, and how many there were in this transaction.
    static LAST_STATEMENT: RefCell<(Option<String>, u32)> = const { RefCell::new((None, 0)) };
}

/// Sees to it that the callback for errors outside of any statement is at the bottom of the list. Postgres empties the list
/// after an error.
#[inline]
pub fn keep_base() {
    // SAFETY: an empty list takes a callback that lives as long as the process.
    unsafe {
        if pg_sys::error_context_stack.is_null() {
            if BASE.get().is_null() {
                make_base();
            }
            pg_sys::error_context_stack = BASE.get();
        }
    }
}

#[cold]
fn make_base() {
    let callback = pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(outside_of_statements),
        arg: std::ptr::null_mut(),
    };
    BASE.set(Box::into_raw(Box::new(callback)));
    // SAFETY: a context of our own that stays.
    MEMORY.set(unsafe { new_context(pg_sys::TopMemoryContext, c"lead_audit error being raised") });
}

/// A statement on a watched table was under way.
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn in_statement(argument: *mut c_void) {
    let frame = argument.cast::<Frame>();
    // One error, one record: the innermost statement's.
    if innermost() != frame {
        return;
    }
    // SAFETY: the frame is live: it is in the list.
    let frame = unsafe { &*frame };
    let Some(error) = RaisedError::current() else { return };
    let targets = frame.targets();
    let target = targets.iter().find(|target| error.is_about(table_of(target.watched))).or(targets.first());
    let Some(target) = target else { return };
    let mut record = record_of(&error, Outcome::Failed);
    record.table = Some(table_of(target.watched).clone());
    target.operation.clone_into(&mut record.operation);
    // SAFETY: the text and the parameters are those of the statement that is under way.
    unsafe {
        record.statement = wanted_text(frame.text, frame.location, frame.length);
        record.parameters = parameters_text(frame.parameters);
        record.row = failing_row::find(frame, target, &error);
    }
    ending::raised(record, frame.subtransaction);
}

fn table_of<'a>(watched: *const super::watched::Watched) -> &'a Table {
    // SAFETY: a frame's targets stay until the transaction ends.
    unsafe { &(*watched).table }
}

/// Called last for every error, whatever was under way.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn outside_of_statements(_argument: *mut c_void) {
    if !innermost().is_null() {
        return; // it has its record
    }
    let Some(error) = RaisedError::current() else { return };
    let written = journal::written();
    if let Some(record) = at_commit(&error, &written).or_else(|| in_text(&error)) {
        ending::raised(record, current_subtransaction());
    } else {
        ending::cause(&error.code, &error.message);
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
    record.statement = if count == 1 { last } else { text.and_then(bounded) };
    if !in_block {
        ending::is_whole_transaction();
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
        match &error.internal_query {
            Some(query) => query.clone(),
            None => statement_text(pg_sys::debug_query_string, 0, 0, LONGEST)?,
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
        text_at(pg_sys::namespace_search_path).unwrap_or_default()
    };
    // Postgres counts characters, from 1; 0 is none.
    let character = if error.internal_query.is_some() { error.internal_position } else { error.position };
    let position = usize::try_from(character - 1).ok().and_then(|character| text.char_indices().nth(character));
    let temporary_tables = temporary::in_text(&text);
    record.unresolved = Some(Unresolved {
        masked: masked(&text),
        position: position.map(|(byte, _)| byte),
        text: bounded(text),
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
        let now = origin::Now::read();
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
pub fn bounded(text: String) -> Option<String> {
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
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn remember_parameters(parameters: pg_sys::ParamListInfo) {
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
        text_at((*parameters).paramValuesStr)
    }
}

/// The outermost statement on a watched table has succeeded: what it wrote counts, and its text is kept for an error at commit.
///
/// # Safety
/// `frame` must be of the statement that has just ended.
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn statement_succeeded(frame: *const Frame) {
    journal::settle_written();
    LAST_STATEMENT.with_borrow_mut(|(last, count)| {
        *count += 1;
        // SAFETY: as the caller promises; its text is still there. Of several nothing says which a later error is about.
        *last = if *count == 1 { unsafe { wanted_text((*frame).text, (*frame).location, (*frame).length) } } else { None };
    });
}

/// The transaction is over.
pub fn transaction_ends() {
    LAST_STATEMENT.with_borrow_mut(|last| *last = (None, 0));
}

/// # Safety
/// `text` must be null or a C string.
unsafe fn text_at(text: *const c_char) -> Option<String> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// What the error on top of Postgres's stack says.
pub struct RaisedError {
    pub code: String,
    pub message: String,
    detail: Option<String>,
    constraint: Option<String>,
    column: Option<String>,
    schema: Option<String>,
    table: Option<String>,
    position: i32,
    internal_position: i32,
    internal_query: Option<String>,
}

impl RaisedError {
    /// The error that is being raised; `None` for a message that is none, and where nothing may be recorded.
    fn current() -> Option<Self> {
        // SAFETY: called back while an error is on the stack, which CopyErrorData copies into a context of ours.
        unsafe {
            if record::is_logging()
                || pg_sys::CritSectionCount > 0
                || pg_sys::proc_exit_inprogress
                || !pg_sys::IsTransactionState()
                || MEMORY.get().is_null()
                || !following::is_on()
            {
                return None;
            }
            let error = in_context(MEMORY.get(), || {
                let data = &*pg_sys::CopyErrorData();
                (data.elevel >= pgrx::PgLogLevel::ERROR as i32 && !pg_sys::RecoveryInProgress())
                    .then(|| RaisedError::from_data(data))
            });
            pg_sys::MemoryContextReset(MEMORY.get());
            error
        }
    }

    /// # Safety
    /// The strings must be C strings or null.
    unsafe fn from_data(data: &pg_sys::ErrorData) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            RaisedError {
                code: packed_sqlstate_text(data.sqlerrcode),
                message: text_at(data.message).unwrap_or_default(),
                detail: text_at(data.detail),
                constraint: text_at(data.constraint_name),
                column: text_at(data.column_name),
                schema: text_at(data.schema_name),
                table: text_at(data.table_name),
                position: data.cursorpos,
                internal_position: data.internalpos,
                internal_query: text_at(data.internalquery),
            }
        }
    }

    /// Whether the error names this table.
    pub fn names(&self, schema: &str, table: &str) -> bool {
        self.schema.as_deref() == Some(schema) && self.table.as_deref() == Some(table)
    }

    fn is_about(&self, table: &Table) -> bool {
        self.names(&table.schema, &table.name)
    }
}
