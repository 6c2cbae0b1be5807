//! What the acceptance tests stand on: private clusters that they may crash, clients for them, and
//! the verifier in `verifiers/python`, which shares no code with the extension.
//!
//! Environment:
//! * `LEAD_AUDIT_PG_CONFIG` (needed): pg_config of a PostgreSQL into which the extension is
//!   installed.
//! * `LEAD_AUDIT_NEXT_PG_CONFIG`: the same of the next major version, for the test of pg_upgrade
//!   (`make test-upgrade`).
//! * `LEAD_AUDIT_COMMAND`: the program `lead-audit`, for the tests of it.
//! * `LEAD_AUDIT_PYTHON`: a Python with psycopg; by default python3.
//! * `LEAD_AUDIT_STATE_DIR`: where clusters are put; by default the system's directory for
//!   temporary files.
//! * `LEAD_AUDIT_STOP_MODE`: how servers are shut down after a test, as pg_ctl calls it; by default
//!   immediate, which is fast.
//! * `LEAD_AUDIT_ACCEPTANCE_SECONDS`: how long the concurrent writers write; by default 6.
//! * `LEAD_AUDIT_ACCEPTANCE_CRASHES`: how often the server is crashed; by default 6.
//! * `LEAD_AUDIT_ACCEPTANCE_LARGE`: 1 makes every large value 200 MB; by default only two are.
//! * `LEAD_AUDIT_ACCEPTANCE_ONLY`: only those of the tamperer's attempts that have this in their
//!   name; by default all.
//! * `LEAD_AUDIT_ACCEPTANCE_NEW_DATABASES`: how many databases get the extension at once; by
//!   default 20.
//! * `LEAD_AUDIT_ACCEPTANCE_SEED`: what the random choices start from; by default always the same.

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
pub use client::{Session, call, sqlstate, try_call, value, wait_until};
pub use cluster::{Builder, Cluster};
pub use command::{Answer, LeadAudit, text_of};
pub use export::{PythonVerdict, python_verifier, verify_with_python};
pub use leads::{add_leads, app_database, leads_database};
pub use random::Random;
pub use trail::{Fault, assert_intact, assert_trail_gives_table, faults};
pub use tree::{assert_tree_whole, seal, unsealed};

/// A number from the environment.
///
/// # Panics
/// If there is something else than a number.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => {
            text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}"))
        }
        Err(_) => default,
    }
}
