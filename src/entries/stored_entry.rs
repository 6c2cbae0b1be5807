//! Reads a stored row of `lead_audit.entry`. Somebody may have changed the row after the writer
//! wrote it.

use crate::pg::{borrowed_text, detoasted};
use ledger::{Entry, EntryColumn, Fault};
use pgrx::pg_sys;

/// A fault of a stored entry.
#[derive(Debug)]
pub enum StoredFault {
    /// A column that must not be NULL is NULL.
    Missing(&'static str),
    /// A text is not valid UTF-8.
    NotUtf8,
    /// A column that is not part of the format contains a value.
    UnknownColumn(String),
    /// A fault that the format defines (docs/FORMAT.md, section 7).
    Format(Fault),
}

impl StoredFault {
    /// Returns the kind of the fault as one word, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            StoredFault::Missing(_) => "missing_value",
            StoredFault::NotUtf8 => "not_utf8",
            StoredFault::UnknownColumn(_) => "unknown_column",
            StoredFault::Format(fault) => match fault {
                Fault::UnknownFormat(_) => "unknown_format",
                Fault::ChecksumLength(_) | Fault::Checksum { .. } => "checksum",
                Fault::NotCanonical { .. } | Fault::NotAnObject { .. } => "not_canonical",
                Fault::KeyHash { .. } => "key_hash",
                Fault::PreviousKeyHash { .. } => "previous_key_hash",
                _ => "other",
            },
        }
    }

    /// Returns the fault in words, for people.
    pub fn detail(&self) -> String {
        match self {
            StoredFault::Missing(column) => format!("{column} is NULL"),
            StoredFault::NotUtf8 => "a text is not valid UTF-8".to_owned(),
            StoredFault::UnknownColumn(column) => {
                format!("it has a value in the column {column:?}, which this version does not know")
            }
            StoredFault::Format(fault) => fault.to_string(),
        }
    }
}

/// The columns of a row of lead_audit.entry as datums, in the order of `EntryColumn`.
pub struct StoredEntry<'a> {
    /// The values.
    pub values: &'a [pg_sys::Datum],
    /// Whether each value is NULL.
    pub nulls: &'a [bool],
}

impl<'a> StoredEntry<'a> {
    fn datum(&self, column: EntryColumn) -> Option<pg_sys::Datum> {
        let index = column as usize;
        (!self.nulls[index]).then(|| self.values[index])
    }

    /// Checks that the checksum fits the entry's other columns.
    ///
    /// # Safety
    /// Each datum must belong to the column at its position. The datums and the current memory
    /// context must live as long as the result is used.
    pub unsafe fn verify(&self, scratch: &mut Vec<u8>) -> Result<(), StoredFault> {
        // SAFETY: the datums match their columns (see # Safety). The column `checksum` is a bytea.
        unsafe {
            let entry = self.read()?;
            let checksum =
                self.datum(EntryColumn::Checksum).ok_or(StoredFault::Missing("checksum"))?;
            entry.verify(detoasted(checksum), scratch).map_err(StoredFault::Format)
        }
    }

    /// Returns the columns as an [`Entry`], from which the checksum can be computed.
    ///
    /// # Safety
    /// Each datum must belong to the column at its position. The datums and the current memory
    /// context must live as long as the result is used.
    pub unsafe fn read(&self) -> Result<Entry<'a>, StoredFault> {
        // SAFETY: the datums match their columns (see # Safety), so the code reads each datum as
        // the type of its column.
        unsafe {
            let text = |column| match self.datum(column) {
                Some(datum) => borrowed_text(datum).map(Some).map_err(|_| StoredFault::NotUtf8),
                None => Ok(None),
            };
            let required =
                |column: EntryColumn| self.datum(column).ok_or(StoredFault::Missing(column.name()));
            Ok(Entry {
                id: required(EntryColumn::Id)?.value() as i64,
                format: required(EntryColumn::Format)?.value() as i16,
                txid: required(EntryColumn::Txid)?.value() as u64,
                occurred_at: required(EntryColumn::OccurredAt)?.value() as i64,
                watch_id: self
                    .datum(EntryColumn::WatchId)
                    .map(|datum| *datum.cast_mut_ptr::<[u8; 16]>()),
                key_hash: self.datum(EntryColumn::KeyHash).map(|datum| datum.value() as i64),
                previous_key_hash: self
                    .datum(EntryColumn::PreviousKeyHash)
                    .map(|datum| datum.value() as i64),
                relation: self.datum(EntryColumn::Relation).map(|datum| datum.value() as u32),
                backend_pid: self.datum(EntryColumn::BackendPid).map(|datum| datum.value() as i32),
                table_schema: text(EntryColumn::TableSchema)?,
                table_name: text(EntryColumn::TableName)?,
                operation: text(EntryColumn::Operation)?
                    .ok_or(StoredFault::Missing("operation"))?,
                outcome: text(EntryColumn::Outcome)?.ok_or(StoredFault::Missing("outcome"))?,
                soft_delete: text(EntryColumn::SoftDelete)?,
                row_key: text(EntryColumn::RowKey)?,
                row_values: text(EntryColumn::RowValues)?,
                changed_values: text(EntryColumn::ChangedValues)?,
                details: text(EntryColumn::Details)?,
                user_id: text(EntryColumn::UserId)?,
                user_ip: text(EntryColumn::UserIp)?,
                user_agent: text(EntryColumn::UserAgent)?,
                request_id: text(EntryColumn::RequestId)?,
                db_session_user: text(EntryColumn::DbSessionUser)?,
                db_current_user: text(EntryColumn::DbCurrentUser)?,
                client_addr: text(EntryColumn::ClientAddr)?,
                application_name: text(EntryColumn::ApplicationName)?,
                error_code: text(EntryColumn::ErrorCode)?,
                error_message: text(EntryColumn::ErrorMessage)?,
                error_detail: text(EntryColumn::ErrorDetail)?,
                statement: text(EntryColumn::Statement)?,
            })
        }
    }
}
