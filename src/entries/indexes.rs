//! The indexes of `lead_audit.entry`, opened for what is written to it.
//!
//! An entry of a single row is cheap enough that opening an index counts. Of the table's three, that of previous keys takes the
//! longest to open (it has a predicate), and hardly any entry belongs into it.

use super::entry_table::EntryColumn;
use crate::pg::OpenRelation;
use pgrx::{PgList, pg_sys};

/// The index, if there is one, that has only entries with a previous key: `… WHERE previous_key_hash IS NOT NULL`.
pub fn of_previous_keys(table: &OpenRelation) -> Option<pg_sys::Oid> {
    // SAFETY: the table is open, hence so can its indexes be; each is closed again before the next.
    unsafe {
        let all = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(table.as_ptr()));
        all.iter_oid().find(|&oid| {
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let found = is_of_previous_keys(pg_sys::RelationGetIndexPredicate(index));
            pg_sys::index_close(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            found
        })
    }
}

/// # Safety
/// `predicate` must be an index's predicate: a list of expressions, or null.
unsafe fn is_of_previous_keys(predicate: *mut pg_sys::List) -> bool {
    // SAFETY: nodes are what their tags say.
    unsafe {
        let conditions = PgList::<pg_sys::Node>::from_pg(predicate);
        let Some(condition) = conditions.get_ptr(0).filter(|_| conditions.len() == 1) else { return false };
        if (*condition).type_ != pg_sys::NodeTag::T_NullTest {
            return false;
        }
        let test = condition.cast::<pg_sys::NullTest>();
        let argument = (*test).arg;
        (*test).nulltesttype == pg_sys::NullTestType::IS_NOT_NULL
            && (*argument.cast::<pg_sys::Node>()).type_ == pg_sys::NodeTag::T_Var
            && (*argument.cast::<pg_sys::Var>()).varattno == EntryColumn::PreviousKeyHash as i16 + 1
    }
}

/// Opens the table's indexes, but for `without`, as ExecOpenIndices() does. ExecCloseIndices() closes them.
///
/// # Safety
/// `result` must be initialized for the table, whose lock is held; the current memory context must live until they are closed.
pub unsafe fn open(result: *mut pg_sys::ResultRelInfo, table: &OpenRelation, without: Option<pg_sys::Oid>) {
    // SAFETY: as the caller promises; the arrays have room for all indexes.
    unsafe {
        let all = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(table.as_ptr()));
        let room = |size: usize| pg_sys::palloc(all.len() * size);
        let relations = room(size_of::<pg_sys::Relation>()).cast::<pg_sys::Relation>();
        let infos = room(size_of::<*mut pg_sys::IndexInfo>()).cast::<*mut pg_sys::IndexInfo>();
        (*result).ri_IndexRelationDescs = relations;
        (*result).ri_IndexRelationInfo = infos;
        (*result).ri_NumIndices = 0;
        for oid in all.iter_oid().filter(|&oid| Some(oid) != without) {
            let place = (*result).ri_NumIndices as usize;
            let index = pg_sys::index_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            relations.add(place).write(index);
            infos.add(place).write(pg_sys::BuildIndexInfo(index));
            (*result).ri_NumIndices += 1;
        }
    }
}
