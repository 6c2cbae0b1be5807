//! Implements the function of the triggers `sealing_only`, which let only sealing change the tables
//! that store the tree.

use crate::pg::ServerError;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::Cell;

thread_local! {
    static SEALING: Cell<u32> = const { Cell::new(0) };
}

/// While a value of this type is alive, this session may change the tables that store the tree.
pub struct Sealing(());

impl Sealing {
    /// Permits changes of the tables that store the tree, until the returned value is dropped.
    pub fn begin() -> Self {
        SEALING.set(SEALING.get() + 1);
        Sealing(())
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        SEALING.set(SEALING.get().saturating_sub(1));
    }
}

/// Tells PostgreSQL the calling convention of `lead_audit_guard_tree`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_guard_tree() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit_internal.guard_tree()`: raises an error if anything except sealing changes a table
/// that stores the tree.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn lead_audit_guard_tree(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    if SEALING.get() == 0 {
        ServerError {
            code: PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            message: "the tree of the audit log is changed by sealing only".to_owned(),
            detail: None,
        }
        .raise(Some("lead_audit.seal() and the background worker write it.".to_owned()));
    }
    // A statement-level trigger must return a null pointer.
    pg_sys::Datum::from(0)
}
