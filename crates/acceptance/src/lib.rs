//! Contains the parts that the acceptance tests share: clusters that a test can crash, clients of
//! these clusters, and calls of the Python verifier (`verifiers/python`). The Python verifier
//! shares no code with the extension.
//!
//! The acceptance tests read these environment variables, among others:
//! * `LEAD_AUDIT_PG_CONFIG` (required) names the pg_config of a PostgreSQL in which the extension
//!   is installed.
//! * `LEAD_AUDIT_NEXT_PG_CONFIG` names the pg_config of a later major version, for the test of
//!   pg_upgrade (`make test-upgrade`).
//! * `LEAD_AUDIT_COMMAND` is the path of the program `lead-audit`. The tests of the program need
//!   it.
//! * `LEAD_AUDIT_PYTHON` names a Python interpreter that has the package psycopg. The default is
//!   python3.
//! * `LEAD_AUDIT_STATE_DIR` names the directory in which the tests create their clusters. The
//!   default is the system's directory for temporary files.
//! * `LEAD_AUDIT_STOP_MODE` is the shutdown mode of pg_ctl after a test. The default is immediate,
//!   the fastest mode.
//! * `LEAD_AUDIT_ACCEPTANCE_SECONDS` is the duration of the tests with concurrent writes. The
//!   default is 6, and 5 for tests/queue_flood.rs.
//! * `LEAD_AUDIT_ACCEPTANCE_CRASHES` is the number of times that a test crashes the server. The
//!   default is 6.
//! * `LEAD_AUDIT_ACCEPTANCE_LARGE`: With the value 1, tests/large_rows.rs writes five values of 200
//!   MB. By default, only two of the five values have 200 MB.
//! * `LEAD_AUDIT_ACCEPTANCE_ONLY` is a text. tests/rewriting_history runs only the tampering
//!   attempts whose names contain this text. By default, all attempts run.
//! * `LEAD_AUDIT_ACCEPTANCE_NEW_DATABASES` is the number of databases in which a test creates the
//!   extension. The default is 20.
//! * `LEAD_AUDIT_ACCEPTANCE_SEED` is the seed of the random choices. The default is a fixed number.
//! * `LEAD_AUDIT_ACCEPTANCE_SETTINGS` contains settings for the sessions that `Cluster::examined`
//!   opens, for example `-c debug_discard_caches=1`. By default, there are none.

mod bouncer;
mod client;
mod cluster;
mod command;
mod export;
mod leads;
pub mod populated_database;
mod random;
mod trail;
mod tree;

pub use bouncer::Bouncer;
pub use client::{Session, call, end_timeout, sqlstate, try_call, value, wait_until};
pub use cluster::{Builder, Cluster};
pub use command::{Answer, LeadAudit, text_of};
pub use export::{PythonVerdict, python_verifier, verify_with_python};
pub use leads::{add_leads, app_database, leads_database};
pub use random::Random;
pub use trail::{
    Fault, assert_all_on, assert_intact, assert_trail_gives_table, entries_above, faults,
    last_entry, operations,
};
pub use tree::{assert_tree_whole, seal, unsealed};

/// Reads a number from an environment variable. Returns `default` if the variable is not set.
///
/// # Panics
/// Panics if the variable is not a number.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => {
            text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}"))
        }
        Err(_) => default,
    }
}
