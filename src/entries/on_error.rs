//! Handles entries that cannot be written, as lead_audit.on_error specifies.

use super::entry_table::{EntryTable, EntryTuple, relation_of_schema};
use crate::pg::{OpenRelation, ServerError, current_subtransaction, in_subtransaction, next_value};
use crate::settings::{self, OnError};
use ledger::EntryColumn;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};
use std::cell::{Cell, RefCell};

/// The maximum number of characters of a row key that a message shows.
const SHOWN_KEY: usize = 200;

/// An event whose entry could not be written.
pub struct UnwrittenEntry<'a> {
    /// The watch id of the table, if known.
    pub watch_id: Option<[u8; 16]>,
    /// The table, if known.
    pub relation: Option<pg_sys::Oid>,
    /// The schema's name.
    pub schema: &'a str,
    /// The table's name.
    pub table: &'a str,
    /// The row key as entries store it, if known.
    pub key: Option<&'a str>,
}

type Report = fn(operation: &str, entry: &UnwrittenEntry, cause: &ServerError);

thread_local! {
    static REPORT: Cell<Option<Report>> = const { Cell::new(None) };
}

/// Sets the function that [`entry_not_written`] calls for each unwritten entry. At start-up, the
/// module `failures` passes a function that makes a record of the unwritten entry for the worker.
/// The module `entries` cannot call `failures` itself, because a module calls only modules that
/// precede it in the order of modules (src/lib.rs).
pub fn report_unwritten_to(report: Report) {
    REPORT.set(Some(report));
}

/// Handles an entry that could not be written. With `on_error = abort`, raises `cause`. With
/// `on_error = warn`, counts the entry and raises a WARNING.
pub fn entry_not_written(operation: &str, entry: &UnwrittenEntry, cause: &ServerError) {
    let &UnwrittenEntry { schema, table, key, .. } = entry;
    if settings::on_error() == OnError::Abort {
        cause.clone().raise(Some(format!(
            "The audit entry for {operation} of {schema}.{table} could not be written, \
             and lead_audit.on_error is \"abort\"."
        )));
    }
    count();
    if let Some(report) = REPORT.get() {
        report(operation, entry, cause);
    }
    let key = match key.map(|key| (key, key.char_indices().nth(SHOWN_KEY))) {
        Some((key, Some((end, _)))) => format!(" with key {}…", &key[..end]),
        Some((key, None)) => format!(" with key {key}"),
        None => String::new(),
    };
    let mut report = ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("no audit entry for {operation} of {schema}.{table}{key}: {cause}"),
        "lead_audit",
    );
    if let Some(detail) = &cause.detail {
        report = report.set_detail(detail.clone());
    }
    report
        .set_hint(
            "The statement went on because lead_audit.on_error is \"warn\". lead_audit.stats \
             counts such entries.",
        )
        .report(PgLogLevel::WARNING);
}

/// Handles an entry whose finished tuple could not be inserted into lead_audit.entry.
pub fn tuple_not_written(tuple: pg_sys::HeapTuple, cause: &ServerError) {
    let Ok(target) = EntryTable::find() else {
        let entry =
            UnwrittenEntry { watch_id: None, relation: None, schema: "?", table: "?", key: None };
        return entry_not_written("?", &entry, cause);
    };
    let open = OpenRelation::open(target.table, pg_sys::AccessShareLock);
    let columns = EntryTuple::of(&open, tuple);
    let text = |column| columns.text(column).unwrap_or("?");
    let entry = UnwrittenEntry {
        // SAFETY: the column `watch_id` is a uuid, which has 16 bytes.
        watch_id: columns
            .datum(EntryColumn::WatchId)
            .map(|datum| unsafe { *datum.cast_mut_ptr::<[u8; 16]>() }),
        relation: columns
            .datum(EntryColumn::Relation)
            .map(|datum| pg_sys::Oid::from(datum.value() as u32)),
        schema: text(EntryColumn::TableSchema),
        table: text(EntryColumn::TableName),
        key: columns.text(EntryColumn::RowKey),
    };
    entry_not_written(text(EntryColumn::Operation), &entry, cause);
}

thread_local! {
    /// The number of unwritten entries of this transaction, by subtransaction.
    static COUNTS: RefCell<Vec<(pg_sys::SubTransactionId, i64)>> =
        const { RefCell::new(Vec::new()) };
}

fn count() {
    let current = current_subtransaction();
    COUNTS.with_borrow_mut(|counts| match counts.last_mut() {
        Some((subtransaction, count)) if *subtransaction == current => *count += 1,
        _ => counts.push((current, 1)),
    });
}

/// Returns the number of unwritten entries of this transaction so far.
#[cfg(any(test, feature = "pg_test"))]
pub fn not_written_yet_counted() -> i64 {
    COUNTS.with_borrow(|counts| counts.iter().map(|&(_, count)| count).sum())
}

/// Discards the number of unwritten entries of a subtransaction that was rolled back. The rollback
/// has undone the changes of the subtransaction, so these changes need no entries.
pub fn forget_from(own: pg_sys::SubTransactionId) {
    COUNTS.with_borrow_mut(|counts| counts.retain(|&(subtransaction, _)| subtransaction < own));
}

/// Adds the number of unwritten entries of a committed subtransaction to the number of its parent.
pub fn hand_up(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    COUNTS.with_borrow_mut(|counts| {
        let mut sum = 0;
        while let Some((_, count)) = counts.pop_if(|&mut (subtransaction, _)| subtransaction >= own)
        {
            sum += count;
        }
        match counts.last_mut() {
            _ if sum == 0 => {}
            Some((subtransaction, count)) if *subtransaction == parent => *count += sum,
            _ => counts.push((parent, sum)),
        }
    });
}

/// Discards all counts of unwritten entries. This function runs when the transaction has ended.
pub fn forget_all() {
    COUNTS.with_borrow_mut(Vec::clear);
}

/// Stores the number of the transaction's unwritten entries in the table `lead_audit.unwritten`.
/// The function runs before the commit, so the stored row commits with the transaction. If the row
/// cannot be stored, counts the entries with the sequence `lead_audit.unwritten_seq`, which is not
/// transactional.
pub fn before_commit() {
    let total: i64 = COUNTS.take().iter().map(|&(_, count)| count).sum();
    if total == 0 {
        return;
    }
    let (table, sequence) =
        (relation_of_schema(c"unwritten"), relation_of_schema(c"unwritten_seq"));
    if table == pg_sys::InvalidOid || in_subtransaction(|| insert_count(table, total)).is_err() {
        // If this call fails too, nothing counts the unwritten entries, and only their WARNINGs
        // have reported them.
        let _ = in_subtransaction(|| {
            for _ in 0..total {
                next_value(sequence);
            }
        });
    }
}

fn insert_count(table: pg_sys::Oid, count: i64) {
    let table = OpenRelation::open(table, pg_sys::RowExclusiveLock);
    let (mut values, mut nulls) = ([pg_sys::Datum::from(count)], [false]);
    // SAFETY: the table is open and has one column, a bigint, and no index (sql/30_entry.sql).
    unsafe {
        if (*table.tuple_desc()).natts as usize == values.len() {
            let tuple = pg_sys::heap_form_tuple(
                table.tuple_desc(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::simple_heap_insert(table.as_ptr(), tuple);
            pg_sys::heap_freetuple(tuple);
        }
    }
}
