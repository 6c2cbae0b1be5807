//! A record: all there is to say of one failure, on its way from the session to the entry. It is JSON, so that the server's log
//! can have it whole where the queue cannot.

use crate::journal::Outcome;
use crate::shared::{self, Queued};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};
use serde::{Deserialize, Serialize};
use std::cell::Cell;

/// The table that a record is about.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Table {
    pub relation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "uuid_text")]
    pub watch_id: Option<[u8; 16]>,
    pub schema: String,
    pub name: String,
}

/// A UUID as text: for who reads it in the server's log, and shorter than sixteen numbers.
mod uuid_text {
    use crate::server::parse_uuid;
    use ledger::write_uuid;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Sixteen numbers are what version 0.2 wrote: a server that was killed may have left a queue of such records.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written<'a> {
        Text(&'a str),
        Numbers([u8; 16]),
    }

    pub fn serialize<S: Serializer>(uuid: &Option<[u8; 16]>, serializer: S) -> Result<S::Ok, S::Error> {
        match uuid {
            Some(uuid) => {
                let mut text = Vec::with_capacity(36);
                write_uuid(&mut text, uuid);
                serializer.serialize_str(&String::from_utf8_lossy(&text))
            }
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 16]>, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => parse_uuid(text).map(Some).ok_or_else(|| D::Error::custom("this is no UUID")),
            Written::Numbers(uuid) => Ok(Some(uuid)),
        }
    }
}

/// Rows that a transaction had written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    pub table: Table,
    pub operation: String,
    pub rows: u64,
}

/// The failing row, as bytes of a tuple.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RawRow {
    /// The relation whose row type it has.
    pub relation: u32,
    /// A fingerprint of that row type.
    pub row_type: u64,
    /// The row, in hexadecimal: of an UPDATE the old one.
    pub row: String,
    /// The new row of an UPDATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_row: Option<String>,
}

/// A statement whose table is still to be found out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unresolved {
    /// The text without what the entry must not have more of than is asked for: literals, numbers, comments.
    pub masked: String,
    /// As much of the text itself as an entry keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Where in the text the error is, in bytes, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    pub search_path: String,
    /// The session's schema for temporary tables, or 0.
    pub temporary_schema: u32,
    /// Temporary tables that the transaction made: they went with it.
    #[serde(default)]
    pub temporary_tables: Vec<String>,
}

/// Everything about one failure.
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
    /// The row's key as entries have it, where the session knows it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<RawRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Count>,
}

thread_local! {
    static LOGGING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a record is being written to the server's log, which must not make another one.
pub fn is_logging() -> bool {
    LOGGING.get()
}

/// The record as it lies in the queue.
fn to_bytes(record: &Record) -> Option<Vec<u8>> {
    const USUAL: usize = 1024; // so that it need not grow while it is written
    let mut bytes = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut bytes, record).ok()?;
    Some(bytes)
}

/// Puts a record down for this database's worker, which counts only once it is confirmed, or the process dies: a client can have
/// its error before its transaction is rolled back.
pub fn reserve(record: &Record) -> Option<u32> {
    let bytes = to_bytes(record)?;
    // SAFETY: reads a variable of the session.
    shared::reserve(unsafe { pg_sys::MyDatabaseId }, &bytes)
}

/// What was put down counts.
pub fn confirm(reserved: u32) {
    // SAFETY: reads a variable of the session.
    shared::confirm(unsafe { pg_sys::MyDatabaseId }, reserved);
}

/// It does not.
pub fn cancel(reserved: u32) {
    // SAFETY: reads a variable of the session.
    shared::cancel(unsafe { pg_sys::MyDatabaseId }, reserved);
}

/// Hands a record to this database's worker; where that is not possible, to the server's log.
pub fn send(record: &Record) {
    let Some(bytes) = to_bytes(record) else { return };
    // SAFETY: reads a variable of the session.
    match shared::push(unsafe { pg_sys::MyDatabaseId }, &bytes) {
        Queued::Yes => {}
        Queued::Full => log_whole(&bytes, "the queue is full"),
        Queued::Closed => log_whole(&bytes, "nobody is there to write the entry"),
    }
}

/// The whole record as a line of the server's log.
pub fn log_whole(record: &[u8], why: &str) {
    LOGGING.set(true);
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("lead_audit: an operation that failed has no audit entry: {why}"),
        "lead_audit",
    )
    .set_detail(String::from_utf8_lossy(record).into_owned())
    .report(PgLogLevel::LOG_SERVER_ONLY);
    LOGGING.set(false);
}

/// Everything that is queued for a database goes to the server's log.
pub fn log_rest(database: pg_sys::Oid) {
    for record in shared::take_all(database) {
        log_whole(&record, "there is no worker in its database any more");
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn tables_of_this_version_and_of_the_one_before() {
        let identity = [0x11; 16];
        let table = Table { relation: 1, watch_id: Some(identity), schema: "public".to_owned(), name: "leads".to_owned() };
        let now = serde_json::to_string(&table).expect("it is text");
        assert!(now.contains(r#""11111111-1111-1111-1111-111111111111""#), "{now}");
        let before = format!(r#"{{"relation":1,"watch_id":{identity:?},"schema":"public","name":"leads"}}"#);
        for text in [now, before] {
            let read: Table = serde_json::from_slice(text.as_bytes()).expect("it can be read");
            assert_eq!(read.watch_id, Some(identity), "{text}");
        }
    }
}
