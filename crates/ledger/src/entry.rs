//! One row of `lead_audit.entry`, and the preimage of its checksum.
//!
//! The extension fills an [`Entry`] with the values that it is about to store, computes the
//! checksum, and stores the checksum with the values. A verifier fills an [`Entry`] with the stored
//! values. In both cases the entry borrows the values, and the preimage is written into a reused
//! buffer.

use crate::canonical::write_string;
use crate::decimal::{write_i64, write_u64};
use crate::sink::{Hashing, Sink};
use crate::time::write_timestamp;

/// The entry format that this crate writes, and the only format that this crate reads.
pub const FORMAT: i16 = 1;

/// One row of `lead_audit.entry`: a field for each column except `checksum`.
///
/// `None` stands for NULL. The JSON columns (`row_key`, `row_values`, `changed_values`, `details`)
/// hold the stored text, which is canonical JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns, and docs/FORMAT.md describes those")]
pub struct Entry<'a> {
    pub id: i64,
    pub format: i16,
    pub txid: u64,
    /// Microseconds since 2000-01-01T00:00:00Z, as in PostgreSQL. `i64::MIN` and `i64::MAX` stand
    /// for PostgreSQL's `-infinity` and `infinity`.
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
    /// Returns an entry of the current format in which every other field is empty.
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
    /// Appends the preimage, the canonical JSON object that the checksum covers.
    ///
    /// Copies the JSON columns unchecked. The extension writes these columns canonically. A
    /// verifier uses [`verify`](Self::verify), which checks them.
    pub fn write_preimage(&self, out: &mut impl Sink) {
        let mut object = Object { out, separator: b'{' };
        // The members are in the order of their names.
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

    /// Returns the entry's checksum. Hashes the preimage piece by piece, so the memory it needs
    /// does not depend on the size of the entry. Empties `scratch`, which the caller can reuse for
    /// the next entry.
    pub fn checksum(&self, scratch: &mut Vec<u8>) -> [u8; 32] {
        let mut hashing = Hashing::new(scratch);
        self.write_preimage(&mut hashing);
        hashing.finish()
    }

    /// Returns the JSON columns with their names.
    pub(crate) fn json_columns(&self) -> [(&'static str, Option<&'a str>); 4] {
        [
            ("row_key", self.row_key),
            ("row_values", self.row_values),
            ("changed_values", self.changed_values),
            ("details", self.details),
        ]
    }
}

/// A JSON object under construction.
struct Object<'a, S> {
    out: &'a mut S,
    /// The byte to write before the next member: `{` before the first, then `,`.
    separator: u8,
}

impl<S: Sink> Object<'_, S> {
    /// Begins a member. `name` is the quoted name, followed by its colon.
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
