//! Decides at the end of a transaction or subtransaction which records become entries. The record
//! of an error is confirmed if the error is reported, or if the statement's own (sub)transaction is
//! rolled back. If only a subtransaction within the statement is rolled back, the statement has
//! caught the error. The record of an error that was caught is dropped.
//!
//! The records of unwritten entries are confirmed when the transaction commits. If the transaction
//! does not commit, its changes are undone and need no entries.
//!
//! A record enters the queue before it is known whether the record becomes an entry. After the end
//! of a transaction, the session only confirms or cancels the transaction's records in the queue.
//! Confirming or cancelling a record takes constant time and no additional memory.

use super::raised_error::{code_and_message, limited};
use super::temporary_tables;
use super::watched_relations;
use super::{recording, statement_text};
use crate::entries::{self, Outcome, UnwrittenEntry, WriteCount};
use crate::failures::queue::record::{self, Count, Record, Table};
use crate::failures::queue::{self, LogLine};
use crate::pg::{ServerError, TransactionEnd, current_database, current_subtransaction};
use crate::settings;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::c_char;

/// The place of a record that the session may still have to confirm or cancel.
enum Place {
    /// The record is in the queue, but unconfirmed. Contains the record's first slot.
    Reserved(u32),
    /// The queue did not accept the record, so the record is only in this process. Contains the
    /// record's JSON.
    Unqueued(Vec<u8>),
    /// Nothing remains to be done for the record. The record is confirmed or cancelled, is in the
    /// server's log, or was lost for lack of memory.
    Final,
}

impl Place {
    fn of(record: &mut Record) -> Self {
        match record::to_bytes(record) {
            Some(bytes) => match record::reserve(&bytes) {
                Some(reserved) => Place::Reserved(reserved),
                None => Place::Unqueued(bytes),
            },
            None => {
                queue::count_dropped(current_database());
                Place::Final
            }
        }
    }

    /// Confirms the record. If the queue still does not accept the record, returns a line for the
    /// server's log that contains the record.
    fn finalize(&mut self) -> Option<LogLine> {
        match std::mem::replace(self, Place::Final) {
            Place::Reserved(reserved) => {
                record::confirm(reserved);
                None
            }
            Place::Unqueued(bytes) => record::push(&bytes),
            Place::Final => None,
        }
    }

    /// Drops the record.
    fn cancel(&mut self) {
        if let Place::Reserved(reserved) = std::mem::replace(self, Place::Final) {
            record::cancel(reserved);
        }
    }
}

/// The record of an error that may still be caught within the statement.
struct Candidate {
    record: Record,
    place: Place,
    /// The subtransaction in which the statement runs.
    statement: pg_sys::SubTransactionId,
    /// The subtransaction in which the error was raised. The statement may have begun this
    /// subtransaction itself, for example in a block with EXCEPTION.
    innermost: pg_sys::SubTransactionId,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.place.cancel();
    }
}

/// The maximum number of unwritten entries of one transaction that wait for its commit. If a
/// transaction has more unwritten entries, the session writes the records of the further ones to
/// the server's log at once.
const MOST_UNWRITTEN: usize = 10_000;

#[derive(Default)]
struct State {
    candidate: Option<Candidate>,
    /// Whether the transaction consists only of the statement that failed.
    whole_transaction: bool,
    /// The SQLSTATE and the message of the last error outside of statements on watched tables.
    cause: Option<(String, String)>,
    unwritten: Vec<(pg_sys::SubTransactionId, Record)>,
    /// The places of the records of unwritten entries that the session passed to the queue before
    /// the commit.
    reserved_unwritten: Vec<Place>,
    /// The line that is being written to the server's log.
    line: Option<LogLine>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Stores the record of an error. `statement` is the subtransaction in which the failed statement
/// runs.
pub fn error_raised(mut record: Record, statement: pg_sys::SubTransactionId) {
    let innermost = current_subtransaction();
    STATE.with_borrow_mut(|state| {
        // When an error passes through Rust code, pgrx raises the error a second time, with fewer
        // fields. The session keeps the record of the first error, which has all fields.
        let same = state.candidate.as_ref().is_some_and(|known| {
            known.record.error_code == record.error_code
                && known.record.error_message == record.error_message
        });
        if !same {
            state.candidate = None;
            let place = Place::of(&mut record);
            state.candidate = Some(Candidate { record, place, statement, innermost });
        }
    });
}

/// Notes that the transaction consists only of the statement that failed.
pub fn is_whole_transaction() {
    STATE.with_borrow_mut(|state| state.whole_transaction = true);
}

/// Notes an error outside of statements on watched tables, because the error may be the reason why
/// the transaction rolls back.
pub fn cause(code: &str, message: &str) {
    STATE.with_borrow_mut(|state| state.cause = Some((code.to_owned(), message.to_owned())));
}

/// Confirms the record of an error that is being reported, because no code has caught the error. If
/// the queue does not accept the record, returns a line for the server's log that contains the
/// record. The line is a C string that lives until another error is reported, or the transaction
/// ends. Returns null if the record needs no line. If the result is not null, the caller must write
/// the line to the server's log and then call `end_record`.
pub fn error_is_final(data: &pg_sys::ErrorData) -> *const c_char {
    let is_open = STATE.with_borrow(|state| {
        state.candidate.as_ref().is_some_and(|candidate| !matches!(candidate.place, Place::Final))
    });
    if !is_open {
        return std::ptr::null();
    }
    let (code, message) = code_and_message(data);
    STATE.with_borrow_mut(|state| {
        let is_of_error = |candidate: &&mut Candidate| {
            candidate.record.error_code.as_ref() == Some(&code)
                && candidate.record.error_message.as_ref() == Some(&message)
        };
        state.line = state
            .candidate
            .as_mut()
            .filter(is_of_error)
            .and_then(|candidate| candidate.place.finalize());
        match &state.line {
            Some(line) if queue::begin_recording() => line.as_ptr(),
            _ => std::ptr::null(),
        }
    })
}

/// Makes the record of an unwritten entry.
pub fn entry_not_written(operation: &str, entry: &UnwrittenEntry, cause: &ServerError) {
    let mut record = Record::of_session(Outcome::Unwritten);
    operation.clone_into(&mut record.operation);
    record.table = Some(Table {
        relation: entry.relation.map_or(0, |relation| relation.to_u32()),
        watch_id: entry.watch_id,
        schema: entry.schema.to_owned(),
        name: entry.table.to_owned(),
    });
    // If the row key is longer than TEXT_LIMIT, the record contains no row key. A row key that was
    // cut would not be valid JSON.
    record.key = entry.key.filter(|key| key.len() <= record::TEXT_LIMIT).map(str::to_owned);
    record.error_code = Some(crate::pg::sqlstate_text(cause.code));
    record.error_message = Some(limited(&cause.message));
    record.error_detail = cause.detail.as_deref().map(limited);
    let rest = STATE.with_borrow_mut(|state| {
        if state.unwritten.len() >= MOST_UNWRITTEN || state.unwritten.try_reserve(1).is_err() {
            return Some(record);
        }
        state.unwritten.push((current_subtransaction(), record));
        None
    });
    if let Some(mut record) = rest {
        queue::count_dropped(current_database());
        let why = "the transaction has too many operations without an entry";
        record::to_bytes(&mut record)
            .and_then(|bytes| LogLine::new(&bytes, why))
            .iter()
            .for_each(LogLine::write);
    }
}

/// Puts the records of the transaction's unwritten entries into the queue. `transaction_ends`
/// confirms these records after the commit. The function is called before the transaction commits
/// or is prepared. Can raise an error.
pub fn before_commit() {
    let unwritten = STATE.with_borrow_mut(|state| std::mem::take(&mut state.unwritten));
    for (_, mut record) in unwritten {
        let mut place = Place::of(&mut record);
        // If the queue does not accept the record, the session writes the record to the server's
        // log before the commit.
        if matches!(place, Place::Unqueued(_)) {
            place.finalize().iter().for_each(LogLine::write);
        }
        STATE.with_borrow_mut(|state| state.reserved_unwritten.push(place));
    }
}

/// Confirms or drops the record of an error that was raised in this subtransaction. The function is
/// called when the subtransaction has been rolled back. Confirms the record if the failed statement
/// also ran in this subtransaction. Drops the record if the failed statement ran in an outer
/// subtransaction, because the statement has caught the error.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    recording::abort();
    let failed = STATE.with_borrow_mut(|state| {
        state.unwritten.retain(|(subtransaction, _)| *subtransaction < own);
        state.candidate.take_if(|candidate| candidate.innermost >= own)
    });
    if let Some(mut candidate) = failed.filter(|candidate| candidate.statement >= own) {
        candidate.place.finalize().iter().for_each(LogLine::write);
    }
    temporary_tables::subtransaction_fails();
}

/// Passes the unwritten entries of a subtransaction to its parent. The function is called when the
/// subtransaction has been committed.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    STATE.with_borrow_mut(|state| {
        for (subtransaction, _) in &mut state.unwritten {
            if *subtransaction >= own {
                *subtransaction = parent;
            }
        }
    });
}

/// Confirms or cancels the transaction's records. The function is called when the transaction has
/// ended.
pub fn transaction_ends(end: TransactionEnd) {
    recording::abort();
    let mut state = STATE.take();
    let written = entries::take_write_counts();
    if end == TransactionEnd::RolledBack {
        state.reserved_unwritten.iter_mut().for_each(Place::cancel);
        if let Some(candidate) = &mut state.candidate {
            candidate.place.finalize().iter().for_each(LogLine::write);
        }
        if !written.is_empty() && !state.whole_transaction && settings::failures::log_rollbacks() {
            // The record of the rolled-back transaction takes the actor from the record of the
            // failed statement. At the end of the transaction, the session cannot determine the
            // actor, because PostgreSQL has already discarded the values of SET LOCAL.
            let failed =
                state.candidate.as_mut().map(|candidate| std::mem::take(&mut candidate.record));
            record::send(&mut rolled_back(&written, failed, state.cause.take()));
        }
    } else {
        state
            .reserved_unwritten
            .iter_mut()
            .for_each(|place| place.finalize().iter().for_each(LogLine::write));
        // Other callbacks can write to watched tables during the commit, after `before_commit` has
        // run. If the entries of writes by other callbacks could not be written, the records of
        // these unwritten entries enter the queue only after the commit.
        state.unwritten.iter_mut().for_each(|(_, record)| record::send(record));
    }
    temporary_tables::transaction_ends(end == TransactionEnd::Committed);
    statement_text::transaction_ends();
    watched_relations::transaction_ends();
}

/// The maximum number of counts that the entry of a rolled-back transaction lists.
const MOST_WRITTEN: usize = 100;

/// Makes the record of a rolled-back transaction. `failed` is the record of the failed statement.
/// `cause` contains the SQLSTATE and the message of the last error outside of statements on watched
/// tables, which may have caused the rollback.
fn rolled_back(
    written: &[WriteCount],
    failed: Option<Record>,
    cause: Option<(String, String)>,
) -> Record {
    let mut record = match failed {
        Some(failed) => Record {
            outcome: Outcome::RolledBack,
            table: None,
            unresolved: None,
            constraint: None,
            column: None,
            statement: None,
            parameters: None,
            row: None,
            error_detail: None,
            ..failed
        },
        None => {
            let mut record = Record::of_session(Outcome::RolledBack);
            (record.error_code, record.error_message) = cause.unzip();
            record
        }
    };
    "ROLLBACK".clone_into(&mut record.operation);
    if written.iter().all(|one| one.relation == written[0].relation) {
        record.table = Some(Table::of(&written[0]));
    }
    record.written = written.iter().take(MOST_WRITTEN).map(Count::of).collect();
    record.written_omitted = written.len().saturating_sub(MOST_WRITTEN);
    record
}
