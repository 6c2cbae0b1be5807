//! Where the executor has the row that a statement is busy with, if anywhere. Its state does not say so: it follows from how nodes pass
//! rows on, and from what the error says.

use super::frame::{Frame, Target};
use super::raised::RaisedError;
use crate::server::trigger_depth;
use pgrx::{PgList, pg_sys};

/// Errors of the table itself: a row of it is in hand, and they name the table.
const VIOLATIONS: [&str; 4] = ["23502", "23505", "23514", "23P01"];
/// A policy refuses the row. This, and the next, name no table.
const POLICY_REFUSES: &str = "42501";
/// A view's WITH CHECK OPTION refuses it.
const VIEW_REFUSES: &str = "44000";

/// The node of the plan that writes to this table, be it within WITH.
///
/// # Safety
/// `query` must be under way, and `result` one of its tables.
pub unsafe fn writing_node<'a>(
    query: *mut pg_sys::QueryDesc,
    result: *const pg_sys::ResultRelInfo,
) -> Option<&'a pg_sys::ModifyTableState> {
    // SAFETY: as the caller promises; a node's tag says what it is. A node has as many tables as it says, in an array.
    unsafe {
        let writes = |node: &&pg_sys::ModifyTableState| {
            own_tables(node).as_ptr_range().contains(&result)
                || !node.rootResultRelInfo.is_null() && (*result).ri_RootResultRelInfo == node.rootResultRelInfo
        };
        let top = (*query).planstate;
        let top = (!top.is_null() && (*top).type_ == pg_sys::NodeTag::T_ModifyTableState).then(|| &*top.cast());
        let within = PgList::<pg_sys::ModifyTableState>::from_pg((*(*query).estate).es_auxmodifytables);
        top.filter(writes).or_else(|| within.iter_ptr().map(|node| &*node).find(writes))
    }
}

/// The tables that a node writes to, but for partitions that it finds while it does.
fn own_tables(node: &pg_sys::ModifyTableState) -> &[pg_sys::ResultRelInfo] {
    // SAFETY: a node has as many as it says, in an array.
    unsafe { std::slice::from_raw_parts(node.resultRelInfo, node.mt_nrels.max(0) as usize) }
}

/// The table that an UPDATE or DELETE has its present row from.
pub fn source(node: &pg_sys::ModifyTableState) -> Option<&pg_sys::ResultRelInfo> {
    // Of one table it stays 0.
    own_tables(node).get(usize::try_from(node.mt_lastResultIndex).ok()?)
}

/// Whether it is certain that the row in hand is the one that the error is about. Rows leave their values in the slot until the next has
/// its own, and the error may be in getting that.
///
/// # Safety
/// The frame must be of the statement that is under way, and `node` its node that writes to `result`.
pub unsafe fn is_certain(
    frame: &Frame,
    target: &Target,
    error: &RaisedError,
    node: &pg_sys::ModifyTableState,
    result: &pg_sys::ResultRelInfo,
) -> bool {
    // SAFETY: as the caller promises; a relation has a name, a node its plan.
    unsafe {
        let name = std::ffi::CStr::from_ptr((*(*result.ri_RelationDesc).rd_rel).relname.data.as_ptr()).to_string_lossy();
        if VIOLATIONS.contains(&&*error.code) && error.names(&(*target.watched).table.schema, &name) {
            return true;
        }
        // To which partition the row goes nothing else says.
        if target.operation == "INSERT" && !result.ri_RootResultRelInfo.is_null() {
            return false;
        }
        if error.code == VIEW_REFUSES {
            return true;
        }
        // Only of the statement's main part is it known how many rows it has written.
        if !node.canSetTag || (*(*frame.query).estate).es_processed > 0 {
            return false;
        }
        let is_partitioned = (*(*result.ri_RelationDesc).rd_rel).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
        let may_skip = match target.operation {
            // Which triggers its partitions have is not looked for.
            "INSERT" => {
                is_partitioned
                    || (*node.ps.plan.cast::<pg_sys::ModifyTable>()).onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NONE
                    || any_trigger(node, |triggers| triggers.trig_insert_before_row)
            }
            "UPDATE" => any_trigger(node, |triggers| triggers.trig_update_before_row),
            _ => any_trigger(node, |triggers| triggers.trig_delete_before_row),
        };
        !may_skip || error.code == POLICY_REFUSES || trigger_depth() > frame.trigger_depth
    }
}

/// Whether any of a node's tables has triggers of a kind.
fn any_trigger(node: &pg_sys::ModifyTableState, kind: impl Fn(&pg_sys::TriggerDesc) -> bool) -> bool {
    // SAFETY: the description is null or live.
    own_tables(node).iter().filter_map(|table| unsafe { table.ri_TrigDesc.as_ref() }).any(kind)
}

/// The slot that has the row of an INSERT, or null. The node takes the plan's slot as it is where that is of the kind that the table wants
/// (ExecGetInsertNewTuple), else it copies the row into one of its own; for a partition that is laid out otherwise the row is copied again.
///
/// # Safety
/// `node` must be live and write to `result`.
pub unsafe fn inserted(node: &pg_sys::ModifyTableState, result: &pg_sys::ResultRelInfo) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as the caller promises; what is null is looked at no further.
    unsafe {
        // As long as ON CONFLICT DO UPDATE has the row that was there, it is what that row becomes that fails.
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

/// Whether there is a row in the slot.
///
/// # Safety
/// `slot` must be null or a slot.
pub unsafe fn holds_row(slot: *const pg_sys::TupleTableSlot) -> bool {
    // SAFETY: as the caller promises.
    unsafe { slot.as_ref() }.is_some_and(|slot| u32::from(slot.tts_flags) & pg_sys::TTS_FLAG_EMPTY == 0)
}

/// The slot in which a node gave its present row; `None` where that cannot be told.
///
/// # Safety
/// `node` must be the live state of a plan.
unsafe fn passed_on(node: *mut pg_sys::PlanState) -> Option<*mut pg_sys::TupleTableSlot> {
    use pg_sys::NodeTag as Tag;
    // SAFETY: as the caller promises; a node's tag says what it is.
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
                return present.then(|| passed_on(*append.appendplans.add(append.as_whichplan as usize))).flatten();
            }
            Tag::T_SubqueryScanState if !is_projected => return passed_on((*node.cast::<pg_sys::SubqueryScanState>()).subplan),
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
            Tag::T_SortState | Tag::T_IncrementalSortState | Tag::T_MaterialState | Tag::T_UniqueState | Tag::T_SetOpState => {
                (*node).ps_ResultTupleSlot
            }
            // Joins, aggregates, and all scans that give other columns than their table's.
            _ if is_projected => (*node).ps_ResultTupleSlot,
            _ => return None,
        };
        (!slot.is_null()).then_some(slot)
    }
}
