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
//! | planner | failures: open a scope | failures: close the scope |
//! | ExecutorStart | failures: open a scope, keep the parameters | failures: close the scope |
//! | ExecutorRun | failures: open a scope | failures: close the scope |
//! | ExecutorFinish | failures: open a scope; entries: gather entries | see below |
//! | ExecutorEnd | entries: write the batch of the statement that loaded the library | – |
//! | ProcessUtility | see below | see below |
//! | needs_fmgr_hook, fmgr_hook | DDL guard: restrict the rights | DDL guard: restore the rights |
//! | emit_log | failures: make the record of the error final | – |
//! | error callbacks | – | failures: make a record of the error |
//! | shmem_request, shmem_startup | – | failures: request the lock; map the region |
//!
//! Three of these hooks do more than fits into the table:
//!
//! - The epilogue of ExecutorFinish has three steps. DDL guard: note the written tables. Entries:
//!   write the batch. Failures: close the scope.
//! - The prelude of ProcessUtility has four steps. Failures: open a scope, make the worker leave a
//!   database. Entries: gather entries (COPY). DDL guard: keep the text, note the table of COPY.
//!   Its epilogue has three. DDL guard: forget the text. Entries: write the batch. Failures: close
//!   the scope.
//! - The fmgr hooks restrict the rights of a function that trigger commands of the DDL guard call.
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
