//! All functions of this library that PostgreSQL calls as hooks or callbacks.
//!
//! A hook has three parts: a guarded prelude, the next hook, a guarded epilogue. An error in
//! prelude or epilogue fails the statement and never ends the server. The next hook is called
//! between them without a guard, so that an error of PostgreSQL keeps its constraint, position and
//! context. Such an error jumps over the hook's own frame, so no value in that frame may have a
//! destructor.
//!
//! | hook | prelude | epilogue |
//! | --- | --- | --- |
//! | client authentication | – | failures: set up the error callback |
//! | planner | failures: open a scope | failures: close it |
//! | ExecutorStart | failures: open a scope, keep the parameters | failures: close it |
//! | ExecutorRun | failures: open a scope | failures: close it |
//! | ExecutorFinish | failures: open a scope; entries: gather entries | DDL guard: note what was written; entries: write them; failures: close it |
//! | ExecutorEnd | entries: write what has gathered while the library was being loaded | – |
//! | ProcessUtility | failures: open a scope; failures: have the worker leave a database; entries: gather (COPY); DDL guard: keep the text, note what COPY writes to | DDL guard: forget it; entries: write; failures: close |
//! | needs_fmgr_hook, fmgr_hook | DDL guard: no code of others while it makes triggers | DDL guard: an event trigger of others is through |
//! | emit_log | failures: the error that ends the statement is final | – |
//! | error callbacks | – | failures: make a record of the error |
//! | shmem_request, shmem_startup | – | failures: ask for the lock; map the queue |
//!
//! Transaction callbacks run in the order of `transaction.rs`. Only PRE_COMMIT and PRE_PREPARE may
//! raise an error there. Invalidation callbacks (`invalidation.rs`) only set flags.
//!
//! The preloaded library installs all of them. If a session's first write to a watched table loads
//! the library, it installs only what writing entries needs.

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

/// Installs the hooks and callbacks in front of existing ones. Called once, while the library is
/// loaded.
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
