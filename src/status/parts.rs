//! Reports the state of each part of lead_audit. To add a part, add a function that returns a
//! [`Part`], and call the function in `parts`.

use crate::failures::queue::{self, Problem};
use crate::pg::current_database;
use crate::seal::{copied_from, queue_is_full, verifier_key};
use crate::settings;
use crate::version::{self, Need};
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern, pg_sys};

/// The state of a part.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The part works.
    On,
    /// The part does not work.
    Off,
}

/// One row of `lead_audit.status()`, which has a row for each part.
pub struct Part {
    pub name: &'static str,
    pub state: State,
    /// The reason why the part is off, or a remark on a part that is on.
    pub reason: Option<String>,
    /// A line for postgresql.conf or a command. The line or the command solves the problem that
    /// `reason` states.
    pub remedy: Option<String>,
}

impl Part {
    /// Builds the row of a part that is on.
    pub fn on(name: &'static str, reason: Option<String>) -> Self {
        Part { name, state: State::On, reason, remedy: None }
    }

    /// Builds the row of a part that is off.
    pub fn off(name: &'static str, reason: &str, remedy: Option<&str>) -> Self {
        Part {
            name,
            state: State::Off,
            reason: Some(reason.to_owned()),
            remedy: remedy.map(str::to_owned),
        }
    }
}

const PRELOAD: &str = "shared_preload_libraries = 'lead_audit'  # then restart the server";

/// Returns all parts, in the order in which `lead_audit.status()` shows them.
fn parts() -> Vec<Part> {
    vec![
        recording(),
        preloading(),
        worker(),
        failures(),
        rollbacks(),
        sealing(),
        signing(),
        checkpoint_files(),
        notifications(),
    ]
}

fn recording() -> Part {
    const NAME: &str = "recording";
    if let Err(error) = version::check(Need::Writing) {
        return Part::off(NAME, &error.message, Some(version::INSTALL));
    }
    if !settings::enabled() {
        return Part::off(NAME, "lead_audit.enabled is off", Some("lead_audit.enabled = on"));
    }
    match version::update_awaited() {
        Some(objects) => Part {
            remedy: Some("ALTER EXTENSION lead_audit UPDATE".to_owned()),
            ..Part::on(
                NAME,
                Some(format!(
                    "by a library that is newer than the SQL objects of version {objects}"
                )),
            )
        },
        None => Part::on(NAME, None),
    }
}

fn preloading() -> Part {
    if queue::is_there() {
        Part::on("preloading", None)
    } else {
        Part::off("preloading", "the library was not loaded at the server's start", Some(PRELOAD))
    }
}

fn in_recovery() -> bool {
    // SAFETY: the call only reads a variable in shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Reports whether this database has a worker. Without a worker, failed statements get no entries,
/// nothing is sealed, and the watched tables are not checked.
fn worker() -> Part {
    const NAME: &str = "background worker";
    if !queue::is_there() {
        return Part::off(NAME, "lead_audit is not in shared_preload_libraries", Some(PRELOAD));
    }
    if in_recovery() {
        return Part::off(
            NAME,
            "the server is a standby, and the worker starts when the standby is promoted",
            None,
        );
    }
    let found = queue::find(current_database(), |database| {
        (database.worker, database.problem, database.held_by)
    });
    match found {
        Some((worker, ..)) if worker != 0 => Part::on(NAME, Some(format!("process {worker}"))),
        Some((_, Problem::NoProcess, _)) => {
            // SAFETY: the code only reads the variable of a setting.
            let now = unsafe { pg_sys::max_worker_processes };
            let mut takes_turns = false;
            queue::each_database(|database| takes_turns |= database.worker != 0);
            let reason = if takes_turns {
                "all background processes of the server are in use: the database waits for its turn"
            } else {
                "all background processes of the server are in use"
            };
            Part {
                remedy: Some(format!(
                    "max_worker_processes = {}  # then restart the server",
                    now + 4
                )),
                ..Part::off(NAME, reason, None)
            }
        }
        Some((_, Problem::Failed, _)) => Part::off(
            NAME,
            "it ended with an error (see the server's log) and is started again in a few seconds",
            None,
        ),
        Some((_, _, held_by)) if held_by != 0 => {
            Part::off(NAME, "a command needs the database for itself", None)
        }
        Some(_) => Part::off(NAME, "it is being started", None),
        None => Part::off(
            NAME,
            "the launcher has not looked into this database yet, or does not run",
            None,
        ),
    }
}

/// Reports whether failed statements become entries.
fn failures() -> Part {
    const NAME: &str = "failed operations";
    if !queue::is_there() {
        return Part::off(NAME, "lead_audit is not in shared_preload_libraries", Some(PRELOAD));
    }
    if in_recovery() {
        return Part::off(NAME, "the server is a standby, on which nothing can be written", None);
    }
    if !settings::enabled() {
        return Part::off(NAME, "lead_audit.enabled is off", Some("lead_audit.enabled = on"));
    }
    match queue::counts(current_database()) {
        Some(counts) if counts.dropped > 0 => Part {
            remedy: Some("lead_audit.queue_size = '64MB'  # then restart the server".to_owned()),
            ..Part::on(
                NAME,
                Some(format!("{} of them are in the server's log only", counts.dropped)),
            )
        },
        _ => Part::on(NAME, None),
    }
}

fn rollbacks() -> Part {
    const NAME: &str = "rolled-back transactions";
    let failures = failures();
    if failures.state == State::Off {
        return Part { name: NAME, ..failures };
    }
    if settings::failures::log_rollbacks() {
        Part::on(NAME, None)
    } else {
        Part::off(NAME, "lead_audit.log_rollbacks is off", Some("lead_audit.log_rollbacks = on"))
    }
}

/// Reports whether the worker seals entries. The SQL function `lead_audit.seal()` seals on demand,
/// with or without a worker.
fn sealing() -> Part {
    const NAME: &str = "sealing";
    let worker = worker();
    match settings::seal_interval() {
        _ if worker.state == State::Off => Part { name: NAME, ..worker },
        None => Part::off(
            NAME,
            "lead_audit.seal_interval is 0",
            Some("lead_audit.seal_interval = '1s'"),
        ),
        Some(_) if let Some(original) = copied_from() => {
            let reason = format!(
                "this database is a copy of \"{original}\", whose audit log has the same name"
            );
            Part::off(NAME, &reason, Some("ALTER DATABASE ... SET lead_audit.origin = '...'"))
        }
        Some(interval) => Part::on(NAME, Some(format!("every {} ms", interval.as_millis()))),
    }
}

/// Reports whether the next checkpoint will be signed.
fn signing() -> Part {
    const NAME: &str = "signing";
    match verifier_key() {
        Ok(Some(key)) => Part::on(NAME, Some(format!("by {}", key.name()))),
        Ok(None) => {
            let remedy =
                "lead_audit.signing_key_file = '/path/of/a/key'  # made by: lead-audit keygen";
            Part::off(
                NAME,
                "lead_audit.signing_key_file is not set: checkpoints are unsigned",
                Some(remedy),
            )
        }
        Err(error) => {
            let detail = error.detail.as_deref().unwrap_or_default();
            Part::off(NAME, format!("{error}. {detail}").trim(), None)
        }
    }
}

/// Reports whether checkpoints are published as files.
fn checkpoint_files() -> Part {
    const NAME: &str = "checkpoint files";
    if settings::CHECKPOINT_DIR.get().is_some() {
        return Part::on(NAME, None);
    }
    let reason = "lead_audit.checkpoint_dir is not set: checkpoints leave the database only in \
                  the server's log and by NOTIFY";
    Part::off(NAME, reason, Some("lead_audit.checkpoint_dir = '/path/of/a/directory'"))
}

/// Reports whether the worker sends checkpoints to the sessions that have executed LISTEN.
fn notifications() -> Part {
    const NAME: &str = "checkpoint notifications";
    let worker = worker();
    if worker.state == State::Off {
        return Part { name: NAME, ..worker };
    }
    if queue_is_full() {
        let reason = "the server's queue of notifications is full: a session that listens is in a \
                      transaction that does not end";
        return Part::off(
            NAME,
            reason,
            Some("end the session that pg_stat_activity shows with the oldest xact_start"),
        );
    }
    Part::on(NAME, None)
}

/// Implements `lead_audit.status()`.
#[pg_extern(sql = false)]
fn status() -> TableIterator<
    'static,
    (
        name!(part, &'static str),
        name!(state, &'static str),
        name!(reason, Option<String>),
        name!(remedy, Option<String>),
    ),
> {
    TableIterator::new(parts().into_iter().map(|part| {
        let state = if part.state == State::On { "on" } else { "off" };
        (part.name, state, part.reason, part.remedy)
    }))
}
