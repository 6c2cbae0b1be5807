//! Makes the entry of a record. Finds the table, the rejected row and the row key, and adds the
//! details and the actor.

use super::lock_budget::LockBudget;
use super::resolve::resolve;
use crate::actor::Actor;
use crate::capture::{ForeignCode, RowEvent, RowOperation, RowTexts, row_texts};
use crate::entries::{self, InvalidBytes, NewEntry, Outcome};
use crate::failures::queue::record::{Count, RawRow, Record, Table};
use crate::failures::session::{fingerprint, from_hex, watched};
use crate::history::{key_of, key_types};
use crate::pg::{RowMemory, ServerError, Text, in_subtransaction, role_name};
use ledger::canonical::write_string;
use pgrx::pg_sys;
use std::collections::HashMap;

/// Returns whether the error is temporary. After a temporary error, the same work may succeed
/// later. Examples of temporary errors are those of a full disk, a lock timeout and a cancelled
/// query.
pub fn is_passing(error: &ServerError) -> bool {
    let code = crate::pg::sqlstate_text(error.code);
    ["40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
}

/// Determines how much work is undone if the making of an entry raises an error.
#[derive(Clone, Copy)]
pub enum ErrorIsolation {
    /// The entries of all records are made in one subtransaction. An error undoes all these
    /// entries.
    Together,
    /// Each step that can fail, for example the conversion of the rejected row to JSON, runs in a
    /// subtransaction. Only the failed step is undone, and the entry is written without the result
    /// of the step.
    Each,
}

impl ErrorIsolation {
    fn of<R>(self, work: impl FnOnce() -> R) -> Result<R, ServerError> {
        match self {
            ErrorIsolation::Together => Ok(work()),
            ErrorIsolation::Each => in_subtransaction(work),
        }
    }
}

/// The state that the worker keeps while it makes the entries of one transaction.
pub struct Gathering {
    roles: HashMap<u32, Option<Text>>,
    lock_budget: LockBudget,
    memory: RowMemory,
    foreign_code: ForeignCode,
}

impl Gathering {
    pub fn new() -> Self {
        Gathering {
            roles: HashMap::new(),
            lock_budget: LockBudget::new(),
            memory: RowMemory::new(c"lead_audit failed operation"),
            foreign_code: ForeignCode::default(),
        }
    }

    /// Makes the entry of a record. `entries::flush` writes the entry later. Returns false if the
    /// record gets no entry.
    pub fn gather(&mut self, record: &Record, isolation: ErrorIsolation) -> bool {
        if record.outcome == Outcome::Unwritten && was_rolled_back(record.txid) {
            return false;
        }
        let (mut table, mut operation, mut statement) =
            (record.table.as_ref(), &*record.operation, record.statement.as_deref());
        let resolved;
        if let Some(unresolved) = &record.unresolved {
            let role = pg_sys::Oid::from(record.current_user);
            resolved = match isolation.of(|| resolve(unresolved, role)) {
                Ok(Some(resolved)) => resolved,
                Err(error) if is_passing(&error) => error.raise(None),
                // The statement writes to no watched table, or its text cannot be parsed.
                Ok(None) | Err(_) => return false,
            };
            (table, operation, statement) =
                (Some(&resolved.table), resolved.operation, resolved.statement.as_deref());
        }
        let (mut key, mut values, mut changed) =
            (record.key.as_deref().map(Text::from), None, None);
        let (mut omitted, mut invalid_bytes) = (Vec::new(), InvalidBytes::default());
        if let Some(row) = &record.row {
            let Gathering { lock_budget, memory, foreign_code, .. } = self;
            match isolation
                .of(|| memory.for_row(|| texts_of(row, table, lock_budget, foreign_code)))
            {
                Ok(Some(texts)) => {
                    (key, values, changed) = (texts.key, Some(texts.values), texts.changed);
                    (omitted, invalid_bytes) = (texts.omitted, texts.invalid_bytes);
                }
                Err(error) if is_passing(&error) => self.lock_budget.give_up(row.relation),
                Ok(None) | Err(_) => {}
            }
        }
        if key.is_none() {
            key = table.and_then(|table| self.key_in_detail(record, table, isolation));
        }
        let known = table.filter(|table| !table.name.is_empty());
        let (schema, name) = (
            known.map(|table| Text::from(&*table.schema)),
            known.map(|table| Text::from(&*table.name)),
        );
        let text = |text: &Option<String>| text.as_deref().map(Text::from);
        let (mut code, mut message, mut detail) =
            (text(&record.error_code), text(&record.error_message), text(&record.error_detail));
        let mut statement = statement.map(Text::from);
        let mut details = details(record, &omitted);
        let roles = &mut self.roles;
        let mut role = |oid: u32| {
            roles.entry(oid).or_insert_with(|| role_name(pg_sys::Oid::from(oid))).clone()
        };
        let actor = Actor {
            user_id: text(&record.user_id),
            user_ip: text(&record.user_ip),
            user_agent: text(&record.user_agent),
            request_id: text(&record.request_id),
            db_session_user: role(record.session_user),
            db_current_user: role(record.current_user),
            client_addr: text(&record.client_addr),
            application_name: text(&record.application_name),
            backend_pid: record.backend_pid,
        };
        let entry = NewEntry {
            watch_id: table.and_then(|table| table.watch_id),
            relation: table
                .filter(|table| table.relation != 0)
                .map(|table| pg_sys::Oid::from(table.relation)),
            table_schema: schema.as_ref(),
            table_name: name.as_ref(),
            operation: operation_name(operation),
            outcome: record.outcome,
            row_key: key.as_mut(),
            row_values: values.as_mut(),
            changed_values: changed.as_mut(),
            details: details.as_mut(),
            error_code: code.as_mut(),
            error_message: message.as_mut(),
            error_detail: detail.as_mut(),
            statement: statement.as_mut(),
            invalid_bytes: Some(&invalid_bytes),
            ..NewEntry::default()
        };
        if let Err(error) = entries::append_about(entry, record.txid, record.occurred_at, &actor) {
            error.raise(None);
        }
        true
    }

    /// Reads the row key from the DETAIL of a constraint violation, which has the form "Key
    /// (columns)=(values) …". Returns `None` if the columns of the DETAIL are not those of the
    /// primary key.
    fn key_in_detail(
        &mut self,
        record: &Record,
        table: &Table,
        isolation: ErrorIsolation,
    ) -> Option<Text> {
        if !matches!(record.error_code.as_deref()?, "23505" | "23503")
            || record.outcome != Outcome::Failed
        {
            return None;
        }
        let (columns, values) = split_detail(record.error_detail.as_deref()?)?;
        let Gathering { lock_budget, foreign_code, .. } = self;
        isolation
            .of(|| {
                let open = lock_budget.open(table.relation)?;
                if key_types(&open)
                    .into_iter()
                    .any(|key| foreign_code.reads(key) || foreign_code.writes(key))
                {
                    return None;
                }
                key_of(
                    pg_sys::Oid::from(table.relation),
                    Some(columns),
                    values.into_iter().map(Some).collect(),
                )
            })
            .ok()
            .flatten()
            .as_deref()
            .map(Text::from)
    }
}

/// Returns whether a transaction was rolled back, or was interrupted by a crash of the server. In a
/// transaction that was rolled back, no entry is missing, because the rollback has also undone the
/// writes.
fn was_rolled_back(txid: u64) -> bool {
    let xid = pg_sys::TransactionId::from_inner(txid as u32);
    // SAFETY: PostgreSQL's commit log still contains the status of the transaction. For a prepared
    // transaction, TransactionIdIsInProgress() returns true.
    txid != 0
        && unsafe {
            !pg_sys::TransactionIdIsInProgress(xid) && !pg_sys::TransactionIdDidCommit(xid)
        }
}

/// Returns the name of an operation as a static string.
fn operation_name(name: &str) -> &'static str {
    const NAMES: [&str; 10] = [
        "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "TRUNCATE", "COMMIT", "ROLLBACK",
        "SNAPSHOT", "DDL",
    ];
    NAMES.into_iter().find(|known| *known == name).unwrap_or("OTHER")
}

/// Converts the rejected row to JSON. Returns `None` if the relation's row type has changed, or if
/// another session keeps the relation locked for too long.
fn texts_of(
    row: &RawRow,
    table: Option<&Table>,
    lock_budget: &mut LockBudget,
    foreign_code: &mut ForeignCode,
) -> Option<RowTexts> {
    let relation = lock_budget.open(row.relation)?;
    // SAFETY: the relation is open. The code reads the bytes of the tuple only if the relation
    // still has the row type of the tuple.
    unsafe {
        if fingerprint(relation.tuple_desc()) != row.row_type {
            return None;
        }
        let tuple = Tuple::from_hex(&row.row)?;
        let new_tuple = row.new_row.as_deref().map(Tuple::from_hex);
        let new_row = match new_tuple {
            Some(tuple) => Some(tuple?),
            None => None,
        };
        let found = watched((*relation.as_ptr()).rd_id);
        let soft_delete_column = if found.is_null() { "" } else { &*(*found).soft_delete_column };
        let event = RowEvent {
            operation: if new_row.is_some() { RowOperation::Update } else { RowOperation::Insert },
            relation: relation.as_ptr(),
            watch_id: table.and_then(|table| table.watch_id).unwrap_or_default(),
            soft_delete_column,
            row: tuple.0,
            new_row: new_row.map(|tuple| tuple.0),
        };
        match row_texts(&event, foreign_code) {
            Ok(texts) => Some(texts),
            Err(error) => error.raise(None),
        }
    }
}

/// A tuple in the current memory context.
struct Tuple(pg_sys::HeapTuple);

impl Tuple {
    fn from_hex(text: &str) -> Option<Self> {
        let bytes = from_hex(text)?;
        // SAFETY: palloc() aligns the header and the data of the tuple as PostgreSQL requires.
        unsafe {
            let tuple =
                pg_sys::palloc0(size_of::<pg_sys::HeapTupleData>()).cast::<pg_sys::HeapTupleData>();
            let data = pg_sys::palloc(bytes.len().max(1)).cast::<u8>();
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
            (*tuple).t_len = bytes.len() as u32;
            (*tuple).t_data = data.cast();
            Some(Tuple(tuple))
        }
    }
}

/// Splits the DETAIL of a constraint violation into columns and values. The DETAIL can be in any
/// language. Returns `None` if the values cannot be separated.
fn split_detail(detail: &str) -> Option<(Vec<String>, Vec<String>)> {
    let (_, rest) = detail.split_once('(')?;
    let (columns, rest) = rest.split_once(")=(")?;
    let (values, _) = rest.rsplit_once(')')?;
    // The name of a table after the values can also contain parentheses, as in `… is not present in
    // table "x (y)"`. The values end at the first closing parenthesis that is followed by a space.
    let values = values.split_once(") ").map_or(values, |(values, _)| values);
    let columns: Vec<String> =
        columns.split(", ").map(|column| column.trim_matches('"').to_owned()).collect();
    let values: Vec<String> = if columns.len() == 1 {
        vec![values.to_owned()]
    } else {
        values.split(", ").map(str::to_owned).collect()
    };
    (columns.len() == values.len()).then_some((columns, values))
}

/// Returns the JSON object for the entry's column `details`. The members of the object are in the
/// order of their names. Returns `None` if the object would have no members.
fn details(record: &Record, omitted: &[Vec<u8>]) -> Option<Text> {
    let mut out = Vec::new();
    let mut separator = b'{';
    let mut member = |out: &mut Vec<u8>, name: &str, value: &dyn Fn(&mut Vec<u8>)| {
        out.push(separator);
        separator = b',';
        write_string(out, name);
        out.push(b':');
        value(out);
    };
    for (name, text) in [("column", &record.column), ("constraint", &record.constraint)] {
        if let Some(text) = text {
            member(&mut out, name, &|out| write_string(out, text));
        }
    }
    if !omitted.is_empty() {
        member(&mut out, "omitted_columns", &|out| write_list(out, omitted));
    }
    if let Some(text) = &record.parameters {
        member(&mut out, "parameters", &|out| write_string(out, text));
    }
    if !record.written.is_empty() {
        member(&mut out, "written", &|out| write_counts(out, &record.written));
    }
    if record.written_omitted > 0 {
        member(&mut out, "written_omitted", &|out| {
            out.extend_from_slice(record.written_omitted.to_string().as_bytes())
        });
    }
    if separator == b'{' {
        return None;
    }
    out.push(b'}');
    Some(Text::from_server(&out))
}

/// Writes a JSON array: `["a","b"]`. The items are already JSON.
fn write_list(out: &mut Vec<u8>, items: &[Vec<u8>]) {
    for (number, item) in items.iter().enumerate() {
        out.push(if number == 0 { b'[' } else { b',' });
        out.extend_from_slice(item);
    }
    out.push(b']');
}

/// Writes a JSON array of counts:
/// `[{"operation":…,"rows":…,"table_name":…,"table_schema":…}]`
fn write_counts(out: &mut Vec<u8>, counts: &[Count]) {
    out.push(b'[');
    for (number, count) in counts.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"operation":"#);
        write_string(out, &count.operation);
        out.extend_from_slice(format!(r#","rows":{},"table_name":"#, count.rows).as_bytes());
        write_string(out, &count.table.name);
        out.extend_from_slice(br#","table_schema":"#);
        write_string(out, &count.table.schema);
        out.push(b'}');
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::split_detail;

    #[test]
    fn keys_in_details() {
        let split = |detail| {
            split_detail(detail).map(|(columns, values)| (columns.join("|"), values.join("|")))
        };
        let pair = |columns: &str, values: &str| Some((columns.to_owned(), values.to_owned()));
        assert_eq!(split("Key (id)=(a, b) already exists."), pair("id", "a, b"));
        assert_eq!(
            split("Key (tenant, no)=(7, 10.0) is still referenced from table \"orders\"."),
            pair("tenant|no", "7|10.0")
        );
        assert_eq!(split("Key (id)=(x) is not present in table \"a (b)\"."), pair("id", "x"));
        assert_eq!(split("Key (a, b)=(1, 2, 3) already exists."), None);
        assert_eq!(split("Rejected row contains (1, null)."), None);
    }
}
