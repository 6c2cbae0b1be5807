//! A transaction or subtransaction ends: now it is known what failed. A record that was made when an error was raised is sent if
//! the statement's own (sub)transaction is rolled back, and dropped if only one within the statement is: somebody caught the
//! error, and the statement went on.
//!
//! Gaps are sent when the transaction commits: where it does not, no entry is missing.

use super::raised;
use super::record::{self, Record, Table};
use super::temporary;
use super::watched;
use crate::journal::{self, Gap, Outcome};
use crate::server::{ServerError, current_subtransaction};
use crate::settings;
use pgrx::pg_sys;
use std::cell::RefCell;

/// An error that was raised and has not ended anything yet.
struct Candidate {
    record: Record,
    /// Where it lies in the queue, if there was room.
    reserved: Option<u32>,
    /// The subtransaction that the statement ran in.
    statement: pg_sys::SubTransactionId,
    /// The one in which the error was raised, which may lie within it.
    innermost: pg_sys::SubTransactionId,
}

impl Candidate {
    /// The failure took place.
    fn send(&mut self) {
        match self.reserved.take() {
            Some(reserved) => record::confirm(reserved),
            None => record::send(&self.record),
        }
    }
}

impl Drop for Candidate {
    /// One that was not sent is none.
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            record::cancel(reserved);
        }
    }
}

#[derive(Default)]
struct State {
    candidate: Option<Candidate>,
    /// Whether the error took the one statement that the transaction was.
    whole_transaction: bool,
    /// The last error that was of no statement on a watched table, by SQLSTATE and message.
    cause: Option<(String, String)>,
    gaps: Vec<(pg_sys::SubTransactionId, Record)>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Installs the callbacks.
pub fn install() {
    // SAFETY: called once, while the library is loaded; callbacks stay for the life of the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
    }
}

/// An error was raised in a statement that runs in the given subtransaction.
pub fn raised(record: Record, statement: pg_sys::SubTransactionId) {
    let innermost = current_subtransaction();
    STATE.with_borrow_mut(|state| {
        // One that passes through code in Rust is raised anew there, and says less the second time.
        let same = state.candidate.as_ref().is_some_and(|known| {
            known.record.error_code == record.error_code && known.record.error_message == record.error_message
        });
        if !same {
            state.candidate = None;
            let reserved = record::reserve(&record);
            state.candidate = Some(Candidate { record, reserved, statement, innermost });
        }
    });
}

/// The error that is being raised ends a transaction that was one statement only.
pub fn is_whole_transaction() {
    STATE.with_borrow_mut(|state| state.whole_transaction = true);
}

/// An error was raised that is of no statement on a watched table: it may be why the transaction is rolled back.
pub fn cause(code: &str, message: &str) {
    STATE.with_borrow_mut(|state| state.cause = Some((code.to_owned(), message.to_owned())));
}

/// An entry could not be written.
pub fn gap(operation: &str, gap: &Gap, cause: &ServerError) {
    let mut record = raised::record_of_session(Outcome::Gap);
    operation.clone_into(&mut record.operation);
    record.table = Some(Table {
        relation: gap.relation.map_or(0, |relation| relation.to_u32()),
        watch_id: gap.watch_id,
        schema: gap.schema.to_owned(),
        name: gap.table.to_owned(),
    });
    record.key = gap.key.map(str::to_owned);
    record.error_code = Some(crate::server::sqlstate_text(cause.code));
    record.error_message = Some(cause.message.clone());
    record.error_detail = cause.detail.clone();
    STATE.with_borrow_mut(|state| state.gaps.push((current_subtransaction(), record)));
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut core::ffi::c_void,
) {
    use pg_sys::SubXactEvent as Event;
    match event {
        Event::SUBXACT_EVENT_ABORT_SUB => {
            let failed = STATE.with_borrow_mut(|state| {
                state.gaps.retain(|(subtransaction, _)| *subtransaction < own);
                state.candidate.take_if(|candidate| candidate.innermost >= own)
            });
            if let Some(mut candidate) = failed.filter(|candidate| candidate.statement >= own) {
                candidate.send();
            }
            temporary::subtransaction_fails();
            raised::keep_base();
        }
        Event::SUBXACT_EVENT_COMMIT_SUB => STATE.with_borrow_mut(|state| {
            for (subtransaction, _) in &mut state.gaps {
                if *subtransaction >= own {
                    *subtransaction = parent;
                }
            }
        }),
        _ => {}
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _argument: *mut core::ffi::c_void) {
    use pg_sys::XactEvent as Event;
    if !matches!(event, Event::XACT_EVENT_COMMIT | Event::XACT_EVENT_PREPARE | Event::XACT_EVENT_ABORT) {
        return;
    }
    let mut state = STATE.take();
    if event == Event::XACT_EVENT_ABORT {
        let written = journal::written();
        // Who it was when the error was raised: what SET LOCAL said is gone by now.
        let rolled_back = (!written.is_empty() && !state.whole_transaction && settings::failure::log_rollbacks())
            .then(|| rolled_back(&written, state.candidate.as_ref(), state.cause.as_ref()));
        if let Some(candidate) = &mut state.candidate {
            candidate.send();
        }
        if let Some(record) = rolled_back {
            record::send(&record);
        }
    } else {
        state.gaps.iter().for_each(|(_, record)| record::send(record));
    }
    journal::forget_written();
    temporary::transaction_ends(event == Event::XACT_EVENT_COMMIT);
    raised::transaction_ends();
    watched::transaction_ends();
    raised::keep_base();
}

/// The one entry of a transaction that was rolled back.
fn rolled_back(written: &[journal::Written], failed: Option<&Candidate>, cause: Option<&(String, String)>) -> Record {
    let mut record = match failed {
        Some(candidate) => Record {
            outcome: Outcome::RolledBack,
            table: None,
            unresolved: None,
            constraint: None,
            column: None,
            statement: None,
            parameters: None,
            row: None,
            error_detail: None,
            ..candidate.record.clone()
        },
        None => raised::record_of_session(Outcome::RolledBack),
    };
    if failed.is_none()
        && let Some((code, message)) = cause
    {
        record.error_code = Some(code.clone());
        record.error_message = Some(message.clone());
    }
    "ROLLBACK".clone_into(&mut record.operation);
    if written.iter().all(|one| one.relation == written[0].relation) {
        record.table = Some(raised::table_written(&written[0]));
    }
    record.written = raised::counts(written);
    record
}
