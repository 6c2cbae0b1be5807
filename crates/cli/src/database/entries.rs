//! Reads rows of `lead_audit.entry` in PostgreSQL's binary format, so that the export contains the
//! values that the checksum covers.

use super::{Raw, Snapshot};
use crate::error::CommandError;
use export::write::{StoredEntry, read_stored};
use ledger::{Entry, EntryColumn, IdRange};
use postgres::Row;
use postgres::fallible_iterator::FallibleIterator;

/// Reads the entries whose ids are in given ranges.
pub struct EntryReader<'s> {
    snapshot: &'s Snapshot,
    sql: String,
}

impl<'s> EntryReader<'s> {
    /// Checks the columns of `lead_audit.entry`, and returns a reader.
    pub fn new(snapshot: &'s Snapshot) -> Result<Self, CommandError> {
        let rows = snapshot.query(
            "SELECT attname::text, format_type(atttypid, NULL), quote_ident(attname)
             FROM pg_attribute
             WHERE attrelid = 'lead_audit.entry'::regclass AND attnum > 0 AND NOT attisdropped",
            &[],
        )?;
        let mut unknown = String::new();
        let mut found = Vec::new();
        for row in &rows {
            let (name, kind, quoted): (&str, &str, &str) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            match EntryColumn::ALL
                .iter()
                .find(|column| column.name() == name)
                .map(|column| column.column_type().sql_name())
            {
                Some(expected) if expected == kind => found.push(name),
                Some(expected) => {
                    let text = format!(
                        "the column {name} of lead_audit.entry is of type {kind} instead of \
                         {expected}"
                    );
                    return Err(CommandError::Database(text));
                }
                // If a row has a value in an unknown column, the query returns the name of this
                // column, because this version cannot judge the row.
                None => unknown += &format!("WHEN e.{quoted} IS NOT NULL THEN {} ", literal(name)),
            }
        }
        if let Some(missing) =
            EntryColumn::ALL.iter().map(|column| column.name()).find(|name| !found.contains(name))
        {
            return Err(CommandError::Database(format!(
                "lead_audit.entry has no column {missing}"
            )));
        }
        let unknown =
            if unknown.is_empty() { "NULL::text".to_owned() } else { format!("CASE {unknown}END") };
        let columns: Vec<String> =
            EntryColumn::ALL.iter().map(|column| format!("e.{}", column.name())).collect();
        // The sub-select reads the index of the primary key, so the ids ascend within each range.
        // The nested loop keeps the order of the ranges that `unnest` returns.
        let sql = format!(
            "SELECT {}, {unknown} FROM unnest($1::bigint[], $2::bigint[]) r(first_id, last_id)
             CROSS JOIN LATERAL
             (SELECT * FROM lead_audit.entry e WHERE e.id >= r.first_id AND e.id <= r.last_id
              ORDER BY e.id OFFSET 0) e",
            columns.join(", ")
        );
        Ok(EntryReader { snapshot, sql })
    }

    /// Passes each entry whose id is in one of the ranges to `each`, in the order of the ranges.
    /// Only one entry is in memory at a time.
    pub fn read<E: From<CommandError>>(
        &self,
        ranges: &[IdRange],
        mut each: impl FnMut(i64, StoredEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let (first, last): (Vec<i64>, Vec<i64>) =
            ranges.iter().map(|range| (range.first, range.last)).unzip();
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

/// Returns the id and the entry that a row contains.
fn stored(row: &Row) -> Result<(i64, StoredEntry), postgres::Error> {
    use EntryColumn as Column;
    let raw = |column: Column| {
        row.try_get::<_, Option<Raw>>(column as usize).map(|value| value.map(|Raw(bytes)| bytes))
    };
    let id = raw(Column::Id)?.and_then(fixed).map_or(0, i64::from_be_bytes);
    let mut bad = None;
    let mut text = |column: Column| -> Result<Option<&str>, postgres::Error> {
        let Some(bytes) = raw(column)? else { return Ok(None) };
        let text = std::str::from_utf8(bytes);
        if text.is_err() {
            bad = Some(format!("{} is not UTF-8", column.name()));
        }
        Ok(text.ok())
    };
    let entry = Entry {
        id,
        format: raw(Column::Format)?.and_then(fixed).map_or(0, i16::from_be_bytes),
        txid: raw(Column::Txid)?.and_then(fixed).map_or(0, u64::from_be_bytes),
        occurred_at: raw(Column::OccurredAt)?.and_then(fixed).map_or(0, i64::from_be_bytes),
        watch_id: raw(Column::WatchId)?.and_then(fixed),
        key_hash: raw(Column::KeyHash)?.and_then(fixed).map(i64::from_be_bytes),
        previous_key_hash: raw(Column::PreviousKeyHash)?.and_then(fixed).map(i64::from_be_bytes),
        relation: raw(Column::Relation)?.and_then(fixed).map(u32::from_be_bytes),
        backend_pid: raw(Column::BackendPid)?.and_then(fixed).map(i32::from_be_bytes),
        operation: text(Column::Operation)?.unwrap_or_default(),
        outcome: text(Column::Outcome)?.unwrap_or_default(),
        table_schema: text(Column::TableSchema)?,
        table_name: text(Column::TableName)?,
        soft_delete: text(Column::SoftDelete)?,
        row_key: text(Column::RowKey)?,
        row_values: text(Column::RowValues)?,
        changed_values: text(Column::ChangedValues)?,
        details: text(Column::Details)?,
        user_id: text(Column::UserId)?,
        user_ip: text(Column::UserIp)?,
        user_agent: text(Column::UserAgent)?,
        request_id: text(Column::RequestId)?,
        db_session_user: text(Column::DbSessionUser)?,
        db_current_user: text(Column::DbCurrentUser)?,
        client_addr: text(Column::ClientAddr)?,
        application_name: text(Column::ApplicationName)?,
        error_code: text(Column::ErrorCode)?,
        error_message: text(Column::ErrorMessage)?,
        error_detail: text(Column::ErrorDetail)?,
        statement: text(Column::Statement)?,
    };
    let checksum = raw(Column::Checksum)?;
    // `read_stored` reports a missing checksum, so this loop skips the checksum.
    for &column in
        Column::ALL.iter().filter(|&&column| column.is_required() && column != Column::Checksum)
    {
        if raw(column)?.is_none() {
            bad.get_or_insert_with(|| format!("{} is NULL", column.name()));
        }
    }
    let extra: Option<&str> = row.try_get(Column::COUNT)?;
    Ok((id, bad.map_or_else(|| read_stored(&entry, checksum, extra), StoredEntry::Damaged)))
}

/// Converts a value to an array of `N` bytes. Returns None if the value does not have `N` bytes.
fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}
