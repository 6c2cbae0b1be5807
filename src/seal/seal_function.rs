//! `lead_audit.seal()`, and the tick of the background worker.

use super::round::{self, Done};
use super::stored_tree::tree_exists;
use crate::entries::relation_of_schema;
use crate::pg::{ServerError, current_subtransaction, lock_task};
use crate::version::{self, Need};
use pgrx::{PgSqlErrorCode, pg_extern, pg_sys};
use std::cell::Cell;

/// Ids that one tick looks at, so that its transaction does not last.
const TICK_IDS: u64 = 1 << 20;

/// InvalidSubTransactionId.
const NOWHERE: pg_sys::SubTransactionId = 0;

thread_local! {
    /// The outermost subtransaction that holds the lock of sealing.
    static LOCKED_IN: Cell<pg_sys::SubTransactionId> = const { Cell::new(NOWHERE) };
}

/// The transaction is about to be prepared. Its lock would outlast the session and keep everybody
/// from sealing, so that is an error.
pub fn before_prepare() {
    if LOCKED_IN.get() != NOWHERE {
        ServerError {
            code: PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            message: "cannot PREPARE a transaction that has sealed the audit log".to_owned(),
            detail: Some("Nobody else could seal until the transaction ends.".to_owned()),
        }
        .raise(None)
    }
}

/// The transaction is over, and its locks are released.
pub fn transaction_ends() {
    LOCKED_IN.set(NOWHERE);
}

/// A subtransaction was rolled back, and its locks are released.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    if LOCKED_IN.get() >= own {
        LOCKED_IN.set(NOWHERE);
    }
}

/// A subtransaction was committed, and its locks are those of its parent.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    if LOCKED_IN.get() >= own {
        LOCKED_IN.set(parent);
    }
}

/// `lead_audit.seal()`: returns the size of the tree.
#[pg_extern(sql = false)]
fn seal() -> i64 {
    version::require();
    match refuse_where_it_cannot_be().and_then(|()| seal_locked(true, None)) {
        Ok(Some(done)) => done.tree_size as i64,
        // With waiting the lock is always got.
        Ok(None) => 0,
        Err(error) => error.raise(None),
    }
}

/// One tick of the background worker, within a transaction of its own: seals what can be sealed
/// and, when that is committed, publishes it. Returns whether there is more to do at once. Where
/// the tables are missing or somebody else is sealing, it does nothing.
pub fn tick() -> bool {
    if !tree_exists() {
        return false;
    }
    match refuse_where_it_cannot_be().and_then(|()| seal_locked(false, Some(TICK_IDS))) {
        Ok(done) => done.is_some_and(|done| done.more),
        Err(error) => error.raise(None),
    }
}

fn seal_locked(wait: bool, limit: Option<u64>) -> Result<Option<Done>, ServerError> {
    // The table's lock is that of writing to it: who drops it waits.
    if lock_task(relation_of_schema(c"tree"), wait) {
        if LOCKED_IN.get() == NOWHERE {
            LOCKED_IN.set(current_subtransaction());
        }
        round::run(limit).map(Some)
    } else {
        Ok(None)
    }
}

fn refuse_where_it_cannot_be() -> Result<(), ServerError> {
    // SAFETY: these read the state of the server and of the transaction.
    let (in_recovery, read_only, serializable) = unsafe {
        (
            pg_sys::RecoveryInProgress(),
            pg_sys::XactReadOnly,
            pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32,
        )
    };
    let refused = |code, message: &str, detail: &str| {
        Err(ServerError { code, message: message.to_owned(), detail: Some(detail.to_owned()) })
    };
    if in_recovery {
        return refused(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "the audit log cannot be sealed during recovery",
            "This server is a standby. Entries are sealed on the primary, and the checkpoints come here with the entries.",
        );
    }
    if read_only {
        return refused(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "the audit log cannot be sealed in a read-only transaction",
            "Sealing writes checkpoints.",
        );
    }
    if serializable {
        return refused(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "the audit log cannot be sealed in a serializable transaction",
            "Its reading would make serializable writers fail. Use READ COMMITTED or REPEATABLE READ.",
        );
    }
    version::check(Need::Everything)
}
