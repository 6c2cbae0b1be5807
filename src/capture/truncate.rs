//! The TRUNCATE trigger. It runs before the rows are gone, since afterwards nobody can count them; the table is locked
//! against everyone else by then, so the count is exact.

use super::plan::schema_name;
use super::trigger::TriggerCall;
use crate::journal::{self, NewEntry};
use crate::server::{Text, for_each_row, in_subtransaction, partition_ancestors};
use crate::settings;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ffi::CStr;

/// Tells Postgres how `lead_audit_capture_truncate` is to be called.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_capture_truncate() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit.capture_truncate()`.
///
/// # Safety
/// Called by Postgres only.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_capture_truncate(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres passes a valid call; the relation is open until this returns.
    unsafe {
        let call = TriggerCall::of(fcinfo, "capture_truncate");
        call.require(pg_sys::TRIGGER_EVENT_BEFORE, "a BEFORE TRUNCATE trigger FOR EACH STATEMENT");
        if settings::enabled() {
            let relation = (*call.data).tg_relation;
            let oid = (*relation).rd_id;
            if !counted_with_ancestor(oid) {
                let class = (*relation).rd_rel;
                let schema = schema_name((*class).relnamespace);
                let name = Text::from(&*CStr::from_ptr((*class).relname.data.as_ptr()).to_string_lossy());
                record(call.watch_id(), oid, &schema, &name);
            }
        }
    }
    pg_sys::Datum::from(0)
}

fn record(watch_id: [u8; 16], relation: pg_sys::Oid, schema: &Text, name: &Text) {
    let counted = match settings::on_error() {
        settings::OnError::Warn => in_subtransaction(|| count_rows(relation)),
        settings::OnError::Abort => Ok(count_rows(relation)),
    };
    match counted {
        Ok(rows) => {
            let mut details = Text::from(&*format!(r#"{{"row_count":{rows}}}"#));
            journal::append(NewEntry {
                watch_id: Some(watch_id),
                relation: Some(relation),
                table_schema: Some(schema),
                table_name: Some(name),
                operation: "TRUNCATE",
                details: Some(&mut details),
                ..NewEntry::default()
            });
        }
        Err(error) => {
            let gap = journal::Gap {
                watch_id: Some(watch_id),
                relation: Some(relation),
                schema: schema.as_str(),
                table: name.as_str(),
                key: None,
            };
            journal::not_written("TRUNCATE", &gap, &error);
        }
    }
    journal::flush();
}

thread_local! {
    /// The TRUNCATE that is under way, and the tables of it that have their entry.
    static COUNTED: RefCell<(u64, Vec<pg_sys::Oid>)> = const { RefCell::new((0, Vec::new())) };
}

/// Whether a partitioned table above this one is truncated by the same statement: its entry counts this one's rows. Postgres
/// calls the triggers of a partitioned table before those of its partitions.
fn counted_with_ancestor(relation: pg_sys::Oid) -> bool {
    let ancestors = partition_ancestors(relation);
    COUNTED.with_borrow_mut(|(statement, tables)| {
        if std::mem::replace(statement, journal::truncate_under_way()) != *statement {
            tables.clear();
        }
        let counted = ancestors.iter().any(|ancestor| tables.contains(ancestor));
        tables.push(relation);
        counted
    })
}

/// How many rows TRUNCATE will destroy, whatever the caller may see of them.
fn count_rows(relation: pg_sys::Oid) -> i64 {
    let mut rows = 0;
    for_each_row(relation, |_, _| rows += 1);
    rows
}
