//! Sends each checkpoint with NOTIFY to the sessions that listen. The worker sends a checkpoint in
//! a separate transaction, after the commit of the transaction that stored the checkpoint.
//!
//! NOTIFY can fail at commit: the whole cluster shares one queue of notifications, and any session
//! can fill this queue. Therefore a transaction that seals never calls NOTIFY. If NOTIFY fails, the
//! worker sends the same checkpoints later.

use super::publish::note_failure;
use super::stored_tree::tree_exists;
use crate::pg::{NewestSnapshot, ServerError, SpiPlan, in_extension_transaction, with_spi};
use pgrx::{IntoDatum, pg_sys};
use std::cell::Cell;

/// The name of the NOTIFY channel.
const CHANNEL: &str = "lead_audit_checkpoint";

/// Maximum number of checkpoints sent in one transaction. If more checkpoints are waiting, only the
/// newest checkpoints are sent.
const MOST: i64 = 1000;

thread_local! {
    /// The tree size of the last checkpoint that this worker has sent.
    static SENT_TO: Cell<Option<i64>> = const { Cell::new(None) };
    static HAS_FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Sends the checkpoints that any session has committed since the last call. The first call of a
/// worker sends the newest checkpoint only. Logs an error instead of raising it, and returns
/// whether sending succeeded.
pub fn notify() -> bool {
    let sent = in_extension_transaction(c"sending checkpoints", send);
    HAS_FAILED.set(sent.is_err());
    match sent {
        Ok(sent_to) => SENT_TO.set(sent_to.flatten().or(SENT_TO.get())),
        Err(ServerError { message, .. }) => note_failure(format!("NOTIFY: {message}")),
    }
    !HAS_FAILED.get()
}

/// Sends the checkpoints that this worker has not sent yet. Returns the tree size of the newest
/// checkpoint, or `None` if the database has no log or the server is in recovery.
fn send() -> Option<i64> {
    // SAFETY: `RecoveryInProgress` only reads a variable in shared memory.
    if !tree_exists() || unsafe { pg_sys::RecoveryInProgress() } {
        return None;
    }
    if HAS_FAILED.get() {
        // `queue_is_full` makes PostgreSQL drop the notifications that every listening session has
        // read. PostgreSQL by itself does not drop read notifications from a full queue.
        queue_is_full();
    }
    with_spi(|| {
        let (after, most) = SENT_TO.get().map_or((-1, 1), |sent_to| (sent_to, MOST));
        let newest = SpiPlan::prepare(
            "SELECT c.tree_size, c.note FROM lead_audit.checkpoint c WHERE c.tree_size > $1 \
             ORDER BY c.tree_size DESC LIMIT $2",
            &[pg_sys::INT8OID, pg_sys::INT8OID],
        );
        let snapshot = NewestSnapshot::take();
        let rows = newest.read(snapshot.as_ptr(), &[after.into_datum(), most.into_datum()]);
        if rows.len() == 0 {
            return Some(after.max(0));
        }
        let notify = SpiPlan::prepare(
            "SELECT pg_catalog.pg_notify($1, $2)",
            &[pg_sys::TEXTOID, pg_sys::TEXTOID],
        );
        for row in (0..rows.len()).rev() {
            let note: Option<String> = rows.get(row, 1);
            notify.write(snapshot.as_ptr(), &[CHANNEL.into_datum(), note.into_datum()]);
        }
        rows.get(0, 0)
    })
}

/// Returns whether PostgreSQL's queue of notifications is full or nearly full. When the queue is
/// full, no transaction that called NOTIFY can commit.
pub fn queue_is_full() -> bool {
    // The queue counts as full when this fraction of the queue is used. The fraction is below 1,
    // because PostgreSQL counts whole segments of the queue.
    const FULL: f64 = 0.99;
    // SAFETY: `pg_notification_queue_usage` takes no argument, and locks the shared memory that it
    // reads.
    let usage =
        unsafe { pgrx::direct_function_call::<f64>(pg_sys::pg_notification_queue_usage, &[]) };
    usage.is_some_and(|usage| usage >= FULL)
}
