//! Implements the audit trigger for TRUNCATE. PostgreSQL calls the trigger before the TRUNCATE,
//! while the rows can still be counted. TRUNCATE locks the table before it calls triggers, so other
//! sessions cannot change the number of rows.
//!
//! If another BEFORE TRUNCATE trigger fires after the audit trigger and writes rows, TRUNCATE
//! removes these rows too. The audit trigger does not count them, because each of these rows has an
//! entry of its own. An AFTER TRUNCATE trigger can write rows that remain in the table. The entry
//! of a TRUNCATE must be written after all BEFORE TRUNCATE triggers, but before all other AFTER
//! TRUNCATE triggers. To write its entry at the right time, the audit trigger queues a second call
//! of itself as the first AFTER TRUNCATE trigger.

use super::trigger::TriggerCall;
use crate::entries::{self, NewEntry};
use crate::pg::{
    ServerError, Text, current_subtransaction, for_each_row, in_subtransaction, leaves,
    partition_ancestors, relation_name, schema_name,
};
use crate::settings;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::RefCell;

/// Tells PostgreSQL the calling convention of `lead_audit_capture_truncate`.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_lead_audit_capture_truncate() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

/// Implements `lead_audit.capture_truncate()`, which records a TRUNCATE with the number of removed
/// rows.
///
/// # Safety
/// Only PostgreSQL may call this function.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn lead_audit_capture_truncate(
    fcinfo: pg_sys::FunctionCallInfo,
) -> pg_sys::Datum {
    // SAFETY: PostgreSQL passes a valid call, which lasts until this function returns.
    let call = unsafe { TriggerCall::of(&fcinfo, "capture_truncate") };
    // SAFETY: the relation is open as long as the call lasts.
    let relation = unsafe { (*call.relation()).rd_id };
    if call.is_after()
        && let Some(counted) = take_counted(relation)
    {
        record(&call, relation, counted);
        return pg_sys::Datum::from(0);
    }
    call.require(pg_sys::TRIGGER_EVENT_BEFORE, "a BEFORE TRUNCATE trigger FOR EACH STATEMENT");
    if settings::enabled() && call.is_recorded(1) {
        let truncate = Truncate::current();
        // PostgreSQL usually calls the trigger of a partitioned table first, and this call counts
        // the rows of all partitions. If the TRUNCATE names a partition before the partitioned
        // table, PostgreSQL calls the partition's trigger first.
        if !truncate.has_counted(relation) {
            let rows = match settings::on_error() {
                settings::OnError::Warn => in_subtransaction(|| truncate.count_rows(relation)),
                settings::OnError::Abort => Ok(truncate.count_rows(relation)),
            };
            truncate.note(Counted { table: relation, rows: Some(rows) });
            // SAFETY: `require` has checked that a BEFORE TRUNCATE trigger is running.
            unsafe { queue_second_call(&call) };
        }
    }
    pg_sys::Datum::from(0)
}

/// Makes PostgreSQL call the running trigger a second time when TRUNCATE has emptied the tables.
/// The second call comes before all AFTER TRUNCATE triggers of the table, whatever their names are.
///
/// # Safety
/// A BEFORE TRUNCATE trigger must be running.
unsafe fn queue_second_call(call: &TriggerCall) {
    // SAFETY: ExecASTruncateTriggers() queues the AFTER TRUNCATE triggers of a `TriggerDesc`. The
    // `TriggerDesc` in this function contains only the running trigger, presented as an AFTER
    // TRUNCATE trigger. The queue of AFTER triggers belongs to the running TRUNCATE, and is still
    // empty. The queue stores the trigger's oid, with which PostgreSQL later finds the trigger in
    // the relation. When ExecASTruncateTriggers() has returned, PostgreSQL no longer uses memory of
    // this function.
    unsafe {
        let mut trigger = *call.trigger();
        trigger.tgtype = pg_sys::TRIGGER_TYPE_TRUNCATE as i16;
        // The copy of the trigger needs no WHEN condition, because the condition was true when
        // PostgreSQL called the trigger.
        trigger.tgqual = std::ptr::null_mut();
        let mut description = pg_sys::TriggerDesc {
            triggers: &mut trigger,
            numtriggers: 1,
            trig_truncate_after_statement: true,
            ..pg_sys::TriggerDesc::default()
        };
        let estate = pg_sys::CreateExecutorState();
        let mut table = pg_sys::ResultRelInfo {
            type_: pg_sys::NodeTag::T_ResultRelInfo,
            ri_RelationDesc: call.relation(),
            ri_TrigDesc: &mut description,
            ..pg_sys::ResultRelInfo::default()
        };
        pg_sys::ExecASTruncateTriggers(estate, &mut table);
        pg_sys::FreeExecutorState(estate);
    }
}

fn record(call: &TriggerCall, relation: pg_sys::Oid, counted: Result<Option<i64>, ServerError>) {
    // SAFETY: the relation is open as long as the call lasts.
    let (schema, name) = unsafe {
        (schema_name((*(*call.relation()).rd_rel).relnamespace), relation_name(call.relation()))
    };
    refuse_surviving_rows(relation, &name);
    match counted {
        Ok(rows) => {
            let mut details = rows.map(|rows| Text::from(&*format!(r#"{{"row_count":{rows}}}"#)));
            entries::append(NewEntry {
                watch_id: Some(call.watch_id()),
                relation: Some(relation),
                table_schema: Some(&schema),
                table_name: Some(&name),
                operation: "TRUNCATE",
                details: details.as_mut(),
                ..NewEntry::default()
            });
        }
        Err(error) => {
            let unwritten = entries::UnwrittenEntry {
                watch_id: Some(call.watch_id()),
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

/// Raises an error if the table has rows after the TRUNCATE. TRUNCATE rebuilds the table's indexes,
/// and an index on an expression can call a function of the table's owner. Rows that the owner's
/// function writes during the TRUNCATE remain in the table, although their entries precede the
/// entry of the TRUNCATE. If a BEFORE TRUNCATE trigger creates a partition with rows, these rows
/// remain in the table too.
fn refuse_surviving_rows(table: pg_sys::Oid, name: &Text) {
    let mut survives = false;
    if !is_foreign(table) {
        for_each_row(table, |_, _| survives = true);
    }
    if survives {
        ServerError {
            code: PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            message: format!(
                "table \"{}\" was written to by code that the command called",
                name.as_str()
            ),
            detail: Some(
                "lead_audit watches the table. Rows would remain that its entries show as truncated."
                    .to_owned(),
            ),
        }
        .raise(Some("Write to the table before or after the command.".to_owned()));
    }
}

fn is_foreign(table: pg_sys::Oid) -> bool {
    // SAFETY: get_rel_relkind() takes any oid.
    unsafe { pg_sys::get_rel_relkind(table) as u8 == pg_sys::RELKIND_FOREIGN_TABLE }
}

thread_local! {
    /// The TRUNCATEs in progress. A trigger of one TRUNCATE can truncate other tables.
    static UNDER_WAY: RefCell<Vec<Truncating>> = const { RefCell::new(Vec::new()) };
}

/// A TRUNCATE in progress.
struct Truncating {
    /// The address of the memory context of the command's executor state, which identifies the
    /// command.
    statement: usize,
    subtransaction: pg_sys::SubTransactionId,
    /// The tables whose rows the audit trigger has counted.
    tables: Vec<Counted>,
}

/// A table whose rows the audit trigger has counted.
struct Counted {
    table: pg_sys::Oid,
    /// The number of the table's rows, or `Ok(None)` for a foreign table. The field becomes `None`
    /// when the code takes the number for the entry of the TRUNCATE.
    rows: Option<Result<Option<i64>, ServerError>>,
}

/// Removes and returns the number of rows that was counted for a truncated table. Returns `None` if
/// no number was counted, or if the number was already taken for an entry.
fn take_counted(table: pg_sys::Oid) -> Option<Result<Option<i64>, ServerError>> {
    UNDER_WAY.with_borrow_mut(|all| {
        // The search begins with the TRUNCATE that started last, because earlier TRUNCATEs wait for
        // its end.
        let mut counted = all.iter_mut().rev().flat_map(|truncate| &mut truncate.tables);
        counted.find(|counted| counted.table == table && counted.rows.is_some())?.rows.take()
    })
}

/// A TRUNCATE, identified by the memory context of its executor state. Some tables of a TRUNCATE
/// can be partitions of other tables of the same command. Each row is counted only once, even if
/// the TRUNCATE names a partition and its partitioned table.
struct Truncate(usize);

impl Truncate {
    /// Returns the TRUNCATE that the running trigger belongs to.
    fn current() -> Self {
        // SAFETY: TRUNCATE calls its triggers in the per-tuple memory context of one executor
        // state. The parent of the per-tuple context is the executor state's own context, in which
        // the reset callback is allocated. PostgreSQL calls the reset callback when it deletes the
        // executor state's context: at the end of the statement, also after an error.
        let statement = unsafe {
            let memory = (*pg_sys::CurrentMemoryContext).parent;
            let known = UNDER_WAY
                .with_borrow(|all| all.iter().any(|known| known.statement == memory as usize));
            if !known {
                let callback = pg_sys::MemoryContextAllocZero(
                    memory,
                    size_of::<pg_sys::MemoryContextCallback>(),
                )
                .cast::<pg_sys::MemoryContextCallback>();
                (*callback).func = Some(truncate_is_over);
                (*callback).arg = memory.cast();
                pg_sys::MemoryContextRegisterResetCallback(memory, callback);
                let statement = memory as usize;
                let subtransaction = current_subtransaction();
                UNDER_WAY.with_borrow_mut(|all| {
                    all.push(Truncating { statement, subtransaction, tables: Vec::new() });
                });
            }
            memory as usize
        };
        Truncate(statement)
    }

    /// Returns whether this TRUNCATE has already counted the rows of the table. If the table is a
    /// partition, its rows may have been counted for its partitioned table.
    fn has_counted(&self, table: pg_sys::Oid) -> bool {
        let ancestors = partition_ancestors(table);
        UNDER_WAY.with_borrow(|all| {
            let counted = all
                .iter()
                .find(|known| known.statement == self.0)
                .map_or(&[][..], |known| &known.tables);
            counted.iter().any(|known| known.table == table || ancestors.contains(&known.table))
        })
    }

    fn note(&self, table: Counted) {
        UNDER_WAY.with_borrow_mut(|all| {
            if let Some(known) = all.iter_mut().find(|known| known.statement == self.0) {
                known.tables.push(table);
            }
        });
    }

    /// Counts the rows of this table that TRUNCATE will remove and that were not counted for
    /// another table. The count includes rows that row-level security hides from the caller.
    /// Returns `None` for a foreign table.
    fn count_rows(&self, table: pg_sys::Oid) -> Option<i64> {
        if is_foreign(table) {
            return None;
        }
        let mut rows = 0;
        for leaf in leaves(table).into_iter().filter(|&leaf| !self.has_counted(leaf)) {
            for_each_row(leaf, |_, _| rows += 1);
        }
        Some(rows)
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn truncate_is_over(statement: *mut core::ffi::c_void) {
    UNDER_WAY.with_borrow_mut(|all| all.retain(|known| known.statement != statement as usize));
}

/// Drops the row counts of the TRUNCATEs in a subtransaction that was rolled back. PostgreSQL can
/// keep the executor state of a rolled-back TRUNCATE until the transaction ends, so
/// `truncate_is_over` can run too late.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    UNDER_WAY.with_borrow_mut(|all| all.retain(|known| known.subtransaction < own));
}
