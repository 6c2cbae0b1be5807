//! A transaction that has sealed publishes its checkpoints when it was committed, and forgets them
//! when it was rolled back. Those that an earlier one could not publish get their files with it.
//!
//! A session publishes at once, in the callback of the commit. The worker does it when the
//! transaction is over: then a slow directory holds no lock, and nobody who seals waits for it.

use super::publication::{Publication, Published};
use super::stored_tree::StoredCheckpoint;
use crate::pg::{SpiPlan, current_subtransaction};
use crate::settings;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_sys};
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How many checkpoints are looked back at to find which have been published, and how many of them
/// are published at once.
const LOOK_BACK: i64 = 86_400;
const CATCH_UP: i64 = 1000;

/// The same failure is not reported more often than this.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What is to be done with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishMode {
    /// It is new.
    New,
    /// It is new, but older ones have to get their files before it gets its own.
    NewWithoutFile,
    /// An earlier transaction has committed it, and it has no file.
    FileOnly,
}

struct Waiting {
    publication: Publication,
    mode: PublishMode,
    subtransaction: pg_sys::SubTransactionId,
}

thread_local! {
    static WAITING: RefCell<Vec<Waiting>> = const { RefCell::new(Vec::new()) };
    static PUBLISHED_TO: RefCell<Option<(String, u64)>> = const { RefCell::new(None) };
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
    static SAID: RefCell<Vec<(String, Instant)>> = const { RefCell::new(Vec::new()) };
    /// What the worker has committed, and has not published yet; `None` in a session.
    static COMMITTED: RefCell<Option<Vec<Waiting>>> = const { RefCell::new(None) };
}

/// Publishes it if and when the present transaction is committed.
pub fn publish_later(publication: Publication, mode: PublishMode) {
    let subtransaction = current_subtransaction();
    WAITING.with_borrow_mut(|waiting| waiting.push(Waiting { publication, mode, subtransaction }));
}

/// Whether this checkpoint gets its file at the commit already.
pub fn is_waiting(size: u64) -> bool {
    WAITING.with_borrow(|waiting| {
        waiting
            .iter()
            .any(|one| one.publication.size == size && one.mode != PublishMode::NewWithoutFile)
    })
}

/// Up to which tree size this process knows the directory to be complete.
pub fn published_to(directory: &str) -> Option<u64> {
    PUBLISHED_TO.with_borrow(|known| {
        known.as_ref().filter(|(of, _)| of == directory).map(|&(_, size)| size)
    })
}

/// Takes note that the directory is complete up to this tree size.
pub fn note_published_to(directory: &str, size: u64) {
    PUBLISHED_TO.set(Some((directory.to_owned(), size)));
}

/// Takes the failure to publish that this process has met since the last call.
pub fn take_failure() -> Option<String> {
    FAILURE.take()
}

/// Takes note of a failure to publish, and says so, if not just said.
pub fn note_failure(error: String) {
    let is_news = SAID.with_borrow_mut(|said| {
        said.retain(|(_, at)| at.elapsed() < SAY_AGAIN);
        let is_news = said.iter().all(|(text, _)| *text != error);
        if is_news {
            said.push((error.clone(), Instant::now()));
        }
        is_news
    });
    if is_news {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("a checkpoint of the audit log could not be published: {error}"),
            "lead_audit",
        )
        .set_hint("It is stored in lead_audit.checkpoint. Sealing goes on, and each time tries to publish it again.")
        .report(PgLogLevel::WARNING);
    }
    FAILURE.set(Some(error));
}

/// The transaction is over. One that was prepared ends in another process, which knows nothing of
/// this: the next sealing finds what is missing.
pub fn transaction_ends(committed: bool) {
    let waiting = WAITING.take();
    if !committed || waiting.is_empty() {
        return;
    }
    let rest = COMMITTED.with_borrow_mut(|committed| match committed {
        Some(committed) => {
            committed.extend(waiting);
            None
        }
        None => Some(waiting),
    });
    publish(&rest.unwrap_or_default());
}

/// This process is the worker: it publishes what it has committed by [`publish_committed`].
pub fn publish_by_itself() {
    COMMITTED.set(Some(Vec::new()));
}

/// In the worker, between transactions: publishes what it has committed.
pub fn publish_committed() {
    publish(&COMMITTED.replace(Some(Vec::new())).unwrap_or_default());
}

/// A subtransaction was rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    WAITING.with_borrow_mut(|waiting| waiting.retain(|one| one.subtransaction < own));
}

/// A subtransaction was committed.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    WAITING.with_borrow_mut(|waiting| {
        waiting
            .iter_mut()
            .filter(|one| one.subtransaction >= own)
            .for_each(|one| one.subtransaction = parent);
    });
}

/// In the callback of a commit nothing may raise an error.
fn publish(all: &[Waiting]) {
    for one in all.iter().filter(|one| one.mode != PublishMode::FileOnly) {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            one.publication.log_line(),
            "lead_audit",
        )
        .report(PgLogLevel::LOG);
    }
    let Some(directory) = settings::CHECKPOINT_DIR.get() else { return };
    // In ascending order: what comes after a failure would most likely fail too, and waits for the
    // next time.
    for one in all.iter().filter(|one| one.mode != PublishMode::NewWithoutFile) {
        match one.publication.write_to(&directory) {
            Ok(()) => note_published_to(&directory, one.publication.size),
            Err(error) => {
                PUBLISHED_TO.set(None);
                return note_failure(error);
            }
        }
    }
}

/// Checkpoints that were committed and have no file, because of a crash or a failure, get one with
/// this transaction. False, if they are too many to get them all at once.
pub fn publish_missing(snapshot: pg_sys::Snapshot, newest: Option<&StoredCheckpoint>) -> bool {
    let (Some(directory), Some(newest)) = (settings::CHECKPOINT_DIR.get(), newest) else {
        return true;
    };
    if published_to(&directory) == Some(newest.size) || is_waiting(newest.size) {
        return true;
    }
    let older = SpiPlan::prepare(
        "SELECT c.tree_size, c.note FROM lead_audit.checkpoint c WHERE c.tree_size < $1 ORDER BY c.tree_size DESC LIMIT 1",
        &[pg_sys::INT8OID],
    );
    let is_missing = |publication: &Publication| match publication.look_in(&directory) {
        Ok(Published::Yes) => false,
        Ok(Published::No) => true,
        // To write it says what is wrong.
        Ok(Published::Another) | Err(_) => true,
    };
    let mut candidate = Publication { size: newest.size, note: newest.note.clone() };
    if !is_missing(&candidate) {
        note_published_to(&directory, newest.size);
        return true;
    }
    let mut oldest_missing = candidate.size;
    for _ in 1..LOOK_BACK {
        pgrx::check_for_interrupts!();
        let rows = older.read(snapshot, &[(candidate.size as i64).into_datum()]);
        let (Some(size), Some(note)) = (rows.get::<i64>(0, 0), rows.get(0, 1)) else { break };
        candidate = Publication { size: size as u64, note };
        if !is_missing(&candidate) {
            break;
        }
        oldest_missing = candidate.size;
    }
    let missing = SpiPlan::prepare(
        "SELECT c.tree_size, c.note FROM lead_audit.checkpoint c WHERE c.tree_size >= $1 ORDER BY c.tree_size LIMIT $2",
        &[pg_sys::INT8OID, pg_sys::INT8OID],
    );
    let rows =
        missing.read(snapshot, &[(oldest_missing as i64).into_datum(), CATCH_UP.into_datum()]);
    for row in 0..rows.len() {
        if let (Some(size), Some(note)) = (rows.get::<i64>(row, 0), rows.get(row, 1)) {
            publish_later(Publication { size: size as u64, note }, PublishMode::FileOnly);
        }
    }
    (rows.len() as i64) < CATCH_UP
}
