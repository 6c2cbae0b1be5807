//! Rows of `lead_audit.entry`, in their binary form: what is hashed is what is stored.

use super::{Raw, Snapshot};
use crate::error::CommandError;
use export::write::{StoredEntry, read_stored};
use ledger::Entry;
use postgres::Row;
use postgres::fallible_iterator::FallibleIterator;

/// The columns of format 1 with the types that they are read as. `checksum` is the last.
const COLUMNS: [(&str, &str); 31] = [
    ("id", "bigint"),
    ("format", "smallint"),
    ("txid", "xid8"),
    ("occurred_at", "timestamp with time zone"),
    ("watch_id", "uuid"),
    ("key_hash", "bigint"),
    ("previous_key_hash", "bigint"),
    ("relation", "oid"),
    ("backend_pid", "integer"),
    ("table_schema", "text"),
    ("table_name", "text"),
    ("operation", "text"),
    ("outcome", "text"),
    ("soft_delete", "text"),
    ("row_key", "json"),
    ("row_values", "json"),
    ("changed_values", "json"),
    ("details", "json"),
    ("user_id", "text"),
    ("user_ip", "text"),
    ("user_agent", "text"),
    ("request_id", "text"),
    ("db_session_user", "text"),
    ("db_current_user", "text"),
    ("client_addr", "text"),
    ("application_name", "text"),
    ("error_code", "text"),
    ("error_message", "text"),
    ("error_detail", "text"),
    ("statement", "text"),
    ("checksum", "bytea"),
];

/// Reads entries by ranges of ids.
pub struct EntryReader<'s> {
    snapshot: &'s Snapshot,
    sql: String,
}

impl<'s> EntryReader<'s> {
    /// Looks at the columns that the table has.
    pub fn new(snapshot: &'s Snapshot) -> Result<Self, CommandError> {
        let rows = snapshot.query(
            "SELECT attname::text, format_type(atttypid, NULL), quote_ident(attname) FROM pg_attribute
             WHERE attrelid = 'lead_audit.entry'::regclass AND attnum > 0 AND NOT attisdropped",
            &[],
        )?;
        let mut unknown = String::new();
        let mut found = Vec::new();
        for row in &rows {
            let (name, kind, quoted): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            match COLUMNS.iter().find(|(column, _)| *column == name) {
                Some((_, expected)) if *expected == kind => found.push(name),
                Some((_, expected)) => {
                    let text = format!("the column {name} of lead_audit.entry is of type {kind} instead of {expected}");
                    return Err(CommandError::Database(text));
                }
                // With a value there an entry is one that this version cannot judge.
                None => unknown += &format!("WHEN e.{quoted} IS NOT NULL THEN {} ", literal(name)),
            }
        }
        if let Some((missing, _)) = COLUMNS.iter().find(|(column, _)| !found.contains(column)) {
            return Err(CommandError::Database(format!("lead_audit.entry has no column {missing}")));
        }
        let unknown = if unknown.is_empty() { "NULL::text".to_owned() } else { format!("CASE {unknown}END") };
        let columns: Vec<String> = COLUMNS.iter().map(|(name, _)| format!("e.{name}")).collect();
        // The sub-select is sorted by the primary key's index, and a nested loop over a function's rows keeps their order.
        let sql = format!(
            "SELECT {}, {unknown} FROM unnest($1::bigint[], $2::bigint[]) r(first_id, last_id) CROSS JOIN LATERAL
             (SELECT * FROM lead_audit.entry e WHERE e.id >= r.first_id AND e.id <= r.last_id ORDER BY e.id OFFSET 0) e",
            columns.join(", ")
        );
        Ok(EntryReader { snapshot, sql })
    }

    /// Gives each entry with an id in these ranges to `each`, in the order of the ranges. One at a time is in memory.
    pub fn read<E: From<CommandError>>(
        &self,
        ranges: &[(i64, i64)],
        mut each: impl FnMut(i64, StoredEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let (first, last): (Vec<i64>, Vec<i64>) = ranges.iter().copied().unzip();
        let failed = |error: postgres::Error| E::from(CommandError::from(error));
        let mut client = self.snapshot.client.borrow_mut();
        let parameters: [&(dyn postgres::types::ToSql + Sync); 2] = [&first, &last];
        let mut rows = client.query_raw(&self.sql, parameters).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let (id, stored) = stored(&row).map_err(failed)?;
            each(id, stored)?;
        }
        Ok(())
    }
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A row's id, and what is stored there.
fn stored(row: &Row) -> Result<(i64, StoredEntry), postgres::Error> {
    let raw = |index: usize| row.try_get::<_, Option<Raw>>(index).map(|value| value.map(|Raw(bytes)| bytes));
    let id = raw(0)?.and_then(fixed).map_or(0, i64::from_be_bytes);
    let mut bad = None;
    let mut text = |index: usize| -> Result<Option<&str>, postgres::Error> {
        let Some(bytes) = raw(index)? else { return Ok(None) };
        let text = std::str::from_utf8(bytes);
        if text.is_err() {
            bad = Some(format!("{} is not UTF-8", COLUMNS[index].0));
        }
        Ok(text.ok())
    };
    let texts: Vec<Option<&str>> = (9..30).map(&mut text).collect::<Result<_, _>>()?;
    let [
        table_schema,
        table_name,
        operation,
        outcome,
        soft_delete,
        row_key,
        row_values,
        changed_values,
        details,
        user_id,
        user_ip,
        user_agent,
        request_id,
        db_session_user,
        db_current_user,
        client_addr,
        application_name,
        error_code,
        error_message,
        error_detail,
        statement,
    ] = texts[..]
    else {
        return Ok((id, StoredEntry::Damaged("it does not have its columns".to_owned())));
    };
    // What is never NULL.
    for index in [0, 1, 2, 3, 11, 12] {
        if raw(index)?.is_none() {
            bad.get_or_insert_with(|| format!("{} is NULL", COLUMNS[index].0));
        }
    }
    let entry = Entry {
        id,
        format: raw(1)?.and_then(fixed).map_or(0, i16::from_be_bytes),
        txid: raw(2)?.and_then(fixed).map_or(0, u64::from_be_bytes),
        occurred_at: raw(3)?.and_then(fixed).map_or(0, i64::from_be_bytes),
        watch_id: raw(4)?.and_then(fixed),
        key_hash: raw(5)?.and_then(fixed).map(i64::from_be_bytes),
        previous_key_hash: raw(6)?.and_then(fixed).map(i64::from_be_bytes),
        relation: raw(7)?.and_then(fixed).map(u32::from_be_bytes),
        backend_pid: raw(8)?.and_then(fixed).map(i32::from_be_bytes),
        table_schema,
        table_name,
        operation: operation.unwrap_or_default(),
        outcome: outcome.unwrap_or_default(),
        soft_delete,
        row_key,
        row_values,
        changed_values,
        details,
        user_id,
        user_ip,
        user_agent,
        request_id,
        db_session_user,
        db_current_user,
        client_addr,
        application_name,
        error_code,
        error_message,
        error_detail,
        statement,
    };
    let extra: Option<&str> = row.try_get(31)?;
    Ok((id, bad.map_or_else(|| read_stored(&entry, raw(30).ok().flatten(), extra), StoredEntry::Damaged)))
}

/// The bytes of a value of fixed length.
fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}
