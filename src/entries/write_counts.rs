//! Counts the rows that the transaction has written to watched tables, for the entry about its
//! rollback.
//!
//! The rows of a statement are counted when the statement succeeds. Rows that ROLLBACK TO SAVEPOINT
//! undid remain counted, because the transaction attempted them.

use super::new_entry::NewEntry;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

/// The number of rows of one table that one kind of operation wrote.
#[derive(Clone, Debug)]
pub struct WriteCount {
    /// The table.
    pub relation: pg_sys::Oid,
    /// The identity of the watched table.
    pub watch_id: [u8; 16],
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// INSERT, UPDATE, DELETE or TRUNCATE.
    pub operation: &'static str,
    /// The number of rows. For TRUNCATE, the number of commands.
    pub rows: u64,
    /// Number of rows that the statement in progress has written, not yet part of `rows`.
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

/// Called when a statement begins. Discards the rows in `in_statement`, which an earlier statement
/// has left because it failed.
pub fn statement_begins() {
    COUNTS.with_borrow_mut(|all| all.iter_mut().for_each(|count| count.in_statement = 0));
}

/// Called when the statement has succeeded.
pub fn statement_succeeded() {
    COUNTS.with_borrow_mut(|all| {
        all.iter_mut().for_each(|count| count.rows += std::mem::take(&mut count.in_statement))
    });
}

/// Returns the counts of the statements that succeeded.
pub fn write_counts() -> Vec<WriteCount> {
    COUNTS.with_borrow(|all| all.iter().filter(|count| count.rows > 0).cloned().collect())
}

/// Returns the same as [`write_counts`], and removes all counts. Called when the transaction has
/// ended.
pub fn take_write_counts() -> Vec<WriteCount> {
    let mut all = COUNTS.take();
    all.retain(|count| count.rows > 0);
    all
}
