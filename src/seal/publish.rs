//! Publishes the checkpoints of a transaction after its commit, and discards the checkpoints if the
//! transaction rolls back. Also writes the checkpoint files that earlier transactions could not
//! write.
//!
//! A session publishes its checkpoints in the callback of its commit. The worker publishes after
//! its transaction has released all locks, so that a slow directory does not block other sessions.

use super::checkpoint_file::{CheckpointFile, Published};
use super::stored_tree::StoredCheckpoint;
use crate::pg::{SpiPlan, current_subtransaction};
use crate::settings;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{IntoDatum, pg_sys};
use pgrx::{PgLogLevel, PgSqlErrorCode};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Maximum number of checkpoints whose files are looked for, from the newest checkpoint backwards.
const LOOK_BACK: i64 = 86_400;
/// Maximum number of missing checkpoint files that one transaction writes.
const CATCH_UP: i64 = 1000;

/// Minimum time between two log messages about the same publishing failure.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// The steps that are still necessary to publish a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishMode {
    /// The checkpoint is new. The file of the new checkpoint and its line in the server's log must
    /// be written.
    New,
    /// The checkpoint is new, but its file must wait, because files of older checkpoints are still
    /// missing. Only the line of the new checkpoint in the server's log is written.
    NewWithoutFile,
    /// An earlier transaction made the checkpoint, but the file of the checkpoint does not exist.
    /// Only the file must be written.
    FileOnly,
}

struct Waiting {
    publication: CheckpointFile,
    mode: PublishMode,
    subtransaction: pg_sys::SubTransactionId,
}

thread_local! {
    static WAITING: RefCell<Vec<Waiting>> = const { RefCell::new(Vec::new()) };
    static PUBLISHED_TO: RefCell<Option<(String, u64)>> = const { RefCell::new(None) };
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
    static LOGGED: RefCell<Vec<(String, Instant)>> = const { RefCell::new(Vec::new()) };
    /// The checkpoints that the worker has committed and not published yet. The value is `None` in
    /// a process that is not the worker.
    static COMMITTED: RefCell<Option<Vec<Waiting>>> = const { RefCell::new(None) };
}

/// Registers a checkpoint, which will be published when the current transaction commits.
pub fn publish_later(publication: CheckpointFile, mode: PublishMode) {
    let subtransaction = current_subtransaction();
    WAITING.with_borrow_mut(|waiting| waiting.push(Waiting { publication, mode, subtransaction }));
}

/// Returns whether the commit of the current transaction will write the checkpoint file of tree
/// size `size`.
pub fn is_waiting(size: u64) -> bool {
    WAITING.with_borrow(|waiting| {
        waiting
            .iter()
            .any(|one| one.publication.size == size && one.mode != PublishMode::NewWithoutFile)
    })
}

/// Returns the tree size up to which all checkpoints have files in `directory`. Returns `None` if
/// this process does not know this tree size.
pub fn published_to(directory: &str) -> Option<u64> {
    PUBLISHED_TO.with_borrow(|known| {
        known.as_ref().filter(|(of, _)| of == directory).map(|&(_, size)| size)
    })
}

/// Records that all checkpoints up to tree size `size` have files in `directory`.
pub fn note_published_to(directory: &str, size: u64) {
    PUBLISHED_TO.set(Some((directory.to_owned(), size)));
}

/// Returns the newest publishing failure that [`note_failure`] has recorded since the previous call
/// of `take_failure`. Returns `None` if there was no failure.
pub fn take_failure() -> Option<String> {
    FAILURE.take()
}

/// Records a publishing failure. Writes a warning if the same failure was not logged within the
/// last minute.
pub fn note_failure(error: String) {
    let is_news = LOGGED.with_borrow_mut(|logged| {
        logged.retain(|(_, at)| at.elapsed() < REPEAT_AFTER);
        let is_news = logged.iter().all(|(text, _)| *text != error);
        if is_news {
            logged.push((error.clone(), Instant::now()));
        }
        is_news
    });
    if is_news {
        ErrorReport::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("a checkpoint of the audit log could not be published: {error}"),
            "lead_audit",
        )
        .set_hint(
            "It is stored in lead_audit.checkpoint. Sealing goes on, and each time tries to \
             publish it again.",
        )
        .report(PgLogLevel::WARNING);
    }
    FAILURE.set(Some(error));
}

/// Publishes the registered checkpoints of a committed transaction, or discards the registered
/// checkpoints of a rolled-back transaction. In the worker, this function only moves the
/// checkpoints to `COMMITTED`, and `publish_committed` publishes them later.
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

/// Marks this process as the worker, which publishes its checkpoints with [`publish_committed`].
pub fn publish_by_itself() {
    COMMITTED.set(Some(Vec::new()));
}

/// Publishes the checkpoints that the worker has committed. The worker calls this function outside
/// of transactions.
pub fn publish_committed() {
    publish(&COMMITTED.replace(Some(Vec::new())).unwrap_or_default());
}

/// Discards the registered checkpoints of a subtransaction that has rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    WAITING.with_borrow_mut(|waiting| waiting.retain(|one| one.subtransaction < own));
}

/// Assigns the registered checkpoints of a committed subtransaction to its parent.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    WAITING.with_borrow_mut(|waiting| {
        waiting
            .iter_mut()
            .filter(|one| one.subtransaction >= own)
            .for_each(|one| one.subtransaction = parent);
    });
}

/// Publishes checkpoints to the server's log and to the directory. Never raises an error, because
/// sessions call this function in the callback of a commit.
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
    // The files are written in ascending order of tree sizes. If one file cannot be written, the
    // other files most likely cannot be written either. After a failed write, the loop stops, and a
    // later round of sealing writes the remaining files.
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

/// Registers the committed checkpoints whose files are missing after a crash or a failure. The
/// commit of the current transaction writes the missing files. Returns false if more files are
/// missing than one transaction may write.
pub fn publish_missing(snapshot: pg_sys::Snapshot, newest: Option<&StoredCheckpoint>) -> bool {
    let (Some(directory), Some(newest)) = (settings::CHECKPOINT_DIR.get(), newest) else {
        return true;
    };
    if published_to(&directory) == Some(newest.size) || is_waiting(newest.size) {
        return true;
    }
    let older = SpiPlan::prepare(
        "SELECT c.tree_size, c.note FROM lead_audit.checkpoint c WHERE c.tree_size < $1 \
         ORDER BY c.tree_size DESC LIMIT 1",
        &[pg_sys::INT8OID],
    );
    let is_missing = |publication: &CheckpointFile| match publication.look_in(&directory) {
        Ok(Published::Yes) => false,
        Ok(Published::No) => true,
        // A file that contains another text than the note, or that cannot be read, counts as
        // missing. The later attempt to write the missing file reports the error.
        Ok(Published::Another) | Err(_) => true,
    };
    let mut candidate = CheckpointFile { size: newest.size, note: newest.note.clone() };
    if !is_missing(&candidate) {
        note_published_to(&directory, newest.size);
        return true;
    }
    let mut oldest_missing = candidate.size;
    for _ in 1..LOOK_BACK {
        pgrx::check_for_interrupts!();
        let rows = older.read(snapshot, &[(candidate.size as i64).into_datum()]);
        let (Some(size), Some(note)) = (rows.get::<i64>(0, 0), rows.get(0, 1)) else { break };
        candidate = CheckpointFile { size: size as u64, note };
        if !is_missing(&candidate) {
            break;
        }
        oldest_missing = candidate.size;
    }
    let missing = SpiPlan::prepare(
        "SELECT c.tree_size, c.note FROM lead_audit.checkpoint c WHERE c.tree_size >= $1 \
         ORDER BY c.tree_size LIMIT $2",
        &[pg_sys::INT8OID, pg_sys::INT8OID],
    );
    let rows =
        missing.read(snapshot, &[(oldest_missing as i64).into_datum(), CATCH_UP.into_datum()]);
    for row in 0..rows.len() {
        if let (Some(size), Some(note)) = (rows.get::<i64>(row, 0), rows.get(row, 1)) {
            publish_later(CheckpointFile { size: size as u64, note }, PublishMode::FileOnly);
        }
    }
    (rows.len() as i64) < CATCH_UP
}
