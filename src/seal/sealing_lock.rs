//! Takes the sealing lock for `lead_audit.seal()` and for the sealing task of the worker. At most
//! one session at a time holds the sealing lock. Writers of entries and readers never wait for the
//! sealing lock.

use super::round::{self, Done};
use super::stored_tree::tree_exists;
use crate::entries::relation_of_schema;
use crate::pg::{ServerError, current_subtransaction, lock_task};
use crate::version::{self, Need};
use pgrx::{PgSqlErrorCode, pg_extern, pg_sys};
use std::cell::Cell;

/// Maximum number of new ids that the worker examines in one transaction, so that the transaction
/// stays short.
const TICK_IDS: u64 = 1 << 20;

/// The value of `LOCKED_IN` while this session does not hold the sealing lock:
/// InvalidSubTransactionId.
const NOWHERE: pg_sys::SubTransactionId = 0;

thread_local! {
    /// The subtransaction to which the sealing lock of this session belongs.
    static LOCKED_IN: Cell<pg_sys::SubTransactionId> = const { Cell::new(NOWHERE) };
}

/// Refuses to prepare a transaction that holds the sealing lock. A prepared transaction would keep
/// the sealing lock even after its session has ended, and nobody could seal.
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

/// Records that the sealing lock is released, because the transaction has ended.
pub fn transaction_ends() {
    LOCKED_IN.set(NOWHERE);
}

/// Records that the sealing lock is released, if a subtransaction that has rolled back held the
/// lock.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    if LOCKED_IN.get() >= own {
        LOCKED_IN.set(NOWHERE);
    }
}

/// Records that the parent of a committed subtransaction holds the sealing lock, if the
/// subtransaction held the lock.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    if LOCKED_IN.get() >= own {
        LOCKED_IN.set(parent);
    }
}

/// `lead_audit.seal()`: seals all committed entries that are not sealed yet, and returns the size
/// of the tree.
#[pg_extern(sql = false)]
fn seal() -> i64 {
    version::require();
    match refuse_where_it_cannot_be().and_then(|()| seal_locked(true, None)) {
        Ok(Some(done)) => done.tree_size as i64,
        // `seal_locked` returns `None` only if its argument `wait` is false. This call passes
        // `true`, so this arm is never reached.
        Ok(None) => 0,
        Err(error) => error.raise(None),
    }
}

/// Runs one round of sealing for the worker, in a transaction of the worker. Returns whether the
/// worker must call `tick` again at once. Does nothing if lead_audit.tree does not exist or another
/// session is sealing.
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
    // The sealing lock is a lock of its own, for which the oid of lead_audit.tree is only the name.
    // Sealing also takes the usual table lock when it writes to lead_audit.tree, and DROP EXTENSION
    // waits for the table lock.
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
    // SAFETY: these expressions only read the state of the server and of the transaction.
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
            "This server is a standby. Entries are sealed on the primary, and the checkpoints \
             come here with the entries.",
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
            "Its reading would make serializable writers fail. Use READ COMMITTED or REPEATABLE \
             READ.",
        );
    }
    version::check(Need::Everything)
}
