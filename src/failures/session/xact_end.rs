//! A transaction or subtransaction ends: now it is known what failed. A record that was made when
//! an error was raised is final if the error is reported, or if the statement's own
//! (sub)transaction is rolled back; it is dropped if only one within the statement is: somebody
//! caught the error, and the statement went on.
//!
//! Unwritten entries are final when the transaction commits: where it does not, no entry is
//! missing.
//!
//! Records go into the queue before it is known whether they are final. What runs after COMMIT or
//! ABORT confirms or cancels them there, which takes neither memory nor time that depends on them.

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

/// Where a record is.
enum Place {
    /// In the queue, where it does not count yet.
    Reserved(u32),
    /// Only here: there was no room in the queue.
    Unqueued(Vec<u8>),
    /// In the queue, the server's log, or nowhere for lack of memory: there is nothing more to do.
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

    /// The record is final. Returns what the server's log is to have of it, if the queue still has
    /// no room.
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

    /// There was no such failure.
    fn cancel(&mut self) {
        if let Place::Reserved(reserved) = std::mem::replace(self, Place::Final) {
            record::cancel(reserved);
        }
    }
}

/// An error that was raised and has not ended anything yet.
struct Candidate {
    record: Record,
    place: Place,
    /// The subtransaction that the statement ran in.
    statement: pg_sys::SubTransactionId,
    /// The one in which the error was raised, which may lie within it.
    innermost: pg_sys::SubTransactionId,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.place.cancel();
    }
}

/// Most unwritten entries of one transaction that wait for its commit; more of them go to the
/// server's log at once.
const MOST_UNWRITTEN: usize = 10_000;

#[derive(Default)]
struct State {
    candidate: Option<Candidate>,
    /// Whether the error took the one statement that the transaction was.
    whole_transaction: bool,
    /// The last error that was of no statement on a watched table, by SQLSTATE and message.
    cause: Option<(String, String)>,
    unwritten: Vec<(pg_sys::SubTransactionId, Record)>,
    /// Unwritten entries that were put into the queue when the transaction began to commit.
    reserved_unwritten: Vec<Place>,
    /// What is being written to the server's log.
    line: Option<LogLine>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// An error was raised in a statement that runs in the given subtransaction.
pub fn error_raised(mut record: Record, statement: pg_sys::SubTransactionId) {
    let innermost = current_subtransaction();
    STATE.with_borrow_mut(|state| {
        // One that passes through code in Rust is raised anew there, and says less the second time.
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

/// The error that is being raised ends a transaction that was one statement only.
pub fn is_whole_transaction() {
    STATE.with_borrow_mut(|state| state.whole_transaction = true);
}

/// An error was raised that is of no statement on a watched table: it may be why the transaction is
/// rolled back.
pub fn cause(code: &str, message: &str) {
    STATE.with_borrow_mut(|state| state.cause = Some((code.to_owned(), message.to_owned())));
}

/// An error is being reported: nobody has caught it, so its record is final. Returns what the
/// server's log is to have of it where the queue has no room, a C string that lives until the next
/// record, or null. If there is one, `end_record` follows.
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

/// An entry could not be written.
pub fn entry_not_written(operation: &str, entry: &UnwrittenEntry, cause: &ServerError) {
    let mut record = Record::of_session(Outcome::Unwritten);
    operation.clone_into(&mut record.operation);
    record.table = Some(Table {
        relation: entry.relation.map_or(0, |relation| relation.to_u32()),
        watch_id: entry.watch_id,
        schema: entry.schema.to_owned(),
        name: entry.table.to_owned(),
    });
    // A key is JSON, and of no use if it is cut.
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

/// The transaction is about to commit or to be prepared: its unwritten entries go into the queue,
/// where they count when it has. May raise an error.
pub fn before_commit() {
    let unwritten = STATE.with_borrow_mut(|state| std::mem::take(&mut state.unwritten));
    for (_, mut record) in unwritten {
        let mut place = Place::of(&mut record);
        // For want of room in the queue, the server's log has it a little early.
        if matches!(place, Place::Unqueued(_)) {
            place.finalize().iter().for_each(LogLine::write);
        }
        STATE.with_borrow_mut(|state| state.reserved_unwritten.push(place));
    }
}

/// The subtransaction was rolled back. It may have ended a statement on a watched table.
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

/// The subtransaction was committed: its unwritten entries are its parent's now.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    STATE.with_borrow_mut(|state| {
        for (subtransaction, _) in &mut state.unwritten {
            if *subtransaction >= own {
                *subtransaction = parent;
            }
        }
    });
}

/// The transaction is over.
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
            // Who it was when the error was raised: what SET LOCAL said is gone by now.
            let failed =
                state.candidate.as_mut().map(|candidate| std::mem::take(&mut candidate.record));
            record::send(&mut rolled_back(&written, failed, state.cause.take()));
        }
    } else {
        state
            .reserved_unwritten
            .iter_mut()
            .for_each(|place| place.finalize().iter().for_each(LogLine::write));
        // Of what other callbacks wrote while the transaction was about to commit.
        state.unwritten.iter_mut().for_each(|(_, record)| record::send(record));
    }
    temporary_tables::transaction_ends(end == TransactionEnd::Committed);
    statement_text::transaction_ends();
    watched_relations::transaction_ends();
}

/// Most tables and operations that the entry of a transaction that was rolled back lists.
const MOST_WRITTEN: usize = 100;

/// The one entry of a transaction that was rolled back.
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
