//! Contains the hooks that the library installs, and its callbacks for errors, transactions and
//! invalidations.
//!
//! A hook has three parts: a guarded prelude, the call of the next hook, and a guarded epilogue.
//! Because of the guard (`pg_guard`), a panic in the prelude or the epilogue becomes an error of
//! the statement and does not end the server. The next hook is called without a guard, so that an
//! error of PostgreSQL keeps its constraint, position and context. Such an error jumps over the
//! frame of the hook, so no value in this frame may have a destructor.
//!
//! | hook | prelude | epilogue |
//! | --- | --- | --- |
//! | client authentication | – | failures: set up the error callback |
//! | planner | failures: open a scope | failures: close the scope |
//! | ExecutorStart | failures: open a scope, keep the parameters | failures: close the scope |
//! | ExecutorRun | failures: open a scope | failures: close the scope |
//! | ExecutorFinish | failures: open a scope; entries: gather entries | see below |
//! | ExecutorEnd | entries: write the batch of the statement that loaded the library | – |
//! | ProcessUtility | see below | see below |
//! | needs_fmgr_hook, fmgr_hook | DDL guard: restrict the rights | DDL guard: restore the rights |
//! | emit_log | failures: confirm the record of the error | – |
//! | error callbacks | – | failures: make a record of the error |
//! | shmem_request, shmem_startup | – | failures: request the lock; map the region |
//!
//! Three kinds of hooks do more than the table can show:
//!
//! - The epilogue of ExecutorFinish has three steps. DDL guard: note the tables that the statement
//!   has written to. Entries: write the batch. Failures: close the scope.
//! - The prelude of ProcessUtility does this. Failures: open a scope, and make the worker leave a
//!   database. DDL guard: note the table of COPY, and keep the command's text. Entries: gather
//!   entries (COPY). The epilogue of ProcessUtility does this. DDL guard: forget the text. Entries:
//!   write the batch (COPY). Failures: close the scope.
//! - The fmgr hooks restrict the rights of functions that are called by the commands with which the
//!   DDL guard changes triggers.
//!
//! `transaction.rs` fixes the order in which the modules handle the end of a transaction. Only
//! PRE_COMMIT and PRE_PREPARE may raise an error. Invalidation callbacks (`invalidation.rs`) only
//! mark caches as stale.
//!
//! A preloaded library installs all hooks and callbacks. If a session's first write to a watched
//! table loads the library, it installs only the ones that recording entries needs.

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

/// Installs the hooks and callbacks. An existing hook becomes the next hook of the new one. Called
/// once, while the library is being loaded.
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
