//! lead_audit is a PostgreSQL extension that records every write to a watched table as an entry
//! with a checksum in the table `lead_audit.entry`.
//!
//! Data flows through the modules in one direction. A trigger makes a row event, the module
//! `capture` turns the event into an entry, and the module `entries` writes the entry. The module
//! `seal` appends the entry to the tree. The modules `verify` and `history` read the entries. The
//! module `failures` records failed statements. A session makes a record of a failed statement. The
//! queue keeps this record across the rollback. The worker turns the record into an entry.
//!
//! Each module uses only modules that precede it in the following list, as scripts/module_order.py
//! checks.
//!
//! 1. `pg`: safe wrappers around PostgreSQL
//! 2. `settings`: the settings `lead_audit.*`
//! 3. `version`: the versions of the SQL objects with which the library can work
//! 4. `actor`: the user behind an event, with the context that the application sets
//! 5. `entries`: the storing of entries in the table `lead_audit.entry`
//! 6. `capture`: the conversion of a trigger call into an entry
//! 7. `history`: the search for entries by row key
//! 8. `seal`: the tree over the entries, and its checkpoints
//! 9. `verify`: the comparison of the entries with the tree, and of the tree with the checkpoints
//! 10. `failures`: the recording of failed statements
//! 11. `watch`: the watched tables, and the DDL guard
//! 12. `worker`: the background processes
//! 13. `status`: the report that states which parts of lead_audit are on
//! 14. `hooks`: the hooks, and the callbacks for errors, transactions and invalidations
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

/// Initializes the library. PostgreSQL calls this function when it loads the library into a server
/// process, or into the postmaster if the library is preloaded.
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

/// Contains the functions that `cargo pgrx test` requires of the crate under test.
#[cfg(test)]
pub mod pg_test {
    /// Does nothing. `cargo pgrx test` calls this function once before the first test.
    pub fn setup(_options: Vec<&str>) {}

    /// Returns the settings for the postgresql.conf of the test server. The list is empty by
    /// default, because lead_audit must work without preloading. scripts/assertions.sh adds a
    /// setting with the environment variable LEAD_AUDIT_TEST_SETTINGS.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        std::env::var("LEAD_AUDIT_TEST_SETTINGS")
            .into_iter()
            .map(|setting| &*setting.leak())
            .collect()
    }
}
