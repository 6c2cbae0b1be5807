//! What the transaction has written to watched tables so far, counted: for the entry that it leaves if it is rolled back.
//!
//! Rows of a statement count when it has succeeded. Those that ROLLBACK TO SAVEPOINT undid count all the same: they were tried.

use super::new_entry::NewEntry;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

/// Rows of one table that one operation touched.
#[derive(Clone, Debug)]
pub struct Written {
    /// The table.
    pub relation: pg_sys::Oid,
    /// Its identity.
    pub watch_id: [u8; 16],
    /// Its schema's name.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// INSERT, UPDATE, DELETE or TRUNCATE.
    pub operation: &'static str,
    /// How many rows; of a TRUNCATE, how often.
    pub rows: u64,
    /// Of these, rows of the statement that is under way.
    unsettled: u64,
}

thread_local! {
    static FOLLOWED: Cell<bool> = const { Cell::new(false) };
    static WRITTEN: RefCell<Vec<Written>> = const { RefCell::new(Vec::new()) };
}

/// Somebody wants to know: counts from now on.
pub fn follow() {
    FOLLOWED.set(true);
}

/// Counts an entry.
pub fn count(entry: &NewEntry) {
    if !FOLLOWED.get() || !matches!(entry.operation, "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE") {
        return;
    }
    let (Some(relation), Some(watch_id)) = (entry.relation, entry.watch_id) else { return };
    WRITTEN.with_borrow_mut(|all| {
        let known = all.iter_mut().rfind(|known| known.relation == relation && known.operation == entry.operation);
        if let Some(known) = known {
            known.unsettled += 1;
            return;
        }
        let text = |text: Option<&crate::pg::Text>| text.map_or_else(String::new, |text| text.as_str().to_owned());
        all.push(Written {
            relation,
            watch_id,
            schema: text(entry.table_schema),
            table: text(entry.table_name),
            operation: entry.operation,
            rows: 0,
            unsettled: 1,
        });
    });
}

/// A statement begins: what is left of one before it, which must have failed, does not count.
pub fn statement_begins() {
    WRITTEN.with_borrow_mut(|all| all.iter_mut().for_each(|written| written.unsettled = 0));
}

/// The statement has succeeded.
pub fn settle() {
    WRITTEN.with_borrow_mut(|all| all.iter_mut().for_each(|written| written.rows += std::mem::take(&mut written.unsettled)));
}

/// What statements that succeeded have written.
pub fn written() -> Vec<Written> {
    WRITTEN.with_borrow(|all| all.iter().filter(|written| written.rows > 0).cloned().collect())
}

/// The same, when the transaction is over.
pub fn take() -> Vec<Written> {
    let mut all = WRITTEN.take();
    all.retain(|written| written.rows > 0);
    all
}
