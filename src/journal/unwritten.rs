//! What happens when an entry cannot be written: lead_audit.on_error decides.

use super::entry_table::{COLUMNS, EntryColumn, EntryTable, relation_of_schema};
use crate::server::{OpenRelation, ServerError, borrowed_text, in_subtransaction, next_value};
use crate::settings::{self, OnError};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

/// Longest key that a message shows, in characters.
const SHOWN_KEY: usize = 200;

/// The event has no entry: the statement fails with the cause, or goes on with a WARNING and a count.
pub fn not_written(operation: &str, schema: &str, table: &str, key: Option<&str>, cause: &ServerError) {
    if settings::on_error() == OnError::Abort {
        cause.clone().raise(Some(format!(
            "The audit entry for {operation} of {schema}.{table} could not be written, and lead_audit.on_error is \"abort\"."
        )));
    }
    count();
    let key = match key {
        Some(key) if key.chars().count() > SHOWN_KEY => format!(" with key {}…", key.chars().take(SHOWN_KEY).collect::<String>()),
        Some(key) => format!(" with key {key}"),
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
        .set_hint("The statement went on because lead_audit.on_error is \"warn\". lead_audit.stats counts such entries.")
        .report(PgLogLevel::WARNING);
}

/// The same for an entry that was finished but did not get into the table.
pub fn tuple_not_written(tuple: pg_sys::HeapTuple, cause: &ServerError) {
    let fields = [EntryColumn::Operation, EntryColumn::TableSchema, EntryColumn::TableName, EntryColumn::RowKey];
    let [operation, schema, table, key] = match EntryTable::find() {
        Ok(target) => text_columns(&OpenRelation::open(target.table, pg_sys::AccessShareLock), tuple, fields),
        Err(_) => [None, None, None, None],
    };
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    not_written(&shown(&operation), &shown(&schema), &shown(&table), key.as_deref(), cause);
}

fn text_columns(table: &OpenRelation, tuple: pg_sys::HeapTuple, columns: [EntryColumn; 4]) -> [Option<String>; 4] {
    // SAFETY: the tuple was made for this table, which has at least COLUMNS columns; those asked for are text.
    unsafe {
        let total = ((*table.tuple_desc()).natts as usize).max(COLUMNS);
        let (mut values, mut nulls) = (vec![pg_sys::Datum::from(0); total], vec![true; total]);
        pg_sys::heap_deform_tuple(tuple, table.tuple_desc(), values.as_mut_ptr(), nulls.as_mut_ptr());
        columns.map(|column| {
            let index = column as usize;
            if nulls[index] { None } else { borrowed_text(values[index]).ok().map(str::to_owned) }
        })
    }
}

/// Counts it in a sequence, which keeps its value when the transaction is rolled back.
fn count() {
    let sequence = relation_of_schema(c"unwritten_seq");
    // If not even this works, the WARNING is what is left.
    let _ = in_subtransaction(|| next_value(sequence));
}
