//! Sends each checkpoint to the sessions that LISTEN. The worker sends it in a separate
//! transaction, after the sealing has committed.
//!
//! NOTIFY can fail at commit: the whole cluster shares one queue of notifications, and any session
//! that may connect can fill the queue. So sealing never calls NOTIFY. After a failure the worker
//! tries again.

use super::publish::note_failure;
use super::stored_tree::tree_exists;
use crate::pg::{NewestSnapshot, ServerError, SpiPlan, in_extension_transaction, with_spi};
use pgrx::{IntoDatum, pg_sys};
use std::cell::Cell;

/// The channel of the notifications.
const CHANNEL: &str = "lead_audit_checkpoint";

/// Maximum number of checkpoints sent in one transaction. If more are waiting, only the newest are
/// sent.
const MOST: i64 = 1000;

thread_local! {
    /// The tree size of the last checkpoint that this worker has sent.
    static SENT_TO: Cell<Option<i64>> = const { Cell::new(None) };
    static HAS_FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Sends the checkpoints that any session has committed since the last call. The first call of a
/// worker sends the newest checkpoint only. Logs a failure. Returns whether sending succeeded.
pub fn notify() -> bool {
    let sent = in_extension_transaction(c"sending checkpoints", send);
    HAS_FAILED.set(sent.is_err());
    match sent {
        Ok(sent_to) => SENT_TO.set(sent_to.flatten().or(SENT_TO.get())),
        Err(ServerError { message, .. }) => note_failure(format!("NOTIFY: {message}")),
    }
    !HAS_FAILED.get()
}

/// Returns the tree size of the newest checkpoint, or `None` if the database has no log.
fn send() -> Option<i64> {
    // SAFETY: reads a variable in shared memory.
    if !tree_exists() || unsafe { pg_sys::RecoveryInProgress() } {
        return None;
    }
    if HAS_FAILED.get() {
        // This call makes PostgreSQL drop notifications that every listening session has read.
        // PostgreSQL does not drop them from a full queue by itself.
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

/// Returns whether PostgreSQL's queue of notifications is full or nearly full. When it is full, no
/// transaction with a NOTIFY can commit.
pub fn queue_is_full() -> bool {
    // The used fraction of the queue that counts as full. It is below 1, because PostgreSQL counts
    // whole segments.
    const FULL: f64 = 0.99;
    // SAFETY: the function takes no argument, and reads shared memory under a lock of its own.
    let usage =
        unsafe { pgrx::direct_function_call::<f64>(pg_sys::pg_notification_queue_usage, &[]) };
    usage.is_some_and(|usage| usage >= FULL)
}
