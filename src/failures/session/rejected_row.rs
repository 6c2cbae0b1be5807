//! Finds the rejected row of a failed statement, if a slot of the executor still contains the row.
//! The session copies the rejected row as the bytes of a tuple, and the worker turns these bytes
//! into JSON.
//!
//! The executor does not expose the row that it is processing. This module infers the row from the
//! error and from the way in which plan nodes pass rows on. This module does not interpret the
//! values of the rejected row. The record contains the fingerprint of the row's type, so that the
//! worker can tell whether the relation still has this row type.

use super::raised_error::error_names;
use super::statement_scope::{Phase, StatementScope, Target};
use crate::failures::queue::record::RawRow;
use crate::pg::{attribute, packed_sqlstate_text, trigger_depth};
use pgrx::{PgList, pg_sys, varlena};
use std::ffi::CStr;

/// The maximum length of a tuple in a record, in bytes.
const LONGEST: usize = 64 * 1024;

mod raw {
    unsafe extern "C-unwind" {
        // pgrx also binds this function, but with its guard (`pg_guard_ffi_boundary`), which must
        // not run while an error is being raised (see `hooks/error.rs` for the reason).
        pub fn EOH_get_flat_size(eohptr: *mut pgrx::pg_sys::ExpandedObjectHeader) -> usize;
    }
}

/// The rejected row. For an UPDATE, the value contains the old and the new row version. `locate`
/// sets the slots, and `copy` sets the tuples. The type has no destructor, because an out-of-memory
/// error during the copying would jump over the destructor.
pub struct RejectedRow {
    relation: pg_sys::Oid,
    row_type: u64,
    slots: [*mut pg_sys::TupleTableSlot; 2],
    tuples: [pg_sys::HeapTuple; 2],
}

impl RejectedRow {
    /// Returns a value without a row.
    pub const fn none() -> Self {
        let (slot, tuple) = (std::ptr::null_mut(), std::ptr::null_mut());
        RejectedRow {
            relation: pg_sys::InvalidOid,
            row_type: 0,
            slots: [slot, slot],
            tuples: [tuple, tuple],
        }
    }

    /// Finds the slots that hold the rejected row. Finds no slot if it is uncertain which row is
    /// the rejected row. Calls no function that can raise an error.
    ///
    /// # Safety
    /// `scope` must be null or the scope of the current statement. `error` must be a copy of the
    /// error that is being raised.
    pub unsafe fn locate(&mut self, scope: *const StatementScope, error: *const pg_sys::ErrorData) {
        // SAFETY: `scope` and `error` are valid (see # Safety).
        let found = unsafe { scope.as_ref().and_then(|scope| find(scope, &*error)) };
        if let Some((relation, slots)) = found {
            self.slots = slots;
            // SAFETY: a slot that holds a row has a descriptor, and the relation is open.
            unsafe {
                self.relation = (*(*relation).ri_RelationDesc).rd_id;
                self.row_type = fingerprint((*slots[0]).tts_tupleDescriptor);
            }
        }
    }

    /// Copies the rows that `locate` found into the current memory context. Does not copy a row
    /// that is too long for a record. Can raise an error.
    ///
    /// # Safety
    /// The scope and the error that [`locate`](Self::locate) received must still be valid. An error
    /// jumps over the stack frames up to the code that catches the error, so these frames must have
    /// nothing to drop.
    pub unsafe fn copy(&mut self) {
        for (&slot, tuple) in self.slots.iter().zip(&mut self.tuples) {
            // SAFETY: the slots hold rows or are null, and the operations of each slot can copy the
            // slot's row.
            unsafe {
                if !slot.is_null()
                    && row_length(slot) <= LONGEST
                    && let Some(copy_heap_tuple) = (*(*slot).tts_ops).copy_heap_tuple
                {
                    *tuple = copy_heap_tuple(slot);
                }
            }
        }
    }

    /// Returns the copied rows in the form that a record contains. Returns `None` if a row was not
    /// copied, or if memory is exhausted.
    ///
    /// # Safety
    /// The copies that `copy` has made must be live.
    pub unsafe fn to_raw(&self) -> Option<RawRow> {
        // SAFETY: the data of a tuple is `t_len` bytes long.
        let bytes = |tuple: pg_sys::HeapTuple| unsafe {
            if tuple.is_null() || (*tuple).t_len as usize > LONGEST {
                return None;
            }
            to_hex(std::slice::from_raw_parts(
                (*tuple).t_data.cast::<u8>(),
                (*tuple).t_len as usize,
            ))
        };
        Some(RawRow {
            relation: self.relation.to_u32(),
            row_type: self.row_type,
            row: bytes(self.tuples[0])?,
            new_row: if self.slots[1].is_null() { None } else { Some(bytes(self.tuples[1])?) },
        })
    }
}

/// Returns the approximate length of a tuple that contains the slot's row.
///
/// # Safety
/// `slot` must hold a row.
unsafe fn row_length(slot: *mut pg_sys::TupleTableSlot) -> usize {
    // SAFETY: `tts_ops` identifies the kind of the slot. The values are read only if the slot has a
    // value for each column.
    unsafe {
        let kind = (*slot).tts_ops;
        if std::ptr::eq(kind, &raw const pg_sys::TTSOpsHeapTuple)
            || std::ptr::eq(kind, &raw const pg_sys::TTSOpsBufferHeapTuple)
        {
            let tuple = (*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple;
            if !tuple.is_null() {
                return (*tuple).t_len as usize;
            }
        } else if std::ptr::eq(kind, &raw const pg_sys::TTSOpsMinimalTuple) {
            let tuple = (*slot.cast::<pg_sys::MinimalTupleTableSlot>()).mintuple;
            if !tuple.is_null() {
                return (*tuple).t_len as usize;
            }
        }
        // If the error was raised while PostgreSQL was filling the slot, the slot has no tuple, and
        // has values for only some columns.
        if (*slot).tts_nvalid < (*(*slot).tts_tupleDescriptor).natts as i16 {
            return usize::MAX;
        }
        let mut length: usize = 0;
        for index in 0..(*slot).tts_nvalid.max(0) as usize {
            if *(*slot).tts_isnull.add(index) {
                continue;
            }
            let value = *(*slot).tts_values.add(index);
            length =
                length.saturating_add(match attribute((*slot).tts_tupleDescriptor, index).attlen {
                    -1 => {
                        let value = value.cast_mut_ptr::<pg_sys::varlena>();
                        if varlena::varatt_is_1b_e(value)
                            && varlena::vartag_is_expanded(varlena::vartag_1b_e(value).into())
                        {
                            raw::EOH_get_flat_size(pg_sys::DatumGetEOHP(value.into()))
                        } else {
                            varlena::varsize_any(value)
                        }
                    }
                    -2 => libc::strlen(value.cast_mut_ptr()) + 1,
                    fixed => fixed.max(0) as usize,
                });
        }
        length
    }
}

type Found = (*const pg_sys::ResultRelInfo, [*mut pg_sys::TupleTableSlot; 2]);

/// # Safety
/// `scope` must be the scope of the current statement.
unsafe fn find(scope: &StatementScope, error: &pg_sys::ErrorData) -> Option<Found> {
    // SAFETY: `scope` is the scope of the current statement (see # Safety), so its targets are
    // live.
    let target = unsafe { scope.target_of(error)? };
    if scope.query.is_null() || scope.phase == Phase::Outside || target.operation == "MERGE" {
        return None;
    }
    // SAFETY: the executor's state is live during the statement, and owns the slots. The code skips
    // null slots.
    unsafe {
        let state = (*scope.query).estate;
        if state.is_null() {
            return None;
        }
        let row_of = |result: *mut pg_sys::ResultRelInfo| {
            let result = &*result;
            let is_target =
                (*result.ri_RelationDesc).rd_id.to_u32() == (*target.watched).table.relation;
            let is_part = !result.ri_RootResultRelInfo.is_null();
            if !is_target && !is_part {
                return None;
            }
            if scope.phase == Phase::Finish {
                // The slots ri_TrigOldSlot and ri_TrigNewSlot contain the row for which an AFTER
                // trigger is firing. For an UPDATE, these trigger slots contain both versions of
                // the row. For a statement-level trigger, the trigger slots are empty.
                let new = if target.operation == "UPDATE" {
                    result.ri_TrigNewSlot
                } else {
                    std::ptr::null_mut()
                };
                return rows(result, result.ri_TrigOldSlot, new);
            }
            let node = writing_node(scope.query, result)?;
            if !is_certain(scope, target, error, node, result) {
                return None;
            }
            if target.operation == "INSERT" {
                return rows(result, inserted(node, result), std::ptr::null_mut());
            }
            // If an UPDATE moves the row to another partition, the error can be raised while the
            // row is inserted into the new partition. Even during this insertion, the slots of the
            // old partition hold the row.
            let source = source(node)?;
            match target.operation {
                "UPDATE" => rows(source, source.ri_oldTupleSlot, source.ri_newTupleSlot),
                _ => rows(source, source.ri_TrigOldSlot, std::ptr::null_mut()),
            }
        };
        // `opened` lists the tables that the plan writes to. `routed` lists the partitions that the
        // executor has opened while it processed single rows.
        let opened = PgList::<pg_sys::ResultRelInfo>::from_pg((*state).es_opened_result_relations);
        let routed = PgList::from_pg((*state).es_tuple_routing_result_relations);
        opened.iter_ptr().chain(routed.iter_ptr()).find_map(row_of)
    }
}

/// # Safety
/// Each slot must be null or have the row type of the result relation.
unsafe fn rows(
    result: &pg_sys::ResultRelInfo,
    row: *mut pg_sys::TupleTableSlot,
    new_row: *mut pg_sys::TupleTableSlot,
) -> Option<Found> {
    // SAFETY: the slots are null or valid (see # Safety).
    let is_at_hand = |slot| unsafe { holds_row(slot) && owns_row(slot) };
    let new_row = if is_at_hand(new_row) { new_row } else { std::ptr::null_mut() };
    is_at_hand(row).then_some((std::ptr::from_ref(result), [row, new_row]))
}

/// Returns whether the slot itself keeps its row alive. Otherwise the row lies in memory that the
/// executor can free while the slot still points to the row. For example, the slots of a foreign
/// table point to the old row of an UPDATE, which is on the executor's stack. The slots of a
/// foreign table still have this pointer when the executor processes the next row, or fires AFTER
/// triggers.
///
/// A slot owns its row after PostgreSQL has materialized the slot. Before PostgreSQL writes the row
/// of a slot, PostgreSQL materializes the slot. A slot also keeps a row alive if it pins the row's
/// buffer.
///
/// # Safety
/// `slot` must hold a row.
unsafe fn owns_row(slot: *const pg_sys::TupleTableSlot) -> bool {
    // SAFETY: `tts_ops` identifies the kind of the slot.
    unsafe {
        u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_SHOULDFREE != 0
            || std::ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple)
                && (*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).buffer
                    != pg_sys::InvalidBuffer as pg_sys::Buffer
    }
}

/// Returns the fingerprint of a row type. Row types with the same fingerprint have the same
/// physical layout.
///
/// # Safety
/// `descriptor` must be a live tuple descriptor.
pub unsafe fn fingerprint(descriptor: pg_sys::TupleDesc) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |value: u64| hash = (hash ^ value).wrapping_mul(0x0100_0000_01b3);
    // SAFETY: `descriptor` is a live tuple descriptor (see # Safety).
    unsafe {
        add((*descriptor).natts as u64);
        for index in 0..(*descriptor).natts as usize {
            let column = attribute(descriptor, index);
            add(u64::from(column.atttypid.to_u32()));
            add(column.attlen as u64);
            add(u64::from(column.attalign as u8));
            add(u64::from(column.attbyval) | u64::from(column.attisdropped) << 1);
        }
    }
    hash
}

/// Converts bytes to hexadecimal digits. Returns `None` if memory is exhausted.
fn to_hex(bytes: &[u8]) -> Option<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::new();
    text.try_reserve_exact(bytes.len() * 2).ok()?;
    for byte in bytes {
        text.extend(
            [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]].map(char::from),
        );
    }
    Some(text)
}

/// Converts hexadecimal digits to bytes. Returns `None` if the text is not hexadecimal.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| Some((digit(&pair[0])? << 4 | digit(pair.get(1)?)?) as u8))
        .collect()
}

/// The SQLSTATEs of constraint violations. An error with one of these SQLSTATEs names the table,
/// and is raised while the executor writes the rejected row.
const VIOLATIONS: [&str; 4] = ["23502", "23505", "23514", "23P01"];
/// The SQLSTATE of the error with which a row-level security policy refuses a row. The error names
/// no table.
const POLICY_REFUSES: &str = "42501";
/// The SQLSTATE of the error with which a view's WITH CHECK OPTION refuses a row. The error names
/// no table.
const VIEW_REFUSES: &str = "44000";

/// Returns the plan node that writes to the table of `result`. The plan node can belong to a WITH
/// query.
///
/// # Safety
/// `query` must be in progress, and `result` must be one of the query's result relations.
unsafe fn writing_node<'a>(
    query: *mut pg_sys::QueryDesc,
    result: *const pg_sys::ResultRelInfo,
) -> Option<&'a pg_sys::ModifyTableState> {
    // SAFETY: the query is in progress (see # Safety), and a node's tag identifies its type.
    unsafe {
        let writes = |node: &&pg_sys::ModifyTableState| {
            own_tables(node).as_ptr_range().contains(&result)
                || !node.rootResultRelInfo.is_null()
                    && (*result).ri_RootResultRelInfo == node.rootResultRelInfo
        };
        let top = (*query).planstate;
        let top = (!top.is_null() && (*top).type_ == pg_sys::NodeTag::T_ModifyTableState)
            .then(|| &*top.cast());
        let within =
            PgList::<pg_sys::ModifyTableState>::from_pg((*(*query).estate).es_auxmodifytables);
        top.filter(writes).or_else(|| within.iter_ptr().map(|node| &*node).find(writes))
    }
}

/// Returns the tables that a plan node writes to according to its plan. The result does not include
/// the partitions that the executor opens while it processes single rows.
fn own_tables(node: &pg_sys::ModifyTableState) -> &[pg_sys::ResultRelInfo] {
    // SAFETY: `resultRelInfo` is an array of `mt_nrels` tables.
    unsafe { std::slice::from_raw_parts(node.resultRelInfo, node.mt_nrels.max(0) as usize) }
}

/// Returns the table from which an UPDATE or DELETE took its current row.
fn source(node: &pg_sys::ModifyTableState) -> Option<&pg_sys::ResultRelInfo> {
    // If the node writes to a single table, mt_lastResultIndex stays 0.
    own_tables(node).get(usize::try_from(node.mt_lastResultIndex).ok()?)
}

/// Returns whether the error certainly concerns the row in the slot of `node`. A slot keeps its row
/// until the next row replaces it. If the computation of the next row fails, the slot still holds
/// the previous row, which the error does not concern.
///
/// # Safety
/// `scope` must be the scope of the current statement. `node` must be the plan node that writes to
/// `result`.
unsafe fn is_certain(
    scope: &StatementScope,
    target: &Target,
    error: &pg_sys::ErrorData,
    node: &pg_sys::ModifyTableState,
    result: &pg_sys::ResultRelInfo,
) -> bool {
    // SAFETY: `scope` and `node` are valid (see # Safety). Each relation has a name, and each plan
    // node has a plan.
    unsafe {
        let code = &*packed_sqlstate_text(error.sqlerrcode);
        let name = CStr::from_ptr((*(*result.ri_RelationDesc).rd_rel).relname.data.as_ptr());
        if VIOLATIONS.contains(&code) && error_names(error, &(*target.watched).table.schema, name) {
            return true;
        }
        // If an INSERT into a partitioned table fails, only the error of a constraint violation
        // names the partition of the row.
        if target.operation == "INSERT" && !result.ri_RootResultRelInfo.is_null() {
            return false;
        }
        if code == VIEW_REFUSES {
            return true;
        }
        // PostgreSQL counts the written rows (`es_processed`) only for the main part of the
        // statement, not for WITH queries. After the first written row, the slot may hold a row
        // that was written without an error.
        if !node.canSetTag || (*(*scope.query).estate).es_processed > 0 {
            return false;
        }
        let is_partitioned =
            (*(*result.ri_RelationDesc).rd_rel).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
        let may_skip = match target.operation {
            // A BEFORE trigger of a partition can skip rows. This code does not examine the
            // triggers of partitions, so it assumes that every INSERT into a partitioned table may
            // skip rows.
            "INSERT" => {
                is_partitioned
                    || (*node.ps.plan.cast::<pg_sys::ModifyTable>()).onConflictAction
                        != pg_sys::OnConflictAction::ONCONFLICT_NONE
                    || any_trigger(node, |triggers| triggers.trig_insert_before_row)
            }
            "UPDATE" => any_trigger(node, |triggers| triggers.trig_update_before_row),
            _ => any_trigger(node, |triggers| triggers.trig_delete_before_row),
        };
        !may_skip || code == POLICY_REFUSES || trigger_depth() > scope.trigger_depth
    }
}

/// Returns whether one of the tables that the plan node writes to has a trigger of this kind.
fn any_trigger(
    node: &pg_sys::ModifyTableState,
    kind: impl Fn(&pg_sys::TriggerDesc) -> bool,
) -> bool {
    // SAFETY: the trigger description is null or live.
    own_tables(node).iter().filter_map(|table| unsafe { table.ri_TrigDesc.as_ref() }).any(kind)
}

/// Returns the slot that holds the row of an INSERT, or null if the slot is unknown. `node` uses
/// the slot of its subplan if this slot is of the kind that the table requires
/// (ExecGetInsertNewTuple). If the slot is of another kind, `node` copies the row into a slot of
/// its own. If a partition has another layout than its parent, `node` copies the row into a slot of
/// the partition.
///
/// # Safety
/// `node` must be live, and must write to `result`.
unsafe fn inserted(
    node: &pg_sys::ModifyTableState,
    result: &pg_sys::ResultRelInfo,
) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: the node is live (see # Safety). The code does not follow null pointers.
    unsafe {
        // If ON CONFLICT DO UPDATE has found an existing row, the rejected row is the new version
        // of the existing row.
        if let Some(conflict) = result.ri_onConflict.as_ref()
            && holds_row(conflict.oc_Existing)
        {
            return conflict.oc_ProjSlot;
        }
        if !result.ri_RootResultRelInfo.is_null() && !result.ri_PartitionTupleSlot.is_null() {
            return result.ri_PartitionTupleSlot;
        }
        let table = &*node.resultRelInfo;
        let copied = table.ri_newTupleSlot;
        if !table.ri_projectNew.is_null() || copied.is_null() {
            return copied;
        }
        match passed_on(node.ps.lefttree) {
            Some(slot) if (*slot).tts_ops == (*copied).tts_ops => slot,
            Some(_) => copied,
            None => std::ptr::null_mut(),
        }
    }
}

/// Returns whether the slot holds a row.
///
/// # Safety
/// `slot` must be null or a slot.
unsafe fn holds_row(slot: *const pg_sys::TupleTableSlot) -> bool {
    // SAFETY: `slot` is null or a slot (see # Safety).
    unsafe { slot.as_ref() }
        .is_some_and(|slot| u32::from(slot.tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0)
}

/// Returns the slot in which a plan node has passed its current row to its parent node. Returns
/// `None` if the slot is unknown.
///
/// # Safety
/// `node` must be the live state of a plan node.
unsafe fn passed_on(node: *mut pg_sys::PlanState) -> Option<*mut pg_sys::TupleTableSlot> {
    use pg_sys::NodeTag as Tag;
    // SAFETY: the node is live (see # Safety), and its tag identifies its type.
    unsafe {
        let is_projected = !(*node).ps_ProjInfo.is_null();
        let slot = match (*node).type_ {
            Tag::T_LimitState | Tag::T_LockRowsState => return passed_on((*node).lefttree),
            Tag::T_AppendState => {
                let append = &*node.cast::<pg_sys::AppendState>();
                if append.as_nasyncplans > 0 {
                    return None;
                }
                let present = (0..append.as_nplans).contains(&append.as_whichplan);
                return present
                    .then(|| passed_on(*append.appendplans.add(append.as_whichplan as usize)))
                    .flatten();
            }
            Tag::T_SubqueryScanState if !is_projected => {
                return passed_on((*node.cast::<pg_sys::SubqueryScanState>()).subplan);
            }
            Tag::T_SeqScanState
            | Tag::T_SampleScanState
            | Tag::T_IndexScanState
            | Tag::T_IndexOnlyScanState
            | Tag::T_BitmapHeapScanState
            | Tag::T_TidScanState
            | Tag::T_FunctionScanState
            | Tag::T_TableFuncScanState
            | Tag::T_ValuesScanState
            | Tag::T_CteScanState
                if !is_projected =>
            {
                (*node.cast::<pg_sys::ScanState>()).ss_ScanTupleSlot
            }
            Tag::T_SortState
            | Tag::T_IncrementalSortState
            | Tag::T_MaterialState
            | Tag::T_UniqueState
            | Tag::T_SetOpState => (*node).ps_ResultTupleSlot,
            // The node is a join, an aggregate, or a scan that does not return all columns of its
            // table unchanged.
            _ if is_projected => (*node).ps_ResultTupleSlot,
            _ => return None,
        };
        (!slot.is_null()).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_there_and_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(to_hex(&bytes).and_then(|text| from_hex(&text)), Some(bytes));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
    }
}
