//! lead_audit: every write to a watched table becomes a checksummed entry in `lead_audit.entry`.
//!
//! The folders are the stages that the data passes through; each depends only on those before it and on the small
//! modules `settings`, `actor`, `version` and `pg` (the wrappers around Postgres).

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

/// Called by Postgres when the library is loaded into a server process (or into the postmaster, when it is preloaded).
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: a variable that Postgres sets while it loads shared_preload_libraries.
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

/// What `cargo pgrx test` asks of the crate under test.
#[cfg(test)]
pub mod pg_test {
    /// Called once before the first test.
    pub fn setup(_options: Vec<&str>) {}

    /// Settings for the server that the tests run in. By default none, since lead_audit has to work without preloading;
    /// scripts/assertions.sh gives one.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        std::env::var("LEAD_AUDIT_TEST_SETTINGS").into_iter().map(|setting| &*setting.leak()).collect()
    }
}
