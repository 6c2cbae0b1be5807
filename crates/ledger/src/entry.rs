//! Defines [`Entry`], which is one row of `lead_audit.entry`, and computes its checksum.
//!
//! The extension fills an [`Entry`] with the values that it is about to store, computes the
//! checksum, and stores the checksum with the values. A verifier fills an [`Entry`] with the stored
//! values. An [`Entry`] borrows its texts, so filling an entry copies no text. [`Entry::checksum`]
//! borrows a buffer from the caller, who can reuse the buffer for the next entry.

use crate::canonical::write_string;
use crate::decimal::{write_i64, write_u64};
use crate::sink::{Hashing, Sink};
use crate::time::write_timestamp;

/// The only version of the entry format that this crate writes and verifies.
pub const FORMAT: i16 = 1;

/// One row of `lead_audit.entry`. Each column except `checksum` has a field.
///
/// `None` stands for NULL. The fields of the JSON columns (`row_key`, `row_values`,
/// `changed_values`, `details`) hold the stored text, which must be canonical JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns, and docs/FORMAT.md describes those")]
pub struct Entry<'a> {
    pub id: i64,
    pub format: i16,
    pub txid: u64,
    /// The time of the event, in microseconds since 2000-01-01T00:00:00Z, as in PostgreSQL.
    /// `i64::MIN` and `i64::MAX` stand for PostgreSQL's `-infinity` and `infinity`.
    pub occurred_at: i64,
    pub watch_id: Option<[u8; 16]>,
    pub key_hash: Option<i64>,
    pub previous_key_hash: Option<i64>,
    pub relation: Option<u32>,
    pub backend_pid: Option<i32>,
    pub table_schema: Option<&'a str>,
    pub table_name: Option<&'a str>,
    pub operation: &'a str,
    pub outcome: &'a str,
    pub soft_delete: Option<&'a str>,
    pub row_key: Option<&'a str>,
    pub row_values: Option<&'a str>,
    pub changed_values: Option<&'a str>,
    pub details: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub user_ip: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub request_id: Option<&'a str>,
    pub db_session_user: Option<&'a str>,
    pub db_current_user: Option<&'a str>,
    pub client_addr: Option<&'a str>,
    pub application_name: Option<&'a str>,
    pub error_code: Option<&'a str>,
    pub error_message: Option<&'a str>,
    pub error_detail: Option<&'a str>,
    pub statement: Option<&'a str>,
}

impl Default for Entry<'_> {
    /// Returns an entry with the format [`FORMAT`]. All fields except `format` are 0, empty or
    /// `None`.
    fn default() -> Self {
        Entry {
            id: 0,
            format: FORMAT,
            txid: 0,
            occurred_at: 0,
            watch_id: None,
            key_hash: None,
            previous_key_hash: None,
            relation: None,
            backend_pid: None,
            table_schema: None,
            table_name: None,
            operation: "",
            outcome: "",
            soft_delete: None,
            row_key: None,
            row_values: None,
            changed_values: None,
            details: None,
            user_id: None,
            user_ip: None,
            user_agent: None,
            request_id: None,
            db_session_user: None,
            db_current_user: None,
            client_addr: None,
            application_name: None,
            error_code: None,
            error_message: None,
            error_detail: None,
            statement: None,
        }
    }
}

impl<'a> Entry<'a> {
    /// Appends the entry's preimage: the canonical JSON object from which the checksum is computed.
    ///
    /// Copies the JSON columns without checking them. The JSON columns that the extension writes
    /// are always canonical. A verifier must call [`verify`](Self::verify), which checks the JSON
    /// columns.
    pub fn write_preimage(&self, out: &mut impl Sink) {
        let mut object = Object { out, separator: b'{' };
        // Canonical JSON requires that the members are in the order of their names.
        object.text(r#""application_name":"#, self.application_name);
        object.integer(r#""backend_pid":"#, self.backend_pid.map(i64::from));
        object.json(r#""changed_values":"#, self.changed_values);
        object.text(r#""client_addr":"#, self.client_addr);
        object.text(r#""db_current_user":"#, self.db_current_user);
        object.text(r#""db_session_user":"#, self.db_session_user);
        object.json(r#""details":"#, self.details);
        object.text(r#""error_code":"#, self.error_code);
        object.text(r#""error_detail":"#, self.error_detail);
        object.text(r#""error_message":"#, self.error_message);
        object.integer(r#""format":"#, Some(i64::from(self.format)));
        object.integer(r#""id":"#, Some(self.id));
        object.integer(r#""key_hash":"#, self.key_hash);
        object.quoted(r#""occurred_at":"#, |out| write_timestamp(out, self.occurred_at));
        object.text(r#""operation":"#, Some(self.operation));
        object.text(r#""outcome":"#, Some(self.outcome));
        object.integer(r#""previous_key_hash":"#, self.previous_key_hash);
        object.integer(r#""relation":"#, self.relation.map(i64::from));
        object.text(r#""request_id":"#, self.request_id);
        object.json(r#""row_key":"#, self.row_key);
        object.json(r#""row_values":"#, self.row_values);
        object.text(r#""soft_delete":"#, self.soft_delete);
        object.text(r#""statement":"#, self.statement);
        object.text(r#""table_name":"#, self.table_name);
        object.text(r#""table_schema":"#, self.table_schema);
        write_u64(object.member(r#""txid":"#), self.txid);
        object.text(r#""user_agent":"#, self.user_agent);
        object.text(r#""user_id":"#, self.user_id);
        object.text(r#""user_ip":"#, self.user_ip);
        if let Some(watch_id) = &self.watch_id {
            object.quoted(r#""watch_id":"#, |out| write_uuid(out, watch_id));
        }
        object.out.push(b'}');
    }

    /// Returns the entry's checksum. Hashes the preimage piece by piece, so memory use does not
    /// depend on the size of the entry. Uses `scratch` as a buffer, which is empty afterwards and
    /// can be reused for the next entry.
    pub fn checksum(&self, scratch: &mut Vec<u8>) -> [u8; 32] {
        let mut hashing = Hashing::new(scratch);
        self.write_preimage(&mut hashing);
        hashing.finish()
    }

    /// Returns the values of the JSON columns, each with the name of its column.
    pub(crate) fn json_columns(&self) -> [(&'static str, Option<&'a str>); 4] {
        [
            ("row_key", self.row_key),
            ("row_values", self.row_values),
            ("changed_values", self.changed_values),
            ("details", self.details),
        ]
    }
}

/// A JSON object that is written member by member.
struct Object<'a, S> {
    out: &'a mut S,
    /// The byte to write before the next member: `{` before the first member, `,` before each later
    /// member.
    separator: u8,
}

impl<S: Sink> Object<'_, S> {
    /// Begins a member of the object. `name` is the name of the member in quotes, followed by a
    /// colon.
    #[inline]
    fn member(&mut self, name: &str) -> &mut S {
        self.out.push(self.separator);
        self.separator = b',';
        self.out.append(name.as_bytes());
        self.out
    }

    #[inline]
    fn text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            write_string(self.member(name), value);
        }
    }

    #[inline]
    fn json(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.member(name).append(value.as_bytes());
        }
    }

    #[inline]
    fn integer(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            write_i64(self.member(name), value);
        }
    }

    #[inline]
    fn quoted(&mut self, name: &str, write: impl FnOnce(&mut S)) {
        let out = self.member(name);
        out.push(b'"');
        write(out);
        out.push(b'"');
    }
}

/// Appends the text of a UUID: lowercase, with hyphens, without quotes.
pub fn write_uuid(out: &mut impl Sink, uuid: &[u8; 16]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 0xf)];
        at += 2;
    }
    out.append(&text);
}

#[cfg(test)]
mod tests;
