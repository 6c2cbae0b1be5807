//! Defines an entry that is about to be stored, and computes the entry's columns.

use super::entry_table::COLUMNS;
use super::invalid_bytes::InvalidBytes;
use crate::actor::Actor;
use crate::pg::{Hash32, Text};
use ledger::{Entry, EntryColumn, FORMAT};
use pgrx::pg_sys;

/// The part of an entry that the caller of the writer supplies. The writer adds the id, the time,
/// the transaction, the actor and the checksum.
#[derive(Default)]
pub struct NewEntry<'a> {
    pub watch_id: Option<[u8; 16]>,
    pub relation: Option<pg_sys::Oid>,
    pub table_schema: Option<&'a Text>,
    pub table_name: Option<&'a Text>,
    pub operation: &'static str,
    pub outcome: Outcome,
    pub soft_delete: Option<&'static str>,
    pub row_key: Option<&'a mut Text>,
    /// The row key before an UPDATE that changed the row key. The entry contains only the hash of
    /// the previous row key.
    pub previous_key: Option<&'a mut Text>,
    pub row_values: Option<&'a mut Text>,
    pub changed_values: Option<&'a mut Text>,
    pub details: Option<&'a mut Text>,
    pub error_code: Option<&'a mut Text>,
    pub error_message: Option<&'a mut Text>,
    pub error_detail: Option<&'a mut Text>,
    pub statement: Option<&'a mut Text>,
    /// The parts of JSON columns that are percent-encoded because their bytes are not valid text.
    pub invalid_bytes: Option<&'a InvalidBytes>,
}

/// The result of the event that an entry records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The operation succeeded. The entry belongs to the operation's transaction, so the entry
    /// exists only if that transaction commits.
    #[default]
    Ok,
    /// The operation failed.
    Failed,
    /// The operation's transaction was rolled back.
    RolledBack,
    /// The operation succeeded, but its entry could not be written.
    #[serde(rename = "gap")]
    Unwritten,
}

impl Outcome {
    /// Returns the value of the column `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed => "failed",
            Outcome::RolledBack => "rolled_back",
            Outcome::Unwritten => "gap",
        }
    }
}

/// The part of an entry that the writer adds to a [`NewEntry`].
pub struct Circumstances<'a> {
    /// The id of the entry, taken from the sequence.
    pub id: i64,
    /// The id of the top-level transaction.
    pub txid: u64,
    /// The time of the event, in microseconds since 2000-01-01 UTC.
    pub occurred_at: i64,
    /// The actor of the event.
    pub actor: &'a Actor,
}

/// An entry's columns as datums.
pub struct EntryDatums {
    /// The values, in the order of the table's columns.
    pub values: [pg_sys::Datum; COLUMNS],
    /// Whether each value is NULL.
    pub nulls: [bool; COLUMNS],
}

impl EntryDatums {
    fn set(&mut self, column: EntryColumn, value: pg_sys::Datum) {
        self.values[column as usize] = value;
        self.nulls[column as usize] = false;
    }

    fn set_text(&mut self, column: EntryColumn, value: Option<&Text>) {
        if let Some(text) = value {
            self.set(column, text.datum());
        }
    }
}

/// Buffers for the values of an entry. The datums of the entry point into these buffers.
#[derive(Default)]
pub struct DatumScratch {
    preimage: Vec<u8>,
    operation: Text,
    outcome: Text,
    soft_delete: Text,
    checksum: Hash32,
}

/// Returns the datum of a fixed word, for example of an operation or an outcome.
fn fixed(scratch: &mut Text, word: &str) -> pg_sys::Datum {
    if scratch.as_str() != word {
        *scratch = Text::from(word);
    }
    scratch.datum()
}

impl NewEntry<'_> {
    /// Returns the names of the text columns that are percent-encoded because their bytes are not
    /// valid text.
    fn encoded_texts(&self) -> impl Iterator<Item = &'static str> {
        let columns = [
            ("table_schema", self.table_schema),
            ("table_name", self.table_name),
            ("error_message", self.error_message.as_deref()),
            ("error_detail", self.error_detail.as_deref()),
            ("statement", self.statement.as_deref()),
        ];
        columns
            .into_iter()
            .filter(|(_, text)| text.is_some_and(Text::is_encoded))
            .map(|(name, _)| name)
    }

    /// Returns all percent-encoded parts of the entry, in JSON columns and in text columns.
    pub fn all_invalid_bytes(&self, actor: &Actor) -> InvalidBytes {
        let mut all = self.invalid_bytes.cloned().unwrap_or_default();
        self.encoded_texts().chain(actor.encoded()).for_each(|column| all.note_text(column));
        all
    }

    /// Returns the total length of those texts of the entry that have no maximum length.
    pub fn length(&self) -> usize {
        let texts = [&self.row_key, &self.row_values, &self.changed_values, &self.details];
        texts.into_iter().flatten().map(|text| text.bytes().len()).sum()
    }

    /// Computes the checksum, and returns the columns of the entry as datums. The datums point into
    /// the entry, its actor, `details` and `scratch`.
    pub fn datums(
        &self,
        details: Option<&Text>,
        with: &Circumstances,
        scratch: &mut DatumScratch,
    ) -> EntryDatums {
        let key_hash = |watch_id: Option<[u8; 16]>, key: &Option<&mut Text>| {
            Some(ledger::key_hash(&watch_id?, key.as_ref()?.bytes()))
        };
        let hash = key_hash(self.watch_id, &self.row_key);
        let previous_hash = key_hash(self.watch_id, &self.previous_key);
        let checksum = self.checksum(details, with, hash, previous_hash, &mut scratch.preimage);

        let mut datums =
            EntryDatums { values: [pg_sys::Datum::from(0); COLUMNS], nulls: [true; COLUMNS] };
        use EntryColumn as Column;
        datums.set(Column::Id, pg_sys::Datum::from(with.id));
        datums.set(Column::Txid, pg_sys::Datum::from(with.txid));
        datums.set(Column::OccurredAt, pg_sys::Datum::from(with.occurred_at));
        if let Some(hash) = hash {
            datums.set(Column::KeyHash, pg_sys::Datum::from(hash));
        }
        if let Some(hash) = previous_hash {
            datums.set(Column::PreviousKeyHash, pg_sys::Datum::from(hash));
        }
        if let Some(watch_id) = &self.watch_id {
            datums.set(Column::WatchId, pg_sys::Datum::from(watch_id.as_ptr()));
        }
        if let Some(relation) = self.relation {
            datums.set(Column::Relation, pg_sys::Datum::from(relation));
        }
        datums.set(Column::BackendPid, pg_sys::Datum::from(with.actor.backend_pid));
        datums.set(Column::Format, pg_sys::Datum::from(FORMAT));
        datums.set(Column::Checksum, scratch.checksum.assign(&checksum));
        datums.set(Column::Operation, fixed(&mut scratch.operation, self.operation));
        datums.set(Column::Outcome, fixed(&mut scratch.outcome, self.outcome.name()));
        if let Some(soft_delete) = self.soft_delete {
            datums.set(Column::SoftDelete, fixed(&mut scratch.soft_delete, soft_delete));
        }
        datums.set_text(Column::TableSchema, self.table_schema);
        datums.set_text(Column::TableName, self.table_name);
        datums.set_text(Column::RowKey, self.row_key.as_deref());
        datums.set_text(Column::RowValues, self.row_values.as_deref());
        datums.set_text(Column::ChangedValues, self.changed_values.as_deref());
        datums.set_text(Column::Details, details);
        datums.set_text(Column::ErrorCode, self.error_code.as_deref());
        datums.set_text(Column::ErrorMessage, self.error_message.as_deref());
        datums.set_text(Column::ErrorDetail, self.error_detail.as_deref());
        datums.set_text(Column::Statement, self.statement.as_deref());
        let actor = with.actor;
        datums.set_text(Column::UserId, actor.user_id.as_ref());
        datums.set_text(Column::UserIp, actor.user_ip.as_ref());
        datums.set_text(Column::UserAgent, actor.user_agent.as_ref());
        datums.set_text(Column::RequestId, actor.request_id.as_ref());
        datums.set_text(Column::DbSessionUser, actor.db_session_user.as_ref());
        datums.set_text(Column::DbCurrentUser, actor.db_current_user.as_ref());
        datums.set_text(Column::ClientAddr, actor.client_addr.as_ref());
        datums.set_text(Column::ApplicationName, actor.application_name.as_ref());
        datums
    }

    fn checksum(
        &self,
        details: Option<&Text>,
        with: &Circumstances,
        key_hash: Option<i64>,
        previous_key_hash: Option<i64>,
        scratch: &mut Vec<u8>,
    ) -> [u8; 32] {
        fn own<'t>(text: &'t Option<&mut Text>) -> Option<&'t str> {
            text.as_ref().map(|text| text.as_str())
        }
        fn shared(text: &Option<Text>) -> Option<&str> {
            text.as_ref().map(Text::as_str)
        }
        let actor = with.actor;
        Entry {
            id: with.id,
            format: FORMAT,
            txid: with.txid,
            occurred_at: with.occurred_at,
            watch_id: self.watch_id,
            key_hash,
            previous_key_hash,
            relation: self.relation.map(|oid| oid.to_u32()),
            backend_pid: Some(actor.backend_pid),
            table_schema: self.table_schema.map(Text::as_str),
            table_name: self.table_name.map(Text::as_str),
            operation: self.operation,
            outcome: self.outcome.name(),
            soft_delete: self.soft_delete,
            row_key: own(&self.row_key),
            row_values: own(&self.row_values),
            changed_values: own(&self.changed_values),
            details: details.map(Text::as_str),
            user_id: shared(&actor.user_id),
            user_ip: shared(&actor.user_ip),
            user_agent: shared(&actor.user_agent),
            request_id: shared(&actor.request_id),
            db_session_user: shared(&actor.db_session_user),
            db_current_user: shared(&actor.db_current_user),
            client_addr: shared(&actor.client_addr),
            application_name: shared(&actor.application_name),
            error_code: own(&self.error_code),
            error_message: own(&self.error_message),
            error_detail: own(&self.error_detail),
            statement: own(&self.statement),
        }
        .checksum(scratch)
    }
}
