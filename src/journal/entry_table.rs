//! The table `lead_audit.entry` as the library sees it: where it is, and which column is where.

use crate::server::{OpenRelation, ServerError, attribute};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::Cell;
use std::ffi::CStr;

/// Number of columns that the library fills.
pub const COLUMNS: usize = 31;

/// The columns, in the order in which sql/30_entry.sql has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryColumn {
    Id,
    Txid,
    OccurredAt,
    KeyHash,
    PreviousKeyHash,
    WatchId,
    Relation,
    BackendPid,
    Format,
    Checksum,
    Operation,
    Outcome,
    TableSchema,
    TableName,
    SoftDelete,
    RowKey,
    RowValues,
    ChangedValues,
    Details,
    UserId,
    UserIp,
    UserAgent,
    RequestId,
    DbSessionUser,
    DbCurrentUser,
    ClientAddr,
    ApplicationName,
    ErrorCode,
    ErrorMessage,
    ErrorDetail,
    Statement,
}

/// Their names in that order, against which the table is checked: entries must not go into the wrong columns.
const NAMES: [&CStr; COLUMNS] = [
    c"id",
    c"txid",
    c"occurred_at",
    c"key_hash",
    c"previous_key_hash",
    c"watch_id",
    c"relation",
    c"backend_pid",
    c"format",
    c"checksum",
    c"operation",
    c"outcome",
    c"table_schema",
    c"table_name",
    c"soft_delete",
    c"row_key",
    c"row_values",
    c"changed_values",
    c"details",
    c"user_id",
    c"user_ip",
    c"user_agent",
    c"request_id",
    c"db_session_user",
    c"db_current_user",
    c"client_addr",
    c"application_name",
    c"error_code",
    c"error_message",
    c"error_detail",
    c"statement",
];

/// The oids of what the journal writes to.
#[derive(Debug, Clone, Copy)]
pub struct EntryTable {
    /// lead_audit.entry
    pub table: pg_sys::Oid,
    /// lead_audit.entry_id_seq
    pub id_sequence: pg_sys::Oid,
    /// lead_audit.unwritten_seq
    pub unwritten_sequence: pg_sys::Oid,
}

thread_local! {
    static KNOWN: Cell<Option<EntryTable>> = const { Cell::new(None) };
}

/// Called when Postgres says that a relation changed (or all, for an invalid oid).
pub fn relation_changed(relation: pg_sys::Oid) {
    let concerned = |known: EntryTable| {
        relation == pg_sys::InvalidOid || [known.table, known.id_sequence, known.unwritten_sequence].contains(&relation)
    };
    if KNOWN.get().is_some_and(concerned) {
        KNOWN.set(None);
    }
}

impl EntryTable {
    /// Finds the table, which is in schema lead_audit whatever the search_path says.
    pub fn find() -> Result<Self, ServerError> {
        if let Some(known) = KNOWN.get() {
            return Ok(known);
        }
        // SAFETY: look-ups by name; for what does not exist they return InvalidOid.
        let found = unsafe {
            let schema = pg_sys::get_namespace_oid(c"lead_audit".as_ptr(), true);
            let relation = |name: &CStr| pg_sys::get_relname_relid(name.as_ptr(), schema);
            EntryTable {
                table: relation(c"entry"),
                id_sequence: relation(c"entry_id_seq"),
                unwritten_sequence: relation(c"unwritten_seq"),
            }
        };
        if [found.table, found.id_sequence, found.unwritten_sequence].contains(&pg_sys::InvalidOid) {
            return Err(wrong("a part of schema lead_audit is missing".to_owned()));
        }
        found.check_columns()?;
        KNOWN.set(Some(found));
        Ok(found)
    }

    fn check_columns(&self) -> Result<(), ServerError> {
        let table = OpenRelation::open(self.table, pg_sys::AccessShareLock);
        let descriptor = table.tuple_desc();
        for (index, expected) in NAMES.iter().enumerate() {
            // SAFETY: the table is open; attributes are looked at only as far as there are any; a name is a C string.
            let found = unsafe {
                (index < (*descriptor).natts as usize).then(|| CStr::from_ptr(attribute(descriptor, index).attname.data.as_ptr()))
            };
            if found != Some(expected) {
                let expected = expected.to_string_lossy();
                return Err(wrong(format!("column {} of lead_audit.entry is not \"{expected}\"", index + 1)));
            }
        }
        Ok(())
    }
}

fn wrong(message: String) -> ServerError {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        message,
        detail: Some("The SQL objects of extension lead_audit are not those of the loaded library.".to_owned()),
    }
}
