//! Handles utility commands that concern the launcher, the worker or the name filter. After some
//! commands, for example CREATE DATABASE, the launcher has to read pg_database. Before other
//! commands, for example DROP DATABASE, the database's worker has to end, because these commands
//! fail while another process is connected to the database.

use super::{name_filter, temporary_tables};
use crate::failures::queue::{self, Hold};
use crate::pg::{
    current_database, current_subtransaction, is_template, may_create_databases, owns_database,
};
use pgrx::{PgList, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::time::{Duration, Instant};

/// The maximum time that a command, for example DROP DATABASE, waits for the end of the database's
/// worker. Before this wait, the command waits for at most the same time until the session can hold
/// the database (`Hold::NotYet`). PostgreSQL itself waits at most five seconds for the end of other
/// connections.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// If the database's worker has not ended after this time, the session sends SIGTERM to the worker,
/// to cancel the worker's transaction.
const CANCEL_AFTER: Duration = Duration::from_secs(4);

thread_local! {
    /// The database that this session keeps free of workers (`queue::hold`), or InvalidOid.
    static HELD: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
    /// The subtransaction that runs the command for which the session holds the database.
    static HELD_IN: Cell<pg_sys::SubTransactionId> = const { Cell::new(0) };
    /// Whether the transaction has run CREATE EXTENSION lead_audit. The flags EXTENSION_CAME,
    /// EXTENSION_MAY_GO and DATABASES_CHANGED are read after the commit.
    static EXTENSION_CAME: Cell<bool> = const { Cell::new(false) };
    /// Whether the transaction has run a DROP EXTENSION, which may have dropped lead_audit.
    static EXTENSION_MAY_GO: Cell<bool> = const { Cell::new(false) };
    /// Whether the transaction has created, dropped, renamed or altered a database.
    static DATABASES_CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Handles a utility command that is about to run.
///
/// # Safety
/// `statement` must be the statement that PostgreSQL passed to the hook on ProcessUtility.
pub unsafe fn command_begins(
    statement: *mut pg_sys::PlannedStmt,
    context: pg_sys::ProcessUtilityContext::Type,
) {
    use pg_sys::NodeTag as Tag;
    // SAFETY: PostgreSQL passed the statement, and the node's tag identifies its type. Names in the
    // statement are C strings or null.
    unsafe {
        // `is_alone` is false if the command runs in a transaction block or a function. In both
        // cases, PostgreSQL refuses CREATE DATABASE, DROP DATABASE and ALTER DATABASE … SET
        // TABLESPACE, so the session need not hold a database.
        let is_alone = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
            && !pg_sys::IsTransactionBlock()
            && !pg_sys::IsSubTransaction();
        let node = (*statement).utilityStmt;
        match (*node).type_ {
            Tag::T_CreateExtensionStmt => {
                let name = (*node.cast::<pg_sys::CreateExtensionStmt>()).extname;
                if CStr::from_ptr(name) == c"lead_audit" {
                    EXTENSION_CAME.set(true);
                }
            }
            Tag::T_DropStmt => {
                temporary_tables::doubt_temporary_tables();
                let drop = node.cast::<pg_sys::DropStmt>();
                if (*drop).removeType == pg_sys::ObjectType::OBJECT_EXTENSION {
                    EXTENSION_MAY_GO.set(true);
                }
            }
            // enable() creates triggers on a table, so a table that gets a trigger may be watched.
            Tag::T_CreateTrigStmt => note_name((*node.cast::<pg_sys::CreateTrigStmt>()).relation),
            Tag::T_CreateStmt if is_temporary((*node.cast::<pg_sys::CreateStmt>()).relation) => {
                let create = node.cast::<pg_sys::CreateStmt>();
                temporary_tables::note_temporary_table(
                    &relation_name((*create).relation),
                    stays((*create).oncommit),
                );
            }
            Tag::T_CreateTableAsStmt => {
                let into = (*node.cast::<pg_sys::CreateTableAsStmt>()).into;
                if !into.is_null() && is_temporary((*into).rel) {
                    temporary_tables::note_temporary_table(
                        &relation_name((*into).rel),
                        stays((*into).onCommit),
                    );
                }
            }
            Tag::T_CreateStmt if !(*node.cast::<pg_sys::CreateStmt>()).partbound.is_null() => {
                note_name((*node.cast::<pg_sys::CreateStmt>()).relation);
            }
            Tag::T_CreatedbStmt => {
                DATABASES_CHANGED.set(true);
                let template =
                    option(node.cast::<pg_sys::CreatedbStmt>().read().options, c"template");
                let template = template.map_or(c"template1".as_ptr(), |option| {
                    pg_sys::defGetString(option).cast_const()
                });
                if is_alone && may_create_databases() {
                    hold_by_name(template, is_template);
                }
            }
            Tag::T_DropdbStmt => {
                DATABASES_CHANGED.set(true);
                if is_alone {
                    hold_by_name((*node.cast::<pg_sys::DropdbStmt>()).dbname, |_| false);
                }
            }
            Tag::T_DropOwnedStmt | Tag::T_DiscardStmt | Tag::T_AlterObjectSchemaStmt => {
                temporary_tables::doubt_temporary_tables()
            }
            Tag::T_RenameStmt => {
                temporary_tables::doubt_temporary_tables();
                let rename = node.cast::<pg_sys::RenameStmt>();
                match (*rename).renameType {
                    pg_sys::ObjectType::OBJECT_DATABASE => {
                        DATABASES_CHANGED.set(true);
                        hold_by_name((*rename).subname, |_| false);
                    }
                    pg_sys::ObjectType::OBJECT_TABLE => {
                        name_filter::note_name(
                            &CStr::from_ptr((*rename).newname).to_string_lossy(),
                        );
                    }
                    _ => {}
                }
            }
            Tag::T_AlterDatabaseStmt => {
                DATABASES_CHANGED.set(true);
                let alter = node.cast::<pg_sys::AlterDatabaseStmt>();
                if is_alone && option((*alter).options, c"tablespace").is_some() {
                    hold_by_name((*alter).dbname, |_| false);
                }
            }
            _ => {}
        }
    }
}

/// # Safety
/// `relation` must be null or a RangeVar.
unsafe fn note_name(relation: *mut pg_sys::RangeVar) {
    // SAFETY: `relation` is null or a RangeVar (see # Safety).
    name_filter::note_name(&unsafe { relation_name(relation) });
}

/// # Safety
/// `relation` must be null or a RangeVar.
unsafe fn relation_name(relation: *mut pg_sys::RangeVar) -> String {
    // SAFETY: `relation` is null or a RangeVar (see # Safety). The `relname` of a RangeVar is a C
    // string or null.
    unsafe {
        if relation.is_null() || (*relation).relname.is_null() {
            return String::new();
        }
        CStr::from_ptr((*relation).relname).to_string_lossy().into_owned()
    }
}

/// # Safety
/// `relation` must be null or a RangeVar.
unsafe fn is_temporary(relation: *mut pg_sys::RangeVar) -> bool {
    // SAFETY: `relation` is null or a RangeVar (see # Safety).
    unsafe {
        !relation.is_null() && (*relation).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP
    }
}

fn stays(on_commit: pg_sys::OnCommitAction::Type) -> bool {
    on_commit != pg_sys::OnCommitAction::ONCOMMIT_DROP
}

/// # Safety
/// `options` must be a list of DefElem, or null.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: `options` is a list of DefElem or null (see # Safety), and each DefElem has a name.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg(options);
        options.iter_ptr().find(|option| CStr::from_ptr((**option).defname) == name)
    }
}

/// Makes this session hold the database with this name, until the command fails or the command's
/// transaction ends. Waits until the worker of the database has ended. Does nothing if the current
/// role may not run the utility command. The role may run the command if the role owns the
/// database, or if `may_anyway` returns true.
///
/// # Safety
/// `name` must be a C string or null.
unsafe fn hold_by_name(name: *const c_char, may_anyway: impl FnOnce(pg_sys::Oid) -> bool) {
    // SAFETY: the catalog look-ups run within a transaction. If no database has the name, the
    // utility command itself raises the error.
    unsafe {
        if name.is_null() || !queue::is_there() {
            return;
        }
        let database = pg_sys::get_database_oid(name, true);
        if database == pg_sys::InvalidOid
            || database == current_database()
            || HELD.get() != pg_sys::InvalidOid
        {
            return;
        }
        if !owns_database(database) && !may_anyway(database) {
            return;
        }
        let begin = Instant::now();
        let worker = loop {
            match queue::hold(database) {
                Hold::Held(worker) => break worker,
                // After LONGEST_WAIT, the command runs although this session does not hold the
                // database. If a worker is connected to the database while the command runs, the
                // command fails with the error that the database is in use.
                Hold::NotYet if begin.elapsed() >= LONGEST_WAIT => return,
                Hold::NotYet => wait_a_moment(),
            }
        };
        HELD.set(database);
        HELD_IN.set(current_subtransaction());
        let begin = Instant::now();
        let mut is_urgent = false;
        while queue::find(database, |place| place.worker != 0).unwrap_or(false)
            && begin.elapsed() < LONGEST_WAIT
        {
            if worker != 0 && !is_urgent && begin.elapsed() >= CANCEL_AFTER {
                is_urgent = true;
                libc::kill(worker, libc::SIGTERM);
            }
            wait_a_moment();
        }
    }
}

fn wait_a_moment() {
    // SAFETY: the code waits on the latch of its own process.
    unsafe {
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, 10, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Releases the database that the session holds for a command of this subtransaction. The function
/// is called when the subtransaction has been rolled back.
pub fn subtransaction_aborts(own: pg_sys::SubTransactionId) {
    if HELD.get() != pg_sys::InvalidOid && HELD_IN.get() >= own {
        queue::release(HELD.replace(pg_sys::InvalidOid));
        queue::wake_launcher(false);
    }
}

/// Passes the hold of a database from a subtransaction to its parent. The function is called when
/// the subtransaction has been committed.
pub fn subtransaction_commits(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    if HELD_IN.get() >= own {
        HELD_IN.set(parent);
    }
}

/// Releases the database that the session holds, and tells the launcher and the worker about the
/// changes of a committed transaction. The function is called when the transaction has ended.
pub fn transaction_ends(committed: bool) {
    let held = HELD.replace(pg_sys::InvalidOid);
    let changed = DATABASES_CHANGED.take();
    let extension_came = EXTENSION_CAME.take();
    if EXTENSION_MAY_GO.take() && committed {
        queue::doubted(current_database());
    }
    if held != pg_sys::InvalidOid {
        queue::release(held);
    }
    if extension_came && committed {
        queue::found(current_database());
    }
    if held != pg_sys::InvalidOid || (committed && (changed || extension_came)) {
        queue::wake_launcher(changed || extension_came);
    }
}
