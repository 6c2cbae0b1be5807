//! Contains the hooks that the library installs, and its callbacks for errors, transactions and
//! invalidations.
//!
//! A hook has three parts: a guarded prelude, the call of the next hook, and a guarded epilogue.
//! The next hook is the hook that was installed before, or else PostgreSQL's own function. pgrx's
//! guard (`pg_guard`) turns a panic in the prelude or the epilogue into an error of the statement.
//! Without pgrx's guard, a panic would end the server process. The next hook is called without a
//! guard, so that an error of PostgreSQL keeps its constraint, position and context. An error of
//! the next hook jumps over the frame of the calling hook, so no value in this frame may have a
//! destructor.
//!
//! In the next two tables, *failures* and *entries* are modules, and a *scope* is a statement
//! scope.
//!
//! | hook | prelude | epilogue |
//! | --- | --- | --- |
//! | client authentication | – | failures: set up the error callback |
//! | planner | failures: open a scope | failures: close the scope |
//! | ExecutorStart | failures: open a scope, keep the parameters | failures: close the scope |
//! | ExecutorRun | failures: open a scope | failures: close the scope |
//! | ExecutorFinish | failures: open a scope; entries: gather entries | see the next table |
//! | ExecutorEnd | entries: write the batch of the statement that loaded the library | – |
//! | ProcessUtility | see the next table | see the next table |
//! | needs_fmgr_hook, fmgr_hook | DDL guard: restrict the rights | DDL guard: restore the rights |
//! | emit_log | failures: confirm the record of the error | – |
//! | error callbacks | – | failures: make a record of the error |
//! | shmem_request, shmem_startup | – | failures: request the queue's lock; map the queue |
//!
//! The epilogue of ExecutorFinish and the hook on ProcessUtility have these steps, in this order:
//!
//! | part of the hook | steps |
//! | --- | --- |
//! | epilogue of ExecutorFinish | DDL guard: note the tables that the statement wrote to |
//! | | entries: write the batch |
//! | | failures: close the scope |
//! | prelude of ProcessUtility | failures: open a scope, and make the worker leave a database |
//! | | DDL guard: note the table of COPY, and keep the command's text |
//! | | entries: gather the entries of COPY |
//! | epilogue of ProcessUtility | DDL guard: forget the command's text |
//! | | entries: write the batch of COPY |
//! | | failures: close the scope |
//!
//! The hooks needs_fmgr_hook and fmgr_hook restrict the rights of functions that run while the DDL
//! guard creates or drops audit triggers.
//!
//! `transaction.rs` fixes the order in which the modules handle the end of a transaction. At the
//! end of a transaction, only the code for PRE_COMMIT and PRE_PREPARE may raise an error.
//! Invalidation callbacks (`invalidation.rs`) only mark caches as stale.
//!
//! A preloaded library installs all hooks and callbacks. A library that is loaded by a session's
//! first write to a watched table installs only the hooks and callbacks that the recording of
//! entries needs.

mod error;
mod executor;
mod function_call;
mod invalidation;
mod next;
mod planner;
mod session;
mod shared_memory;
mod transaction;
mod utility;

/// Installs the hooks and callbacks of the library. If another library has already installed a
/// hook, this library's hook calls it. _PG_init() calls this function once, while the library is
/// being loaded.
pub fn install(preloading: bool) {
    invalidation::install(preloading);
    transaction::install();
    executor::install(preloading);
    utility::install();
    function_call::install();
    if preloading {
        planner::install();
        session::install();
        error::install();
        shared_memory::install();
    }
}
