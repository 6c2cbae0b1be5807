//! A record: the description of one failure, from the session to the entry. It is JSON, so that it
//! can go to the server's log in full when the queue is full.

use super::count_dropped;
use super::server_log::{Fallible, LogLine};
use super::slots::{self, Queued};
use crate::actor;
use crate::entries::{Outcome, WriteCount};
use crate::pg::{capped, current_database};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};
use std::ffi::c_char;

/// The table that a record is about.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Table {
    pub relation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "uuid_text")]
    pub watch_id: Option<[u8; 16]>,
    pub schema: String,
    pub name: String,
}

/// A UUID as text: readable in the server's log, and shorter than sixteen numbers.
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

/// How many rows a transaction had written to one table with one operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    pub table: Table,
    pub operation: String,
    pub rows: u64,
}

/// The rejected row, as the bytes of a tuple.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawRow {
    /// The relation whose row type the row has.
    pub relation: u32,
    /// A fingerprint of the row type.
    pub row_type: u64,
    /// The row, in hexadecimal. For an UPDATE, the old row.
    pub row: String,
    /// The new row of an UPDATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_row: Option<String>,
}

/// A statement whose table the worker has to find.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unresolved {
    /// The statement's text without literals, numbers and comments, which an entry may contain only
    /// as far as the settings allow.
    #[serde(rename = "masked")]
    pub redacted: String,
    /// The part of the original text that an entry keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The position of the error in the text, in bytes, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    pub search_path: String,
    /// The session's schema for temporary tables, or 0.
    pub temporary_schema: u32,
    /// Temporary tables that the transaction made. They disappeared with it.
    #[serde(default)]
    pub temporary_tables: Vec<String>,
}

/// The description of one failure.
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
    /// Microseconds since 2000-01-01 UTC.
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
    /// The row's key as in entries, if the session knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<RawRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Count>,
    /// How many further counts `written` omits.
    #[serde(skip_serializing_if = "is_zero")]
    pub written_omitted: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a function of a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Table {
    /// The table of a write count.
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
    /// The write count as a record contains it.
    pub fn of(written: &WriteCount) -> Self {
        Count {
            table: Table::of(written),
            operation: written.operation.to_owned(),
            rows: written.rows,
        }
    }
}

impl Record {
    /// A record with the present actor, time and transaction.
    pub fn of_session(outcome: Outcome) -> Self {
        // SAFETY: these read variables of the session and the clock.
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

/// Longest text of a record, in bytes of JSON. Texts that a session raises are not limited, but a
/// record has to fit into the queue, a line of the server's log, and scarce memory.
pub const TEXT_LIMIT: usize = 16 * 1024;

/// A C string, cut to the limit of a record. `None` for null.
///
/// # Safety
/// `text` must be null or a C string.
pub unsafe fn capped_c(text: *const c_char, limit: usize) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: `text` is a C string (see # Safety). One byte more than the limit shows whether the
    // text is longer.
    let bytes =
        unsafe { std::slice::from_raw_parts(text.cast::<u8>(), libc::strnlen(text, limit + 1)) };
    Some(capped(bytes, limit))
}

/// The record as the queue stores it, without its row if memory does not suffice for it.
pub fn to_bytes(record: &mut Record) -> Option<Vec<u8>> {
    const USUAL: usize = 1024; // so that it need not grow while it is written
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

/// Stores a record for this database's worker. It counts only when it is confirmed or its process
/// dies: the client can receive the error before the transaction is rolled back.
pub fn reserve(record: &[u8]) -> Option<u32> {
    slots::reserve(current_database(), record)
}

/// Confirms a reserved record.
pub fn confirm(reserved: u32) {
    slots::confirm(current_database(), reserved);
}

/// Cancels a reserved record.
pub fn cancel(reserved: u32) {
    slots::cancel(current_database(), reserved);
}

/// Passes a record to this database's worker. If that fails, returns the line for the server's log.
pub fn push(record: &[u8]) -> Option<LogLine> {
    match slots::push(current_database(), record) {
        Queued::Yes => None,
        Queued::Full => LogLine::new(record, "the queue is full"),
        Queued::Closed => LogLine::new(record, "nobody is there to write the entry"),
    }
}

/// Passes a record to this database's worker. If that fails, writes it to the server's log.
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
