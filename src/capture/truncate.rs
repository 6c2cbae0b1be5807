//! The TRUNCATE trigger. It runs before the TRUNCATE, while the rows can still be counted. By then
//! TRUNCATE has locked the table, so the count is exact.

use super::trigger::TriggerCall;
use crate::entries::{self, NewEntry};
use crate::pg::{
    Text, for_each_row, in_subtransaction, leaves, partition_ancestors, relation_name, schema_name,
};
use crate::settings;
use pgrx::pg_sys;
use std::cell::RefCell;

/// Tells PostgreSQL the calling convention of `lead_audit_capture_truncate`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_capture_truncate() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// `lead_audit.capture_truncate()`: records a TRUNCATE with the number of its rows.
///
/// # Safety
/// Only PostgreSQL may call it.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_capture_truncate(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes a valid call, which lasts until this returns.
    let call = unsafe { TriggerCall::of(&fcinfo, "capture_truncate") };
    call.require(pg_sys::TRIGGER_EVENT_BEFORE, "a BEFORE TRUNCATE trigger FOR EACH STATEMENT");
    if settings::enabled() && call.is_recorded(1) {
        // SAFETY: the relation is open as long as the call lasts.
        let (relation, schema, name) = unsafe {
            let relation = &*call.relation();
            (
                relation.rd_id,
                schema_name((*relation.rd_rel).relnamespace),
                relation_name(call.relation()),
            )
        };
        let truncate = Truncate::current();
        // PostgreSQL calls the trigger of a partitioned table before those of its partitions,
        // except for partitions that the statement names before it.
        if !truncate.has_counted(relation) {
            record(&truncate, call.watch_id(), relation, &schema, &name);
            truncate.note(relation);
        }
    }
    pg_sys::Datum::from(0)
}

fn record(
    truncate: &Truncate,
    watch_id: [u8; 16],
    relation: pg_sys::Oid,
    schema: &Text,
    name: &Text,
) {
    let counted = match settings::on_error() {
        settings::OnError::Warn => in_subtransaction(|| truncate.count_rows(relation)),
        settings::OnError::Abort => Ok(truncate.count_rows(relation)),
    };
    match counted {
        Ok(rows) => {
            let mut details = Text::from(&*format!(r#"{{"row_count":{rows}}}"#));
            entries::append(NewEntry {
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
            let unwritten = entries::UnwrittenEntry {
                watch_id: Some(watch_id),
                relation: Some(relation),
                schema: schema.as_str(),
                table: name.as_str(),
                key: None,
            };
            entries::entry_not_written("TRUNCATE", &unwritten, &error);
        }
    }
    entries::flush();
}

thread_local! {
    /// The TRUNCATEs in progress, each identified by its executor state's memory context, with the
    /// tables that already have an entry. A trigger of one TRUNCATE can run another.
    static UNDER_WAY: RefCell<Vec<(usize, Vec<pg_sys::Oid>)>> = const { RefCell::new(Vec::new()) };
}

/// A TRUNCATE, identified by its executor state's memory context. Some of its tables can be
/// partitions of others; each row is counted once.
struct Truncate(usize);

impl Truncate {
    /// The TRUNCATE that the running trigger belongs to.
    fn current() -> Self {
        // SAFETY: TRUNCATE calls its triggers in the per-tuple memory of one executor state, whose
        // own context is the parent. The callback is allocated in that context. PostgreSQL calls it
        // when the context is deleted: at the end of the statement, also after an error.
        let statement = unsafe {
            let memory = (*pg_sys::CurrentMemoryContext).parent;
            let known = UNDER_WAY
                .with_borrow(|all| all.iter().any(|(statement, _)| *statement == memory as usize));
            if !known {
                let callback = pg_sys::MemoryContextAllocZero(
                    memory,
                    size_of::<pg_sys::MemoryContextCallback>(),
                )
                .cast::<pg_sys::MemoryContextCallback>();
                (*callback).func = Some(truncate_is_over);
                (*callback).arg = memory.cast();
                pg_sys::MemoryContextRegisterResetCallback(memory, callback);
                UNDER_WAY.with_borrow_mut(|all| all.push((memory as usize, Vec::new())));
            }
            memory as usize
        };
        Truncate(statement)
    }

    /// Whether the table has its entry, or a partitioned table above it has an entry that counts
    /// its rows.
    fn has_counted(&self, table: pg_sys::Oid) -> bool {
        let ancestors = partition_ancestors(table);
        UNDER_WAY.with_borrow(|all| {
            let counted = all
                .iter()
                .find(|(statement, _)| *statement == self.0)
                .map_or(&[][..], |(_, tables)| tables);
            counted.contains(&table) || ancestors.iter().any(|ancestor| counted.contains(ancestor))
        })
    }

    fn note(&self, table: pg_sys::Oid) {
        UNDER_WAY.with_borrow_mut(|all| {
            if let Some((_, tables)) = all.iter_mut().find(|(statement, _)| *statement == self.0) {
                tables.push(table);
            }
        });
    }

    /// Counts the rows in this table that TRUNCATE will remove and that no entry counts yet.
    /// Includes rows that the caller may not see.
    fn count_rows(&self, table: pg_sys::Oid) -> i64 {
        let mut rows = 0;
        for leaf in leaves(table).into_iter().filter(|&leaf| !self.has_counted(leaf)) {
            for_each_row(leaf, |_, _| rows += 1);
        }
        rows
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn truncate_is_over(statement: *mut core::ffi::c_void) {
    UNDER_WAY.with_borrow_mut(|all| all.retain(|(known, _)| *known != statement as usize));
}
