//! Counts what the transaction has written to watched tables, for the entry about its rollback.
//!
//! The rows of a statement count when the statement succeeds. Rows that ROLLBACK TO SAVEPOINT undid
//! still count: they were attempted.

use super::new_entry::NewEntry;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

/// Rows of one table that one operation touched.
#[derive(Clone, Debug)]
pub struct WriteCount {
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
    /// The number of rows. For TRUNCATE, the number of commands.
    pub rows: u64,
    /// Rows of the statement in progress, not yet in `rows`.
    in_statement: u64,
}

thread_local! {
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
    static COUNTS: RefCell<Vec<WriteCount>> = const { RefCell::new(Vec::new()) };
}

/// Turns counting on.
pub fn count_writes() {
    IS_COUNTING.set(true);
}

/// Counts an entry.
pub fn count(entry: &NewEntry) {
    if !IS_COUNTING.get() || !matches!(entry.operation, "INSERT" | "UPDATE" | "DELETE" | "TRUNCATE")
    {
        return;
    }
    let (Some(relation), Some(watch_id)) = (entry.relation, entry.watch_id) else { return };
    COUNTS.with_borrow_mut(|all| {
        let known = all
            .iter_mut()
            .rfind(|known| known.relation == relation && known.operation == entry.operation);
        if let Some(known) = known {
            known.in_statement += 1;
            return;
        }
        let text = |text: Option<&crate::pg::Text>| {
            text.map_or_else(String::new, |text| text.as_str().to_owned())
        };
        all.push(WriteCount {
            relation,
            watch_id,
            schema: text(entry.table_schema),
            table: text(entry.table_name),
            operation: entry.operation,
            rows: 0,
            in_statement: 1,
        });
    });
}

/// A statement begins. Counts of an earlier statement that remain here belong to a failed
/// statement, so they are discarded.
pub fn statement_begins() {
    COUNTS.with_borrow_mut(|all| all.iter_mut().for_each(|count| count.in_statement = 0));
}

/// Called when the statement has succeeded.
pub fn statement_succeeded() {
    COUNTS.with_borrow_mut(|all| {
        all.iter_mut().for_each(|count| count.rows += std::mem::take(&mut count.in_statement))
    });
}

/// The counts of statements that succeeded.
pub fn write_counts() -> Vec<WriteCount> {
    COUNTS.with_borrow(|all| all.iter().filter(|count| count.rows > 0).cloned().collect())
}

/// Like [`write_counts`], after the end of the transaction. Removes the counts.
pub fn take_write_counts() -> Vec<WriteCount> {
    let mut all = COUNTS.take();
    all.retain(|count| count.rows > 0);
    all
}
