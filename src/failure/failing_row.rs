//! The row that a statement failed at, if the executor has it at hand: as the bytes of a tuple, which the worker makes JSON of.
//! Nothing of it is looked at here; the fingerprint of its row type tells the worker whether it can be.

use super::frame::{Frame, Phase, Target};
use super::present_row;
use super::raised::RaisedError;
use super::record::RawRow;
use crate::server::{attribute, in_context, new_context};
use pgrx::{PgList, pg_sys};
use std::cell::Cell;

/// Longest row that a record carries, in bytes.
const LONGEST: usize = 64 * 1024;

thread_local! {
    static MEMORY: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// The row, where it is certain that it is the one.
///
/// # Safety
/// The frame must be of the statement that is under way.
pub unsafe fn find(frame: &Frame, target: &Target, error: &RaisedError) -> Option<RawRow> {
    if frame.query.is_null() || frame.phase == Phase::Outside || target.operation == "MERGE" {
        return None;
    }
    // SAFETY: the executor's state is live while the statement is under way. A slot belongs to it; a null one is not there.
    unsafe {
        let state = (*frame.query).estate;
        if state.is_null() {
            return None;
        }
        let row_of = |result: *mut pg_sys::ResultRelInfo| {
            let result = &*result;
            let is_target = (*result.ri_RelationDesc).rd_id.to_u32() == (*target.watched).table.relation;
            let is_part = !result.ri_RootResultRelInfo.is_null();
            if !is_target && !is_part {
                return None;
            }
            if frame.phase == Phase::Finish {
                // The AFTER trigger that fires has its row here, for an UPDATE both; one that fires for the statement finds none.
                let new = if target.operation == "UPDATE" { result.ri_TrigNewSlot } else { std::ptr::null_mut() };
                return copy(result, result.ri_TrigOldSlot, new);
            }
            let node = present_row::writing_node(frame.query, result)?;
            if !present_row::is_certain(frame, target, error, node, result) {
                return None;
            }
            if target.operation == "INSERT" {
                return copy(result, present_row::inserted(node, result), std::ptr::null_mut());
            }
            // The row may be on its way to another partition, which refuses it.
            let source = present_row::source(node)?;
            match target.operation {
                "UPDATE" => copy(source, source.ri_oldTupleSlot, source.ri_newTupleSlot),
                _ => copy(source, source.ri_TrigOldSlot, std::ptr::null_mut()),
            }
        };
        // The tables that it writes to, and the partitions that it has opened for rows.
        let opened = PgList::<pg_sys::ResultRelInfo>::from_pg((*state).es_opened_result_relations);
        let routed = PgList::from_pg((*state).es_tuple_routing_result_relations);
        opened.iter_ptr().chain(routed.iter_ptr()).find_map(row_of)
    }
}

/// # Safety
/// The slots must be null or of the result relation's row type.
unsafe fn copy(
    result: &pg_sys::ResultRelInfo,
    row: *mut pg_sys::TupleTableSlot,
    new_row: *mut pg_sys::TupleTableSlot,
) -> Option<RawRow> {
    // SAFETY: as the caller promises.
    unsafe {
        if MEMORY.get().is_null() {
            MEMORY.set(new_context(pg_sys::TopMemoryContext, c"lead_audit failing row"));
        }
        let raw = bytes(row).map(|bytes| RawRow {
            relation: (*result.ri_RelationDesc).rd_id.to_u32(),
            row_type: fingerprint((*row).tts_tupleDescriptor),
            row: bytes,
            new_row: self::bytes(new_row),
        });
        pg_sys::MemoryContextReset(MEMORY.get());
        raw
    }
}

/// # Safety
/// `slot` must be null or a slot.
unsafe fn bytes(slot: *mut pg_sys::TupleTableSlot) -> Option<String> {
    // SAFETY: as the caller promises; a slot that is not empty can be copied.
    unsafe {
        if !present_row::holds_row(slot) {
            return None;
        }
        // One without a tuple owns its values only once it was materialized, which writing the row begins with.
        let is_virtual = std::ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsVirtual);
        if is_virtual && u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_SHOULDFREE == 0 {
            return None;
        }
        let tuple = in_context(MEMORY.get(), || pg_sys::ExecCopySlotHeapTuple(slot));
        let length = (*tuple).t_len as usize;
        if length > LONGEST {
            return None;
        }
        Some(to_hex(std::slice::from_raw_parts((*tuple).t_data.cast::<u8>(), length)))
    }
}

/// A number that differs where rows of one row type cannot be read as the other's.
///
/// # Safety
/// `descriptor` must be a row type.
pub unsafe fn fingerprint(descriptor: pg_sys::TupleDesc) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |value: u64| hash = (hash ^ value).wrapping_mul(0x0100_0000_01b3);
    // SAFETY: as the caller promises.
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

/// Bytes as hexadecimal digits.
fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).map(char::from).collect()
}

/// The bytes that hexadecimal digits stand for.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    text.as_bytes().chunks(2).map(|pair| Some((digit(&pair[0])? << 4 | digit(pair.get(1)?)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_there_and_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
    }
}
