//! `lead_audit.seal()`, and the tick of the background worker.

use super::round::{self, Done};
use super::stored_tree::tree_exists;
use crate::entries::relation_of_schema;
use crate::pg::{ServerError, lock_task};
use crate::version::{self, Need};
use pgrx::{PgSqlErrorCode, pg_extern, pg_sys};

/// Ids that one tick looks at, so that its transaction does not last.
const TICK_IDS: u64 = 1 << 20;

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
