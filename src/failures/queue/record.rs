//! Defines the record, which describes one failed statement, one rolled-back transaction or one
//! unwritten entry. A session makes the record, and the worker of the session's database turns the
//! record into an entry. A record is JSON, so that the session can write the record to the server's
//! log if the queue is full.

use super::count_dropped;
use super::server_log::{Fallible, LogLine};
use super::slots::{self, Queued};
use crate::actor;
use crate::entries::{Outcome, WriteCount};
use crate::pg::{capped, current_database};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};
use std::ffi::c_char;

/// The table that a record concerns.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Table {
    pub relation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "uuid_text")]
    pub watch_id: Option<[u8; 16]>,
    pub schema: String,
    pub name: String,
}

/// Converts a UUID to a JSON string and back. A string is readable in the server's log, and is
/// shorter than an array of sixteen numbers.
mod uuid_text {
    use crate::pg::parse_uuid;
    use ledger::write_uuid;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        uuid: &Option<[u8; 16]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match uuid {
            Some(uuid) => {
                let mut text = Vec::with_capacity(36);
                write_uuid(&mut text, uuid);
                serializer.serialize_str(&String::from_utf8_lossy(&text))
            }
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 16]>, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        parse_uuid(text).map(Some).ok_or_else(|| D::Error::custom("this is no UUID"))
    }
}

/// The number of rows that a rolled-back transaction had written to one table with one operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    pub table: Table,
    pub operation: String,
    pub rows: u64,
}

/// The bytes of the rejected row's tuple.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawRow {
    /// The oid of the relation that has the tuple's row type.
    pub relation: u32,
    /// The fingerprint of the tuple's row type.
    pub row_type: u64,
    /// The tuple in hexadecimal digits. For an UPDATE, this field contains the old row version.
    pub row: String,
    /// The tuple of the new row version in hexadecimal digits, if the statement is an UPDATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_row: Option<String>,
}

/// A statement that failed before PostgreSQL knew the statement's table. The worker finds the table
/// from the text of the statement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unresolved {
    /// The redacted text of the statement. The worker needs only the redacted text to find the
    /// statement's table.
    #[serde(rename = "masked")]
    pub redacted: String,
    /// The part of the statement's original text that the entry will contain. The setting
    /// `lead_audit.log_statement_length` limits the length of this part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The byte offset of the error in the statement's text, if PostgreSQL has reported a position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    pub search_path: String,
    /// The oid of the session's schema for temporary tables, or 0 if the session has no temporary
    /// tables.
    pub temporary_schema: u32,
    /// The names of the session's temporary tables that occur in the statement's text. The
    /// temporary tables may no longer exist when the worker reads the record.
    #[serde(default)]
    pub temporary_tables: Vec<String>,
}

/// The description of one failed statement, rolled-back transaction or unwritten entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<Unresolved>,
    pub operation: String,
    pub txid: u64,
    /// The time of the event, in microseconds since 2000-01-01 UTC.
    pub occurred_at: i64,
    pub backend_pid: i32,
    pub session_user: u32,
    pub current_user: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// The row key in the form that entries contain, or `None` if the session does not know the row
    /// key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<RawRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Count>,
    /// The number of the transaction's write counts that did not fit into `written`, which has a
    /// maximum length.
    #[serde(skip_serializing_if = "is_zero")]
    pub written_omitted: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a function of a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Table {
    /// Returns the description of the table that a write count concerns.
    pub fn of(written: &WriteCount) -> Self {
        Table {
            relation: written.relation.to_u32(),
            watch_id: Some(written.watch_id),
            schema: written.schema.clone(),
            name: written.table.clone(),
        }
    }
}

impl Count {
    /// Returns the write count in the form that a record contains.
    pub fn of(written: &WriteCount) -> Self {
        Count {
            table: Table::of(written),
            operation: written.operation.to_owned(),
            rows: written.rows,
        }
    }
}

impl Record {
    /// Makes a record with the current actor, time and transaction.
    pub fn of_session(outcome: Outcome) -> Self {
        // SAFETY: these calls only read variables of the session and the clock.
        unsafe {
            let now = actor::Now::read();
            Record {
                outcome,
                txid: pg_sys::GetTopFullTransactionIdIfAny().value,
                occurred_at: pg_sys::GetCurrentTimestamp(),
                backend_pid: pg_sys::MyProcPid,
                session_user: now.session_user.to_u32(),
                current_user: now.current_user.to_u32(),
                user_id: now.user_id,
                user_ip: now.user_ip,
                user_agent: now.user_agent,
                request_id: now.request_id,
                client_addr: now.client_addr,
                application_name: now.application_name,
                ..Record::default()
            }
        }
    }
}

/// The maximum length of one text in a record, in bytes of JSON. PostgreSQL does not limit the
/// length of the texts of an error. A record must fit into the queue and into a line of the
/// server's log. The session must be able to make a record even if memory is scarce.
pub const TEXT_LIMIT: usize = 16 * 1024;

/// Copies a C string, and cuts the copy so that the copy takes at most `limit` bytes as a JSON
/// string. Returns `None` if `text` is null.
///
/// # Safety
/// `text` must be null or a C string.
pub unsafe fn capped_c(text: *const c_char, limit: usize) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: `text` is a C string (see # Safety). The slice contains at most one byte beyond the
    // limit. A byte beyond the limit shows that the text is longer than the limit.
    let bytes =
        unsafe { std::slice::from_raw_parts(text.cast::<u8>(), libc::strnlen(text, limit + 1)) };
    Some(capped(bytes, limit))
}

/// Returns the JSON of the record, which is the form in which the queue stores records. If memory
/// does not suffice for the JSON, removes the rejected row from the record, and makes the JSON of
/// the shorter record.
pub fn to_bytes(record: &mut Record) -> Option<Vec<u8>> {
    const USUAL: usize = 1024; // Most records are shorter, so their buffer does not grow.
    let write = |record: &Record| {
        let mut out = Fallible::default();
        out.0.try_reserve(USUAL).ok()?;
        serde_json::to_writer(&mut out, record).ok()?;
        Some(out.0)
    };
    write(record).or_else(|| {
        record.row = None;
        write(record)
    })
}

/// Stores an unconfirmed record in the queue, and returns the index of the record's first slot.
/// Returns `None` if the queue does not accept the record. The worker gets the record after
/// [`confirm`] was called, or after the server has crashed. The session stores the record before
/// the session rolls back the transaction, because the client can receive the error even before the
/// rollback.
pub fn reserve(record: &[u8]) -> Option<u32> {
    slots::reserve(current_database(), record)
}

/// Confirms a record that [`reserve`] has stored.
pub fn confirm(reserved: u32) {
    slots::confirm(current_database(), reserved);
}

/// Removes a record that [`reserve`] has stored.
pub fn cancel(reserved: u32) {
    slots::cancel(current_database(), reserved);
}

/// Stores a confirmed record for this database's worker. If the queue does not accept the record,
/// returns a line for the server's log that contains the record.
pub fn push(record: &[u8]) -> Option<LogLine> {
    match slots::push(current_database(), record) {
        Queued::Yes => None,
        Queued::Full => LogLine::new(record, "the queue is full"),
        Queued::Closed => LogLine::new(record, "nobody is there to write the entry"),
    }
}

/// Stores a confirmed record for this database's worker. If the queue does not accept the record,
/// writes the record to the server's log.
pub fn send(record: &mut Record) {
    match to_bytes(record) {
        Some(bytes) => push(&bytes).iter().for_each(LogLine::write),
        None => count_dropped(current_database()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_can_be_read_again() {
        let identity = [0x11; 16];
        let table = Table {
            relation: 1,
            watch_id: Some(identity),
            schema: "public".to_owned(),
            name: "leads".to_owned(),
        };
        let mut record = Record {
            table: Some(table),
            error_message: Some("\u{1}é".to_owned()),
            ..Record::default()
        };
        let bytes = to_bytes(&mut record).expect("there is memory");
        let read: Record = serde_json::from_slice(&bytes).expect("it can be read");
        assert_eq!(read.table.and_then(|table| table.watch_id), Some(identity));
        assert_eq!(read.error_message, record.error_message);
    }
}
