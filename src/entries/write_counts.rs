//! Counts the rows that a transaction has written to watched tables. The entry about the rollback
//! of a transaction contains the numbers of rows that the transaction has written.
//!
//! The rows of a statement count only after the statement has succeeded. Rows that ROLLBACK TO
//! SAVEPOINT has undone still count, because the transaction attempted to write them.

use super::new_entry::NewEntry;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};

/// The number of rows that one kind of operation has written to one table.
#[derive(Clone, Debug)]
pub struct WriteCount {
    /// The table.
    pub relation: pg_sys::Oid,
    /// The watch id of the table.
    pub watch_id: [u8; 16],
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// The kind of operation: INSERT, UPDATE, DELETE or TRUNCATE.
    pub operation: &'static str,
    /// The number of rows that successful statements have written, or the number of commands for
    /// TRUNCATE.
    pub rows: u64,
    /// The number of rows that the statement in progress has written and that `rows` does not
    /// include yet.
    in_statement: u64,
}

thread_local! {
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
    static COUNTS: RefCell<Vec<WriteCount>> = const { RefCell::new(Vec::new()) };
}

/// Turns on the counting of written rows.
pub fn count_writes() {
    IS_COUNTING.set(true);
}

/// Adds 1 to the number of rows for the entry's table and operation.
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

/// Discards the numbers in `in_statement`, which remain from an earlier statement that failed. The
/// module `failures` calls this function when a statement begins.
pub fn statement_begins() {
    COUNTS.with_borrow_mut(|all| all.iter_mut().for_each(|count| count.in_statement = 0));
}

/// Adds the numbers in `in_statement` to `rows`. The module `failures` calls this function when a
/// statement has succeeded.
pub fn statement_succeeded() {
    COUNTS.with_borrow_mut(|all| {
        all.iter_mut().for_each(|count| count.rows += std::mem::take(&mut count.in_statement))
    });
}

/// Returns the numbers of rows that successful statements have written.
pub fn write_counts() -> Vec<WriteCount> {
    COUNTS.with_borrow(|all| all.iter().filter(|count| count.rows > 0).cloned().collect())
}

/// Returns the result of [`write_counts`], and removes all counts. The module `failures` calls this
/// function when the transaction has ended.
pub fn take_write_counts() -> Vec<WriteCount> {
    let mut all = COUNTS.take();
    all.retain(|count| count.rows > 0);
    all
}
