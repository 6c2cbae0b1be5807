//! In the worker: each checkpoint is sent to those who LISTEN, in a transaction of its own.
//!
//! NOTIFY can fail when its transaction is committed, and any session that may connect can bring
//! that about: PostgreSQL's queue of notifications is one for the whole cluster. So sealing never
//! calls it, and a checkpoint that could not be sent is sent later.

use super::publish::note_failure;
use super::stored_tree::tree_exists;
use crate::pg::{NewestSnapshot, ServerError, SpiPlan, in_extension_transaction, with_spi};
use pgrx::{IntoDatum, pg_sys};
use std::cell::Cell;

/// The channel.
const CHANNEL: &str = "lead_audit_checkpoint";

/// Checkpoints that are sent in one transaction at most. If more are waiting, the older ones are
/// left out.
const MOST: i64 = 1000;

thread_local! {
    /// The tree size of the last checkpoint that this worker has sent.
    static SENT_TO: Cell<Option<i64>> = const { Cell::new(None) };
    static HAS_FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Sends the checkpoints that have been committed since the last time, whoever sealed them; a new
/// worker the newest one. Returns whether that succeeded; if not, it was said.
pub fn notify() -> bool {
    let sent = in_extension_transaction(c"sending checkpoints", send);
    HAS_FAILED.set(sent.is_err());
    match sent {
        Ok(sent_to) => SENT_TO.set(sent_to.flatten().or(SENT_TO.get())),
        Err(ServerError { message, .. }) => note_failure(format!("NOTIFY: {message}")),
    }
    !HAS_FAILED.get()
}

/// Returns the size of the newest one; `None` where there is no log.
fn send() -> Option<i64> {
    // SAFETY: reads a variable in shared memory.
    if !tree_exists() || unsafe { pg_sys::RecoveryInProgress() } {
        return None;
    }
    if HAS_FAILED.get() {
        // To ask how full the queue is makes PostgreSQL drop what nobody waits for any more. A full
        // queue does not do so by itself.
        queue_is_full();
    }
    with_spi(|| {
        let (after, most) = SENT_TO.get().map_or((-1, 1), |sent_to| (sent_to, MOST));
        let newest = SpiPlan::prepare(
            "SELECT c.tree_size, c.note FROM lead_audit.checkpoint c WHERE c.tree_size > $1 ORDER BY c.tree_size DESC LIMIT $2",
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

/// Whether PostgreSQL's queue of notifications is full, or nearly so: no transaction with a NOTIFY
/// can be committed then.
pub fn queue_is_full() -> bool {
    // A share of the whole. It ends a little below 1, as PostgreSQL counts whole segments of the
    // queue.
    const FULL: f64 = 0.99;
    // SAFETY: the function takes no argument, and reads shared memory under a lock of its own.
    let usage =
        unsafe { pgrx::direct_function_call::<f64>(pg_sys::pg_notification_queue_usage, &[]) };
    usage.is_some_and(|usage| usage >= FULL)
}
