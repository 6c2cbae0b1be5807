//! Turns an event that concerns one row into an entry. Encodes the row with the encoders of its
//! layout, and passes the entry to the module `entries`.

use super::foreign_code::ForeignCode;
use super::partition_move::{self, PendingMove};
use super::row_image::{Place, RowImage, RowVersion};
use super::row_layout::{Column, RowLayout, layout_of};
use crate::entries::{self, InvalidBytes, NewEntry};
use crate::pg::{ServerError, Text, attribute, in_subtransaction, trigger_depth};
use crate::settings::{self, OnError};
use ledger::Sink;
use ledger::canonical::write_string;
use pgrx::pg_sys;
use std::cell::Cell;

/// The operation of an event that concerns one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOperation {
    /// A new row.
    Insert,
    /// A row that has changed.
    Update,
    /// A row that was deleted.
    Delete,
    /// A row that existed when watching began.
    Snapshot,
}

impl RowOperation {
    /// Returns the value of the column `operation`.
    pub fn name(self) -> &'static str {
        match self {
            RowOperation::Insert => "INSERT",
            RowOperation::Update => "UPDATE",
            RowOperation::Delete => "DELETE",
            RowOperation::Snapshot => "SNAPSHOT",
        }
    }
}

/// An event that concerns one row of a watched table.
pub struct RowEvent<'a> {
    /// The operation of the event.
    pub operation: RowOperation,
    /// The open relation that contains the row: the watched table, or one of its partitions.
    pub relation: pg_sys::Relation,
    /// The watch id of the table.
    pub watch_id: [u8; 16],
    /// The name of the table's soft-delete column, or an empty text if the table has none.
    pub soft_delete_column: &'a str,
    /// The old row of an UPDATE or DELETE, or the row of an INSERT or SNAPSHOT.
    pub row: pg_sys::HeapTuple,
    /// The new row of an UPDATE.
    pub new_row: Option<pg_sys::HeapTuple>,
}

impl RowEvent<'_> {
    /// Returns `tuple`, which is one of the event's rows, with its row type and layout.
    ///
    /// # Safety
    /// The relation must be open.
    pub unsafe fn version(&self, tuple: pg_sys::HeapTuple) -> RowVersion {
        // SAFETY: the relation is open (see # Safety).
        let (descriptor, layout) =
            unsafe { ((*self.relation).rd_att, layout_of(self.relation, self.soft_delete_column)) };
        RowVersion { tuple, descriptor, layout }
    }
}

/// Buffers that are reused for each event.
#[derive(Default)]
struct Scratch {
    row: RowImage,
    new_row: RowImage,
    row_values: Text,
    value_places: Vec<Place>,
    changed_values: Text,
    row_key: Text,
    previous_key: Text,
    key_places: Vec<Place>,
    details: Text,
    invalid_bytes: InvalidBytes,
}

impl Scratch {
    fn clear(&mut self) {
        self.row_values.clear();
        self.value_places.clear();
        self.changed_values.clear();
        self.row_key.clear();
        self.previous_key.clear();
        self.details.clear();
        self.invalid_bytes.clear();
    }
}

thread_local! {
    // The cell is empty while a function uses the buffers. An output function can write to a
    // watched table during this time. The event of such a write finds the cell empty, and uses
    // buffers of its own.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Records the event. If recording fails, does what lead_audit.on_error specifies.
///
/// # Safety
/// The relation must be open. The tuples must be rows of the relation, and live until this function
/// returns.
pub unsafe fn record_row(event: &RowEvent) {
    // SAFETY: the relation is open and the tuples are its rows (see # Safety).
    unsafe {
        let row = event.version(event.row);
        match event.operation {
            RowOperation::Delete if partition_move::went_to_another_partition(event.row) => {
                record_unfinished_moves(trigger_depth());
                partition_move::defer(PendingMove::new(event.watch_id, &row, trigger_depth()));
            }
            RowOperation::Insert if partition_move::is_any_pending() => {
                match partition_move::take_other_half(event.watch_id, &row.layout, trigger_depth())
                {
                    Some(pending) => {
                        record(
                            RowOperation::Update,
                            event.watch_id,
                            Some(&pending.row),
                            Some(&row),
                        );
                        pending.free();
                    }
                    None => {
                        record_unfinished_moves(trigger_depth());
                        record(event.operation, event.watch_id, Some(&row), None);
                    }
                }
            }
            _ => {
                if partition_move::is_any_pending() {
                    record_unfinished_moves(trigger_depth());
                }
                let new_row = event.new_row.map(|new_row| event.version(new_row));
                record(event.operation, event.watch_id, Some(&row), new_row.as_ref());
            }
        }
    }
}

/// Records a DELETE for each pending move whose trigger depth is `depth` or greater, because no
/// INSERT trigger has completed the move.
fn record_unfinished_moves(depth: i32) {
    while let Some(pending) = partition_move::take_unfinished(depth) {
        // SAFETY: each copied tuple matches the row type and the layout that the same pending move
        // contains. After an error, PostgreSQL frees the copied tuples with their memory context.
        unsafe {
            record(RowOperation::Delete, pending.watch_id, Some(&pending.row), None);
            pending.free();
        }
    }
}

/// Records a DELETE for each pending move of a statement that has ended. No INSERT can complete a
/// pending move after the end of its statement.
pub fn statement_ends() {
    if partition_move::is_any_pending() {
        record_unfinished_moves(trigger_depth() + 1);
    }
}

/// Records an event with one row, or an UPDATE with its old and its new row.
///
/// # Safety
/// Each tuple must be of the row type and layout of its version, and live until this function
/// returns.
unsafe fn record(
    operation: RowOperation,
    watch_id: [u8; 16],
    row: Option<&RowVersion>,
    new_row: Option<&RowVersion>,
) {
    let Some(last) = new_row.or(row) else { return };
    let layout = &last.layout;
    let moved_from = row.map(|row| &row.layout).filter(|former| former.relation != layout.relation);
    let mut scratch = SCRATCH.take().unwrap_or_default();
    scratch.clear();
    // SAFETY: the tuples match their row types and layouts (see # Safety).
    let encode = |scratch: &mut Scratch| unsafe {
        match (row, new_row) {
            (Some(old), Some(new)) => encode_change(old, new, scratch),
            _ => encode_row(last, scratch),
        }
    };
    let may_raise = layout.may_raise
        || moved_from.is_some_and(|former| former.may_raise)
        || takes_memory(row)
        || takes_memory(new_row);
    let result = if settings::on_error() == OnError::Warn && may_raise {
        in_subtransaction(|| encode(&mut scratch)).and_then(|result| result)
    } else {
        encode(&mut scratch)
    };
    let result = result.and_then(|encoded| {
        if let (Encoded::Entry { .. }, Some(former)) = (&encoded, moved_from) {
            write_moved_from(&mut scratch, former)?;
        }
        Ok(encoded)
    });
    match result {
        Ok(Encoded::Entry { soft_delete, key_changed }) => {
            let Scratch {
                row_values,
                changed_values,
                row_key,
                previous_key,
                details,
                invalid_bytes,
                ..
            } = &mut *scratch;
            invalid_bytes.note("names", last.layout.encoded_names.iter().map(String::as_str));
            entries::append(NewEntry {
                watch_id: Some(watch_id),
                relation: Some(layout.relation),
                table_schema: Some(&layout.schema),
                table_name: Some(&layout.name),
                operation: operation.name(),
                soft_delete,
                row_key: (!layout.key.is_empty()).then_some(row_key),
                previous_key: key_changed.then_some(previous_key),
                row_values: Some(row_values),
                changed_values: (operation == RowOperation::Update).then_some(changed_values),
                details: moved_from.is_some().then_some(details),
                invalid_bytes: Some(invalid_bytes),
                ..NewEntry::default()
            });
        }
        Ok(Encoded::Nothing) => {}
        Err(error) => {
            let key = (!scratch.row_key.is_empty()).then(|| scratch.row_key.as_str());
            let unwritten = entries::UnwrittenEntry {
                watch_id: Some(watch_id),
                relation: Some(layout.relation),
                schema: layout.schema.as_str(),
                table: layout.name.as_str(),
                key,
            };
            entries::entry_not_written(operation.name(), &unwritten, &error);
        }
    }
    SCRATCH.set(Some(scratch));
}

/// Returns whether the row is so large that memory may be exhausted while the row is encoded. The
/// text of a value can be a thousand times as long as its stored form.
fn takes_memory(version: Option<&RowVersion>) -> bool {
    version.is_some_and(|version| {
        // SAFETY: a version's tuple is a valid heap tuple.
        let (length, mask) =
            unsafe { ((*version.tuple).t_len, (*(*version.tuple).t_data).t_infomask) };
        length > pg_sys::BLCKSZ || u32::from(mask) & pg_sys::HEAP_HASEXTERNAL != 0
    })
}

fn write_moved_from(scratch: &mut Scratch, layout: &RowLayout) -> Result<(), ServerError> {
    scratch.details.write(|out| {
        out.append(br#"{"moved_from":{"table_name":"#);
        write_string(out, layout.name.as_str());
        out.append(br#","table_schema":"#);
        write_string(out, layout.schema.as_str());
        out.append(b"}}");
        Ok(())
    })?;
    let names = [("table_name", &layout.name), ("table_schema", &layout.schema)];
    scratch.invalid_bytes.note(
        "moved_from",
        names.into_iter().filter(|(_, text)| text.is_encoded()).map(|(name, _)| name),
    );
    Ok(())
}

/// The columns of an entry that describe a row.
pub struct RowTexts {
    /// The row key; for an UPDATE, the row key of the old row.
    pub key: Option<Text>,
    /// The row image; for an UPDATE or DELETE, the image of the old row.
    pub values: Text,
    /// The new values of the columns that the failed UPDATE would have changed.
    pub changed: Option<Text>,
    /// The names of the columns that `values` and `changed` leave out, as JSON strings in canonical
    /// order.
    pub omitted: Vec<Vec<u8>>,
    /// Names the parts of `key`, `values` and `changed` that are percent-encoded because their
    /// bytes are not valid text.
    pub invalid_bytes: InvalidBytes,
}

/// Returns the texts that describe the rejected row of a failed statement. Omits each column whose
/// values cannot be written without running code of the table's owner, as the module `foreign_code`
/// determines.
///
/// # Errors
/// Returns an error if a value cannot be written as JSON.
///
/// # Safety
/// The relation must be open. The tuples must be rows of the relation, and live until this function
/// returns.
pub unsafe fn row_texts(
    event: &RowEvent,
    foreign_code: &mut ForeignCode,
) -> Result<RowTexts, ServerError> {
    // SAFETY: the relation is open and the tuples are its rows (see # Safety).
    unsafe {
        let layout = layout_of(event.relation, event.soft_delete_column);
        let (mut row, mut new_row) = (RowImage::default(), RowImage::default());
        let descriptor = (*event.relation).rd_att;
        row.take(event.row, descriptor);
        let (columns, omitted): (Vec<&Column>, Vec<&Column>) = layout
            .columns
            .iter()
            .partition(|column| !foreign_code.writes(attribute(descriptor, column.index).atttypid));
        let has_key = !layout.key.is_empty()
            && layout.key_columns().all(|key| omitted.iter().all(|one| one.index != key.index));
        let mut invalid_bytes = InvalidBytes::default();
        invalid_bytes.note("names", layout.encoded_names.iter().map(String::as_str));
        let (mut key, mut values, mut places, mut changed) =
            (Text::new(), Text::new(), Vec::new(), Text::new());
        if has_key && row.write_object(&mut key, layout.key_columns(), &mut places)? {
            invalid_bytes.note("row_key", encoded(layout.key_columns(), &places));
        }
        if row.write_object(&mut values, columns.iter().copied(), &mut places)? {
            invalid_bytes.note("row_values", encoded(columns.iter().copied(), &places));
        }
        if let Some(new) = event.new_row {
            new_row.take(new, descriptor);
            let pairs = columns.iter().map(|&column| (column, column));
            let encoded = row.write_changes(&mut changed, pairs, &new_row)?;
            let names = encoded
                .iter()
                .filter_map(|&place| columns.get(place))
                .map(|column| &*column.name.text);
            invalid_bytes.note("changed_values", names);
        }
        // `member` of a column is the column's name as a JSON string, followed by a colon.
        let omitted = omitted
            .iter()
            .map(|column| column.member[..column.member.len() - 1].to_vec())
            .collect();
        Ok(RowTexts {
            key: has_key.then_some(key),
            values,
            changed: event.new_row.map(|_| changed),
            omitted,
            invalid_bytes,
        })
    }
}

/// Returns the names of the columns whose values are percent-encoded.
fn encoded<'p>(
    columns: impl Iterator<Item = &'p Column>,
    places: &[Place],
) -> impl Iterator<Item = &'p str> {
    columns.zip(places).filter(|(_, place)| place.is_encoded).map(|(column, _)| &*column.name.text)
}

enum Encoded {
    Entry { soft_delete: Option<&'static str>, key_changed: bool },
    Nothing,
}

/// Encodes the row of an INSERT, DELETE or SNAPSHOT.
///
/// # Safety
/// The tuple must be of the row type and layout of its version.
unsafe fn encode_row(version: &RowVersion, scratch: &mut Scratch) -> Result<Encoded, ServerError> {
    let Scratch { row, row_values, value_places, row_key, key_places, invalid_bytes, .. } = scratch;
    let layout = &version.layout;
    // SAFETY: the tuple matches its row type and layout (see # Safety).
    unsafe {
        row.take(version.tuple, version.descriptor);
        if !layout.key.is_empty() && row.write_object(row_key, layout.key_columns(), key_places)? {
            invalid_bytes.note("row_key", encoded(layout.key_columns(), key_places));
        }
        if row.write_object(row_values, layout.columns.iter(), value_places)? {
            invalid_bytes.note("row_values", encoded(layout.columns.iter(), value_places));
        }
    }
    Ok(Encoded::Entry { soft_delete: None, key_changed: false })
}

/// Encodes the rows of an UPDATE. If the row has moved to another partition, its two versions have
/// different layouts, but these layouts have the same columns.
///
/// # Safety
/// Each tuple must be of the row type and layout of its version.
unsafe fn encode_change(
    old: &RowVersion,
    new: &RowVersion,
    scratch: &mut Scratch,
) -> Result<Encoded, ServerError> {
    let Scratch {
        row,
        new_row,
        row_values,
        value_places,
        changed_values,
        row_key,
        previous_key,
        key_places,
        invalid_bytes,
        ..
    } = scratch;
    // SAFETY: the tuples match their row types and layouts (see # Safety).
    unsafe {
        row.take(old.tuple, old.descriptor);
        new_row.take(new.tuple, new.descriptor);
        let was = old.layout.soft_delete.map(|i| row.is_true(&old.layout.columns[i]));
        let is = new.layout.soft_delete.map(|i| new_row.is_true(&new.layout.columns[i]));
        let soft_delete = match (was, is) {
            (Some(false), Some(true)) => Some("deleted"),
            (Some(true), Some(false)) => Some("restored"),
            _ => None,
        };
        if soft_delete.is_some() && !settings::log_soft_deletes() {
            return Ok(Encoded::Nothing);
        }
        let mut key_changed = false;
        if !new.layout.key.is_empty() {
            let previous_is_encoded =
                row.write_object(previous_key, old.layout.key_columns(), key_places)?;
            let is_encoded = new_row.write_object(row_key, new.layout.key_columns(), key_places)?;
            if is_encoded {
                invalid_bytes.note("row_key", encoded(new.layout.key_columns(), key_places));
            }
            key_changed =
                row_key.bytes() != previous_key.bytes() || is_encoded != previous_is_encoded;
        }
        if row.write_object(row_values, old.layout.columns.iter(), value_places)? {
            invalid_bytes.note("row_values", encoded(old.layout.columns.iter(), value_places));
        }
        let pairs = old.layout.columns.iter().zip(&new.layout.columns);
        let changed = row.write_changes(changed_values, pairs, new_row)?;
        invalid_bytes.note("changed_values", new.layout.names_of(&changed));
        if changed_values.bytes() == b"{}" && !settings::log_unchanged() {
            return Ok(Encoded::Nothing);
        }
        Ok(Encoded::Entry { soft_delete, key_changed })
    }
}
