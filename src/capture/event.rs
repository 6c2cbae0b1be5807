//! What happened to a row, made into an entry and handed to the journal.

use super::plan::Plan;
use super::plan_cache;
use super::row_image::RowImage;
use crate::journal::{self, NewEntry};
use crate::server::{ServerError, Text, in_subtransaction};
use crate::settings::{self, OnError};
use pgrx::pg_sys;
use std::cell::Cell;

/// Which operation touched the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOperation {
    /// A new row.
    Insert,
    /// A row that is there in another form now.
    Update,
    /// A row that is gone.
    Delete,
    /// A row that was there when watching began.
    Snapshot,
}

impl RowOperation {
    /// As the column `operation` has it.
    pub fn name(self) -> &'static str {
        match self {
            RowOperation::Insert => "INSERT",
            RowOperation::Update => "UPDATE",
            RowOperation::Delete => "DELETE",
            RowOperation::Snapshot => "SNAPSHOT",
        }
    }
}

/// One event of one row of a watched table.
pub struct RowEvent<'a> {
    /// What happened.
    pub operation: RowOperation,
    /// The watched table, open.
    pub relation: pg_sys::Relation,
    /// Identity of the watched table.
    pub watch_id: [u8; 16],
    /// Name of its soft-delete column, or empty.
    pub soft_delete_column: &'a str,
    /// The row: the old one of an UPDATE or DELETE, else the new one.
    pub row: pg_sys::HeapTuple,
    /// The new row of an UPDATE.
    pub new_row: Option<pg_sys::HeapTuple>,
}

/// Buffers that each event uses again.
#[derive(Default)]
struct Scratch {
    row: RowImage,
    new_row: RowImage,
    row_values: Text,
    value_places: Vec<(usize, usize)>,
    changed_values: Text,
    row_key: Text,
    previous_key: Text,
}

thread_local! {
    // Taken out while in use: an output function can write to a watched table and so come back here.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Records the event, or does what lead_audit.on_error says if that is not possible.
///
/// # Safety
/// The relation must be open, and the tuples rows of it that stay until this returns.
pub unsafe fn record_row(event: &RowEvent) {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let guarded = settings::on_error() == OnError::Warn;
    // SAFETY: the relation is open.
    let plan = unsafe { plan_cache::plan(event.relation, event.soft_delete_column) };
    let result = if guarded && plan.may_raise {
        // SAFETY: as the caller promises.
        in_subtransaction(|| unsafe { encode(event, &plan, &mut scratch) }).and_then(|result| result)
    } else {
        // SAFETY: as the caller promises.
        unsafe { encode(event, &plan, &mut scratch) }
    };
    match result {
        Ok(Encoded::Entry { soft_delete, key_changed }) => {
            let Scratch { row_values, changed_values, row_key, previous_key, .. } = &mut *scratch;
            let is_update = event.operation == RowOperation::Update;
            journal::append(NewEntry {
                watch_id: Some(event.watch_id),
                relation: Some(plan.relation),
                table_schema: Some(&plan.schema),
                table_name: Some(&plan.name),
                operation: event.operation.name(),
                soft_delete,
                row_key: (!plan.key.is_empty()).then_some(row_key),
                previous_key: key_changed.then_some(previous_key),
                row_values: Some(row_values),
                changed_values: is_update.then_some(changed_values),
                ..NewEntry::default()
            });
        }
        Ok(Encoded::Nothing) => {}
        Err(error) => {
            let key = (!scratch.row_key.is_empty()).then(|| scratch.row_key.as_str());
            let gap = journal::Gap {
                watch_id: Some(event.watch_id),
                relation: Some(plan.relation),
                schema: plan.schema.as_str(),
                table: plan.name.as_str(),
                key,
            };
            journal::not_written(event.operation.name(), &gap, &error);
        }
    }
    SCRATCH.set(Some(scratch));
}

/// A row's columns of an entry.
pub struct RowTexts {
    /// The primary key: of an UPDATE, that of the old row.
    pub key: Option<Text>,
    /// The complete row: the old one of an UPDATE or DELETE.
    pub values: Text,
    /// What an UPDATE was to change.
    pub changed: Option<Text>,
}

/// The columns for a row that did not get into the table, or did not change.
///
/// # Errors
/// Where a value cannot be written as JSON. Its type's functions may raise errors.
///
/// # Safety
/// As for [`record_row`].
pub unsafe fn row_texts(event: &RowEvent) -> Result<RowTexts, ServerError> {
    // SAFETY: as the caller promises.
    unsafe {
        let plan = plan_cache::plan(event.relation, event.soft_delete_column);
        let (mut row, mut new_row) = (RowImage::default(), RowImage::default());
        let descriptor = (*event.relation).rd_att;
        row.take(event.row, descriptor);
        let mut key = Text::new();
        if !plan.key.is_empty() {
            row.write_object(&mut key, plan.key.iter().map(|&i| &plan.columns[i]), |_, _| {})?;
        }
        let (mut values, mut places, mut changed) = (Text::new(), Vec::new(), Text::new());
        row.write_object(&mut values, plan.columns.iter(), |start, end| places.push((start, end)))?;
        if let Some(new) = event.new_row {
            new_row.take(new, descriptor);
            row.write_changes(&mut changed, &plan, &new_row, &mut values, &places)?;
        }
        Ok(RowTexts { key: (!plan.key.is_empty()).then_some(key), values, changed: event.new_row.map(|_| changed) })
    }
}

enum Encoded {
    Entry { soft_delete: Option<&'static str>, key_changed: bool },
    Nothing,
}

/// # Safety
/// As for [`record_row`].
unsafe fn encode(event: &RowEvent, plan: &Plan, scratch: &mut Scratch) -> Result<Encoded, ServerError> {
    let Scratch { row, new_row, row_values, value_places, changed_values, row_key, previous_key } = scratch;
    row_values.clear();
    value_places.clear();
    changed_values.clear();
    row_key.clear();
    previous_key.clear();
    // SAFETY: tuples and row type are the relation's, the plan is for it, and all stay until this returns.
    unsafe {
        let descriptor = (*event.relation).rd_att;
        row.take(event.row, descriptor);
        let key_columns = || plan.key.iter().map(|&i| &plan.columns[i]);
        let Some(new_tuple) = event.new_row else {
            if !plan.key.is_empty() {
                row.write_object(row_key, key_columns(), |_, _| {})?;
            }
            row.write_object(row_values, plan.columns.iter(), |_, _| {})?;
            return Ok(Encoded::Entry { soft_delete: None, key_changed: false });
        };

        new_row.take(new_tuple, descriptor);
        let soft_delete =
            plan.soft_delete.map(|i| &plan.columns[i]).and_then(|column| match (row.is_true(column), new_row.is_true(column)) {
                (false, true) => Some("deleted"),
                (true, false) => Some("restored"),
                _ => None,
            });
        if soft_delete.is_some() && !settings::log_soft_deletes() {
            return Ok(Encoded::Nothing);
        }
        if !plan.key.is_empty() {
            new_row.write_object(row_key, key_columns(), |_, _| {})?;
            row.write_object(previous_key, key_columns(), |_, _| {})?;
        }
        row.write_object(row_values, plan.columns.iter(), |start, end| value_places.push((start, end)))?;
        row.write_changes(changed_values, plan, new_row, row_values, value_places)?;
        if changed_values.bytes() == b"{}" && !settings::log_unchanged() {
            return Ok(Encoded::Nothing);
        }
        Ok(Encoded::Entry { soft_delete, key_changed: row_key.bytes() != previous_key.bytes() })
    }
}
