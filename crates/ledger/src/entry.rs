//! One row of `lead_audit.entry`, and the bytes that its checksum is taken over.
//!
//! The extension fills an [`Entry`] with what it is about to store and stores the checksum beside it; a verifier fills
//! one with what is stored. Both borrow, and both write the preimage into a buffer that they keep.

use crate::canonical::write_string;
use crate::decimal::{write_i64, write_u64};
use crate::hash::sha256;
use crate::time::write_timestamp;

/// The format that this crate writes, and the only one yet that it reads.
pub const FORMAT: i16 = 1;

/// One row of `lead_audit.entry`: a field for each column, but for `checksum`.
///
/// A field that is `None` is a column that is NULL. The JSON columns (`row_key`, `row_values`, `changed_values`,
/// `details`) are the text that is stored, which is canonical JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns, and docs/FORMAT.md describes those")]
pub struct Entry<'a> {
    pub id: i64,
    pub format: i16,
    pub txid: u64,
    /// Microseconds since 2000-01-01T00:00:00Z, as PostgreSQL has them; its infinities are the ends of the range.
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
    /// An entry of the current format in which nothing else is set.
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
    /// Appends the canonical JSON object that the checksum is taken over.
    ///
    /// The JSON columns are taken as they are: whoever stores them has written them canonically, and whoever verifies
    /// them uses [`verify`](Self::verify), which checks it.
    pub fn write_preimage(&self, out: &mut Vec<u8>) {
        let brace = out.len();
        out.reserve(self.length_hint());
        // In the order of the names. Each member begins with its comma; the first comma then becomes the brace.
        text(out, r#","application_name":"#, self.application_name);
        integer(out, r#","backend_pid":"#, self.backend_pid.map(i64::from));
        json(out, r#","changed_values":"#, self.changed_values);
        text(out, r#","client_addr":"#, self.client_addr);
        text(out, r#","db_current_user":"#, self.db_current_user);
        text(out, r#","db_session_user":"#, self.db_session_user);
        json(out, r#","details":"#, self.details);
        text(out, r#","error_code":"#, self.error_code);
        text(out, r#","error_detail":"#, self.error_detail);
        text(out, r#","error_message":"#, self.error_message);
        integer(out, r#","format":"#, Some(i64::from(self.format)));
        integer(out, r#","id":"#, Some(self.id));
        integer(out, r#","key_hash":"#, self.key_hash);
        out.extend_from_slice(br#","occurred_at":""#);
        write_timestamp(out, self.occurred_at);
        out.push(b'"');
        text(out, r#","operation":"#, Some(self.operation));
        text(out, r#","outcome":"#, Some(self.outcome));
        integer(out, r#","previous_key_hash":"#, self.previous_key_hash);
        integer(out, r#","relation":"#, self.relation.map(i64::from));
        text(out, r#","request_id":"#, self.request_id);
        json(out, r#","row_key":"#, self.row_key);
        json(out, r#","row_values":"#, self.row_values);
        text(out, r#","soft_delete":"#, self.soft_delete);
        text(out, r#","statement":"#, self.statement);
        text(out, r#","table_name":"#, self.table_name);
        text(out, r#","table_schema":"#, self.table_schema);
        out.extend_from_slice(br#","txid":"#);
        write_u64(out, self.txid);
        text(out, r#","user_agent":"#, self.user_agent);
        text(out, r#","user_id":"#, self.user_id);
        text(out, r#","user_ip":"#, self.user_ip);
        if let Some(watch_id) = &self.watch_id {
            out.extend_from_slice(br#","watch_id":""#);
            write_uuid(out, watch_id);
            out.push(b'"');
        }
        out[brace] = b'{';
        out.push(b'}');
    }

    /// The entry's checksum. `scratch` is emptied, and holds the preimage afterwards; keep it for the next entry.
    pub fn checksum(&self, scratch: &mut Vec<u8>) -> [u8; 32] {
        scratch.clear();
        self.write_preimage(scratch);
        sha256(scratch)
    }

    /// The JSON columns with their names.
    pub(crate) fn json_columns(&self) -> [(&'static str, Option<&'a str>); 4] {
        [
            ("row_key", self.row_key),
            ("row_values", self.row_values),
            ("changed_values", self.changed_values),
            ("details", self.details),
        ]
    }

    /// How long the preimage will be if nothing in it needs escaping, or a little more. The few columns that hold long
    /// texts are counted, for the others there is a sum that nearly always does.
    fn length_hint(&self) -> usize {
        let long = [
            self.row_key,
            self.row_values,
            self.changed_values,
            self.details,
            self.user_agent,
            self.error_message,
            self.error_detail,
            self.statement,
        ];
        1024 + long.into_iter().flatten().map(str::len).sum::<usize>()
    }
}

#[inline]
fn text(out: &mut Vec<u8>, member: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(member.as_bytes());
        write_string(out, value);
    }
}

#[inline]
fn json(out: &mut Vec<u8>, member: &str, value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(member.as_bytes());
        out.extend_from_slice(value.as_bytes());
    }
}

#[inline]
fn integer(out: &mut Vec<u8>, member: &str, value: Option<i64>) {
    if let Some(value) = value {
        out.extend_from_slice(member.as_bytes());
        write_i64(out, value);
    }
}

/// Appends a UUID's text: lowercase, with hyphens, without quotes.
pub fn write_uuid(out: &mut Vec<u8>, uuid: &[u8; 16]) {
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
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests;
