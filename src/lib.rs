//! lead_audit: every write to a watched table becomes a checksummed entry in `lead_audit.entry`.
//!
//! Data flows in one direction: a trigger makes a row event, `capture` encodes it, `entries` writes
//! it, `seal` appends it to the tree, `verify` and `history` read it. `failures` works beside that:
//! the session makes a record of a failed statement, the queue keeps the record across the
//! rollback, the worker makes an entry of it.
//!
//! Each module uses only modules above it in this list (scripts/module_order.py checks that):
//!
//! 1. `pg`: safe wrappers around PostgreSQL
//! 2. `settings`: the settings `lead_audit.*`
//! 3. `version`: which versions of the SQL objects the library works with
//! 4. `actor`: who acts, as the application and as the database say
//! 5. `entries`: from the finished entry to the row of `lead_audit.entry`
//! 6. `capture`: from the trigger to the finished entry
//! 7. `history`: finding entries by the key of their row
//! 8. `seal`: from entries to the tree and its checkpoints
//! 9. `verify`: comparing entries, tree and checkpoints
//! 10. `failures`: failed statements
//! 11. `watch`: which tables are watched, and the DDL guard
//! 12. `worker`: the background processes
//! 13. `status`: which parts are on
//! 14. `hooks`: everything that PostgreSQL calls by a hook or a callback
//! 15. `sql`: the SQL objects

#![allow(unsafe_code, reason = "PostgreSQL's interface is C")]

mod actor;
mod capture;
mod entries;
mod failures;
mod history;
mod hooks;
mod pg;
mod seal;
mod settings;
mod sql;
mod status;
mod verify;
mod version;
mod watch;
mod worker;

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/mod.rs"]
mod pgrx_tests;

::pgrx::pg_module_magic!(name, version);

/// Called by PostgreSQL when the library is loaded into a server process, or into the postmaster
/// when it is preloaded.
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: PostgreSQL sets the variable while it loads shared_preload_libraries.
    let preloading = unsafe { pgrx::pg_sys::process_shared_preload_libraries_in_progress };
    settings::define(preloading);
    hooks::install(preloading);
    if preloading {
        worker::register_launcher();
        failures::record_failures();
    } else {
        entries::library_is_loaded();
    }
}

/// The module that `cargo pgrx test` requires of the crate under test.
#[cfg(test)]
pub mod pg_test {
    /// Called once before the first test.
    pub fn setup(_options: Vec<&str>) {}

    /// Settings for the test server. Empty by default, since lead_audit must work without
    /// preloading; scripts/assertions.sh sets one.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        std::env::var("LEAD_AUDIT_TEST_SETTINGS")
            .into_iter()
            .map(|setting| &*setting.leak())
            .collect()
    }
}
