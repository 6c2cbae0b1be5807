//! Tracks writes by code that a running DDL command calls.
//!
//! DETACH PARTITION removes the audit triggers of a partition before the partition gets new
//! triggers. A write between the removal of the old triggers and the creation of the new triggers
//! would have no entry. If code writes rows to a table while a command rewrites the table, the rows
//! are lost. The entries of these rows would describe rows that do not exist. Therefore the DDL
//! guard tracks which tables are written while DETACH PARTITION or a rewriting command runs. The
//! DDL guard refuses the command if code has written to a table that the command affects.

use super::catalog::members;
use crate::pg::{ServerError, current_subtransaction, relation_named};
use pgrx::{PgList, PgSqlErrorCode, pg_extern, pg_sys};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// A running command whose writes are tracked.
struct Command {
    /// The address of the command's parse tree. The address distinguishes the command from commands
    /// that run within it.
    statement: usize,
    subtransaction: pg_sys::SubTransactionId,
    /// Number of commits that the command makes before its end. DETACH PARTITION CONCURRENTLY makes
    /// one commit before its end.
    commits_to_come: u8,
    written: BTreeSet<u32>,
}

thread_local! {
    static UNDER_WAY: RefCell<Vec<Command>> = const { RefCell::new(Vec::new()) };
    /// The tables that were written during the command that the DDL guard is checking.
    static WRITTEN: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
}

/// Begins to track the tables that are written during a command. The DDL guard calls this function
/// before the command runs.
pub fn command_begins(statement: *mut pg_sys::Node, is_concurrent: bool) {
    let subtransaction = current_subtransaction();
    UNDER_WAY.with_borrow_mut(|commands| {
        if is_concurrent {
            // PostgreSQL refuses DETACH PARTITION CONCURRENTLY within a transaction block or a
            // function, so no other command is running.
            commands.clear();
        }
        commands.push(Command {
            statement: statement.addr(),
            subtransaction,
            commits_to_come: u8::from(is_concurrent),
            written: BTreeSet::new(),
        });
    });
}

/// Ends the tracking of writes for a command that has ended. After this call, `refuse_written` can
/// check the tables that were written during the command.
pub fn command_ends(statement: *mut pg_sys::Node) {
    let ended = UNDER_WAY.with_borrow_mut(|commands| {
        let place = commands.iter().rposition(|command| command.statement == statement.addr())?;
        commands.drain(place..).next()
    });
    WRITTEN.set(ended.map(|command| command.written).unwrap_or_default());
}

/// Returns whether any table was written during the command that the DDL guard is checking.
pub fn any() -> bool {
    WRITTEN.with_borrow(|written| !written.is_empty())
}

/// Forgets the tables that were written during a command. The DDL guard calls this function after
/// it has checked the end of the command.
pub fn command_is_checked() {
    WRITTEN.take();
}

fn note(relations: impl Iterator<Item = pg_sys::Oid>) {
    let relations: Vec<u32> = relations.map(|relation| relation.to_u32()).collect();
    UNDER_WAY.with_borrow_mut(|commands| {
        commands.iter_mut().for_each(|command| command.written.extend(&relations))
    });
}

fn is_noting() -> bool {
    UNDER_WAY.with_borrow(|commands| !commands.is_empty())
}

/// Notes the tables that a statement has written. An executor hook calls this function when the
/// statement ends.
///
/// # Safety
/// ExecutorFinish must just have processed `query`.
pub unsafe fn statement_ends(query: *mut pg_sys::QueryDesc) {
    if !is_noting() {
        return;
    }
    // SAFETY: the executor's state lives until ExecutorEnd. The two lists contain the relations
    // that the executor opened for writing.
    unsafe {
        let state = (*query).estate;
        for list in
            [(*state).es_opened_result_relations, (*state).es_tuple_routing_result_relations]
        {
            let opened = PgList::<pg_sys::ResultRelInfo>::from_pg(list);
            note(opened.iter_ptr().map(|info| (*(*info).ri_RelationDesc).rd_id));
        }
    }
}

/// Notes that COPY will write to its table, because COPY does not call the executor hooks. Also
/// notes all partitions and child tables of the table, because it is not known yet which partitions
/// get the rows.
///
/// # Safety
/// `statement` must point to a utility statement.
pub unsafe fn copy_begins(statement: *mut pg_sys::Node) {
    // SAFETY: `statement` is a utility statement (see # Safety), and its tag tells its type.
    // `relation_named` returns an invalid oid for an unknown name.
    unsafe {
        if !is_noting() || (*statement).type_ != pg_sys::NodeTag::T_CopyStmt {
            return;
        }
        let copy = statement.cast::<pg_sys::CopyStmt>();
        if (*copy).is_from && !(*copy).relation.is_null() {
            let target = relation_named((*copy).relation, pg_sys::NoLock);
            note(members(target).into_iter());
        }
    }
}

/// `lead_audit_internal.refuse_written(oid[])`: raises an error if code that the command called has
/// written to one of these tables.
#[pg_extern(sql = false)]
fn refuse_written(relations: Vec<pg_sys::Oid>) {
    let written = WRITTEN.with_borrow(|written| {
        relations.into_iter().find(|relation| written.contains(&relation.to_u32()))
    });
    if let Some(relation) = written {
        let name = super::catalog::name_of(relation)
            .map_or_else(|| relation.to_u32().to_string(), |(_, name)| name);
        ServerError {
            code: PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            message: format!("table \"{name}\" was written to by code that the command called"),
            detail: Some(
                "lead_audit watches the table. A write that the command undoes or hides must not \
                 be."
                .to_owned(),
            ),
        }
        .raise(Some("Write to the table before or after the command.".to_owned()));
    }
}

/// Forgets the tracked commands that have ended with the transaction.
pub fn transaction_ends(committed: bool) {
    UNDER_WAY.with_borrow_mut(|commands| {
        commands.retain_mut(|command| {
            let goes_on = committed && command.commits_to_come > 0;
            command.commits_to_come = 0;
            goes_on
        });
    });
}

/// Forgets the tracked commands that began in a subtransaction that has been rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    UNDER_WAY.with_borrow_mut(|commands| commands.retain(|command| command.subtransaction < own));
}
