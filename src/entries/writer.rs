//! Writes entries to `lead_audit.entry` without SQL, so that the role that writes a row needs no
//! rights on this table.

use super::batch::{self, PendingEntry};
use super::entry_table::{EntryTable, form_tuple, open_indexes, unless_abort};
use super::new_entry::{Circumstances, DatumScratch, NewEntry};
use super::on_error::UnwrittenEntry;
use super::{flush_points, on_error, renumber, write_counts};
use crate::actor::{self, Actor};
use crate::pg::{OpenRelation, ServerError, Text, in_subtransaction};
use crate::settings::{self, OnError};
use ledger::EntryColumn;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::RefCell;

/// The maximum number of tuples that one call inserts, which is the same number as in COPY.
const CHUNK: usize = 1000;

thread_local! {
    static SCRATCH: RefCell<DatumScratch> = RefCell::default();
}

/// Completes the entry, and adds it to the batch of its statement.
///
/// The function assigns the transaction's id *before* it takes the entry's id. Sealing depends on
/// the order in which the transaction's id and the entry's id are assigned. A snapshot that is
/// taken after an entry got its id shows the entry's transaction as in progress, committed or
/// aborted.
pub fn append(entry: NewEntry) {
    // The transaction's id is assigned before the entry's id is taken.
    // SAFETY: a transaction is in progress.
    let txid = unsafe { pg_sys::GetTopFullTransactionId().value };
    let gathered = target().and_then(|(table, id)| {
        write_counts::count(&entry);
        let actor = actor::current();
        // SAFETY: the call only reads the clock.
        let occurred_at = unsafe { pg_sys::GetCurrentTimestamp() };
        gather(&entry, &table, &Circumstances { id, txid, occurred_at, actor: &actor })
    });
    match gathered {
        Ok(bytes) if bytes >= settings::batch_bytes() || !flush_points::is_ahead() => flush(),
        Ok(_) => {}
        Err(error) => {
            let name = |text: Option<&Text>| text.map_or("", Text::as_str).to_owned();
            let (schema, table) = (name(entry.table_schema), name(entry.table_name));
            let key = entry.row_key.as_ref().map(|key| key.as_str());
            let about = UnwrittenEntry {
                watch_id: entry.watch_id,
                relation: entry.relation,
                schema: &schema,
                table: &table,
                key,
            };
            on_error::entry_not_written(entry.operation, &about, &error);
        }
    }
}

/// Adds an entry about another transaction, with that transaction's actor. The next `flush` writes
/// the entry. If the batch has grown large, this function calls `flush`.
///
/// # Errors
/// Returns an error if lead_audit.entry is missing or does not fit the library, or if memory is
/// exhausted. With `on_error = abort`, errors of PostgreSQL are raised and not returned.
pub fn append_about(
    entry: NewEntry,
    txid: u64,
    occurred_at: i64,
    actor: &Actor,
) -> Result<(), ServerError> {
    // SAFETY: a transaction is in progress. The transaction's id is assigned before the entry's id
    // is taken, because sealing depends on this order.
    unsafe { pg_sys::GetTopFullTransactionId() };
    let (table, id) = target()?;
    if gather(&entry, &table, &Circumstances { id, txid, occurred_at, actor })?
        >= settings::batch_bytes()
    {
        flush();
    }
    Ok(())
}

/// Writes an entry that the library itself makes, for example a KEY entry. All pending entries are
/// written before this entry. The transaction can read the entry as soon as the function has
/// returned. Raises an error if the insertion fails, even with `on_error = warn`. Returns the
/// entry's id.
///
/// # Errors
/// Returns an error if lead_audit.entry is missing or does not fit the library, or if memory is
/// exhausted. With `on_error = abort`, errors of PostgreSQL are raised and not returned.
pub fn write_at_once(entry: NewEntry) -> Result<i64, ServerError> {
    flush();
    // SAFETY: a transaction is in progress. The transaction's id is assigned before the entry's id
    // is taken, because sealing depends on this order.
    let txid = unsafe { pg_sys::GetTopFullTransactionId().value };
    let (table, id) = target()?;
    // SAFETY: the call only reads the clock.
    let occurred_at = unsafe { pg_sys::GetCurrentTimestamp() };
    let actor = actor::current();
    gather(&entry, &table, &Circumstances { id, txid, occurred_at, actor: &actor })?;
    let entries = batch::take_current();
    write_all(&entries);
    // SAFETY: no query of the present command is in progress, so the command counter can advance.
    unsafe { pg_sys::CommandCounterIncrement() };
    Ok(id)
}

/// Adds the entry to the batch. Returns the length of all pending entries, in bytes.
fn gather(
    entry: &NewEntry,
    table: &OpenRelation,
    with: &Circumstances,
) -> Result<usize, ServerError> {
    /// If the texts of an entry are longer than LONG bytes, memory may be exhausted while the tuple
    /// is made.
    const LONG: usize = 1 << 20;
    let with_invalid_bytes =
        entry.all_invalid_bytes(with.actor).into_details(entry.details.as_deref())?;
    let details = with_invalid_bytes.as_ref().or(entry.details.as_deref());
    let form = || {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut datums = entry.datums(details, with, scratch);
            // SAFETY: the datums are live and belong to the table's columns, as `EntryTable::find`
            // has checked. Columns that somebody has added to the table become NULL.
            unsafe { form_tuple(table, batch::context(), &mut datums.values, &mut datums.nulls) }
        })
    };
    let tuple = if entry.length() > LONG { unless_abort(form)? } else { form() };
    batch::push(tuple)
}

/// Locks lead_audit.entry, and takes the id of the next entry.
fn target() -> Result<(OpenRelation, i64), ServerError> {
    let found = EntryTable::find()?;
    Ok((found.lock()?, found.next_id()?))
}

/// Writes the pending entries of the current subtransaction.
pub fn flush() {
    if batch::is_empty() {
        return;
    }
    let entries = batch::take_current();
    if entries.is_empty() {
        return;
    }
    match settings::on_error() {
        OnError::Abort => write_all(&entries),
        OnError::Warn => {
            let Err(error) = in_subtransaction(|| write_all(&entries)) else { return };
            if error.code == PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION
                && let Ok(Some(renumbered)) =
                    in_subtransaction(|| renumber::around_inserted(&entries))
            {
                match in_subtransaction(|| write_all(&renumbered)) {
                    Ok(()) => {}
                    Err(error) => write_one_by_one(&renumbered, &error),
                }
                return;
            }
            write_one_by_one(&entries, &error);
        }
    }
}

/// Writes each entry in a subtransaction of its own. If one entry cannot be written, the function
/// still writes the remaining entries. `error` is the error with which the writing of all entries
/// together failed.
fn write_one_by_one(entries: &[PendingEntry], error: &ServerError) {
    if let [entry] = entries {
        return on_error::tuple_not_written(entry.tuple, error);
    }
    for entry in entries {
        if let Err(error) = in_subtransaction(|| write_all(std::slice::from_ref(entry))) {
            on_error::tuple_not_written(entry.tuple, &error);
        }
    }
}

fn write_all(entries: &[PendingEntry]) {
    let target = match EntryTable::find() {
        Ok(target) => target,
        Err(error) => error.raise(None),
    };
    let table = OpenRelation::open(target.table, pg_sys::RowExclusiveLock);
    // SAFETY: the tuples are of the table's row type, because the table has been locked since the
    // tuples were made.
    unsafe { insert(&table, target.index_of_previous_keys, entries) }
}

/// # Safety
/// The tuples must be of the table's row type.
unsafe fn insert(
    table: &OpenRelation,
    index_of_previous_keys: Option<pg_sys::Oid>,
    entries: &[PendingEntry],
) {
    // SAFETY: the code makes an executor state that knows the table and its indexes, as COPY does.
    // Everything that the code makes is in the memory context of the executor state, or is released
    // at the end of this function. After an error, the abort of the (sub)transaction releases
    // everything that the code has made.
    unsafe {
        let former = pg_sys::CurrentMemoryContext;
        let estate = pg_sys::CreateExecutorState();
        pg_sys::CurrentMemoryContext = (*estate).es_query_cxt;
        let needs_snapshot = !pg_sys::ActiveSnapshotSet();
        if needs_snapshot {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        let result =
            pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        pg_sys::InitResultRelInfo(result, table.as_ptr(), 0, std::ptr::null_mut(), 0);
        announce(estate, result);
        (*estate).es_output_cid = pg_sys::GetCurrentCommandId(true);
        let triggers = has_row_triggers(result);
        // If the table has row triggers, no index is left out, because a trigger can add a previous
        // row key to an entry.
        let without = index_of_previous_keys
            .filter(|_| !triggers && !entries.iter().any(|entry| has_previous_key(table, entry)));
        open_indexes(result, table, without);
        if triggers {
            insert_each(table, estate, result, entries);
        } else {
            insert_batch(table, estate, result, entries);
        }
        pg_sys::ExecCloseIndices(result);
        // This call releases the references to the row type that the slots of triggers still hold.
        pg_sys::ExecResetTupleTable((*estate).es_tupleTable, false);
        if needs_snapshot {
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::CurrentMemoryContext = former;
        pg_sys::FreeExecutorState(estate);
    }
}

/// Tells the executor state which table the library writes to.
///
/// # Safety
/// `estate` and `result` must live until the writing has ended.
unsafe fn announce(estate: *mut pg_sys::EState, result: *mut pg_sys::ResultRelInfo) {
    // SAFETY: `estate` and `result` live until the writing has ended (see # Safety).
    unsafe {
        (*estate).es_opened_result_relations =
            pg_sys::lappend((*estate).es_opened_result_relations, result.cast());
    }
}

/// # Safety
/// The entry's tuple must be of the table's row type.
unsafe fn has_previous_key(table: &OpenRelation, entry: &PendingEntry) -> bool {
    // SAFETY: the tuple is of the table's row type (see # Safety).
    unsafe {
        !pg_sys::heap_attisnull(
            entry.tuple,
            EntryColumn::PreviousKeyHash as i32 + 1,
            table.tuple_desc(),
        )
    }
}

/// # Safety
/// `result` must be initialized for the table.
unsafe fn has_row_triggers(result: *mut pg_sys::ResultRelInfo) -> bool {
    // SAFETY: `ri_TrigDesc` is null or a copy that belongs to `result`.
    unsafe {
        let triggers = (*result).ri_TrigDesc;
        !triggers.is_null()
            && ((*triggers).trig_insert_before_row || (*triggers).trig_insert_after_row)
    }
}

/// # Safety
/// The tuples must be of the table's row type.
unsafe fn insert_batch(
    table: &OpenRelation,
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    entries: &[PendingEntry],
) {
    // SAFETY: the slots are made for the table's row type, in the memory of the executor state, and
    // released at the end of this function.
    unsafe {
        // The slots get a copy of the row type, because the resource owner would track each slot's
        // reference to the table's own row type.
        let descriptor = pg_sys::CreateTupleDescCopy(table.tuple_desc());
        let mut slots: Vec<_> = (0..entries.len().min(CHUNK))
            .map(|_| pg_sys::MakeSingleTupleTableSlot(descriptor, &pg_sys::TTSOpsHeapTuple))
            .collect();
        for chunk in entries.chunks(CHUNK) {
            insert_chunk(table, estate, result, chunk, &mut slots[..chunk.len()]);
        }
        for slot in slots {
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
    }
}

/// # Safety
/// The tuples must be of the table's row type. There must be as many slots as entries, and the
/// slots must be made for the table's row type.
unsafe fn insert_chunk(
    table: &OpenRelation,
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    entries: &[PendingEntry],
    slots: &mut [*mut pg_sys::TupleTableSlot],
) {
    // SAFETY: the tuples are of the table's row type (see # Safety). While the table is written,
    // each slot claims to own its tuple. If the slot did not claim this, the insertion would copy
    // the tuple. The insertion changes only the header of the tuple. If the same tuple is inserted
    // a second time after an error, the second insertion overwrites the header.
    unsafe {
        let constrained = !(*table.tuple_desc()).constr.is_null();
        for (entry, &mut slot) in entries.iter().zip(&mut *slots) {
            pg_sys::ExecStoreHeapTuple(entry.tuple, slot, true);
            (*slot).tts_tableOid = (*table.as_ptr()).rd_id;
            if constrained {
                pg_sys::ExecConstraints(result, slot, estate);
            }
        }
        pg_sys::table_multi_insert(
            table.as_ptr(),
            slots.as_mut_ptr(),
            slots.len() as i32,
            (*estate).es_output_cid,
            0,
            std::ptr::null_mut(),
        );
        for &mut slot in slots {
            if (*result).ri_NumIndices > 0 {
                pg_sys::ExecInsertIndexTuples(
                    result,
                    slot,
                    estate,
                    false,
                    false,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    // The argument `onlySummarizing` is new in PostgreSQL 16. Only an UPDATE can
                    // set `onlySummarizing`, which restricts the call to summarizing indexes
                    // (BRIN).
                    #[cfg(not(feature = "pg15"))]
                    false,
                );
            }
            // The slot must not free the tuple, because the pending entry owns the tuple.
            (*slot).tts_flags &= !(pg_sys::TTS_FLAG_SHOULDFREE as u16);
            let per_tuple = (*estate).es_per_tuple_exprcontext;
            if !per_tuple.is_null() {
                pg_sys::MemoryContextReset((*per_tuple).ecxt_per_tuple_memory);
            }
        }
    }
}

fn skipped_by_trigger() -> ServerError {
    ServerError {
        code: PgSqlErrorCode::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
        message: "a trigger on lead_audit.entry suppressed the entry".to_owned(),
        detail: None,
    }
}

/// Inserts the entries one by one. The function is called if somebody has added row triggers to
/// lead_audit.entry.
///
/// # Safety
/// The tuples must be of the table's row type.
unsafe fn insert_each(
    table: &OpenRelation,
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    entries: &[PendingEntry],
) {
    // SAFETY: AFTER triggers are queued at the query level of this function, and fire when
    // AfterTriggerEndQuery() ends this level.
    unsafe {
        pg_sys::AfterTriggerBeginQuery();
        for entry in entries {
            let slot =
                pg_sys::MakeSingleTupleTableSlot(table.tuple_desc(), &pg_sys::TTSOpsHeapTuple);
            pg_sys::ExecStoreHeapTuple(entry.tuple, slot, false);
            pg_sys::ExecSimpleRelationInsert(result, estate, slot);
            if (*slot).tts_tid.ip_posid == 0 {
                skipped_by_trigger().raise(None);
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
        }
        pg_sys::AfterTriggerEndQuery(estate);
    }
}
