//! What a worker does, in this order, each task in transactions of its own. A task comes back with
//! an error that is logged, and is left alone for a while that grows with each error.

use crate::failures;
use crate::pg::{NextTurn, ServerError, in_extension_transaction, must_stop};
use crate::seal;
use crate::settings;
use crate::watch;
use pgrx::PgSqlErrorCode;
use std::time::{Duration, Instant};

/// Something that a worker does every now and then, and when it is woken.
pub struct Task {
    /// For the log: "lead_audit: could not NAME".
    pub name: &'static str,
    /// How long after the beginning of a turn the next one is due. It is asked each time, since
    /// settings can change.
    pub interval: fn() -> Duration,
    /// Whether it is also due whenever the worker's latch is set.
    pub on_wake: bool,
    /// One turn: outside of a transaction, so that it can have as many as it needs
    /// (`pg::in_transaction`).
    pub run: fn() -> Result<NextTurn, ServerError>,
}

/// The tasks.
pub const TASKS: &[Task] = &[
    Task {
        name: "write failed operations",
        interval: || LONGEST_PAUSE,
        on_wake: true,
        run: failures::drain,
    },
    Task {
        name: "seal the audit log",
        interval: seal_interval,
        on_wake: false,
        run: seal_if_wanted,
    },
    Task { name: "send checkpoints", interval: notify_interval, on_wake: false, run: notify },
    Task {
        name: "check the watched tables",
        interval: || watch::CHECK_INTERVAL,
        on_wake: false,
        run: check_watched,
    },
];

/// How often to look whether sealing was switched on.
const SWITCHED_OFF: Duration = Duration::from_secs(10);

fn seal_interval() -> Duration {
    settings::seal_interval().unwrap_or(SWITCHED_OFF)
}

fn seal_if_wanted() -> Result<NextTurn, ServerError> {
    if settings::seal_interval().is_none() {
        return Ok(NextTurn::AtInterval);
    }
    let more = in_extension_transaction(c"sealing the audit log", seal::tick)?;
    seal::publish_committed();
    Ok(if more == Some(true) { NextTurn::AtOnce } else { NextTurn::AtInterval })
}

/// A session that seals leaves it to the worker to send the checkpoint.
fn notify_interval() -> Duration {
    seal_interval().min(SWITCHED_OFF)
}

fn notify() -> Result<NextTurn, ServerError> {
    // How long to wait after a failure.
    const PAUSE: Duration = Duration::from_secs(10);
    Ok(if seal::notify() || must_stop() { NextTurn::AtInterval } else { NextTurn::After(PAUSE) })
}

fn check_watched() -> Result<NextTurn, ServerError> {
    // Nothing is lost without a last look.
    if must_stop() {
        return Ok(NextTurn::AtInterval);
    }
    match in_extension_transaction(c"checking the watched tables", watch::check) {
        // Somebody has locked a table. The next turn looks again.
        Err(error) if error.code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
            Ok(NextTurn::AtInterval)
        }
        result => result.map(|_| NextTurn::AtInterval),
    }
}

/// Longest pause after errors.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A task and when its next turn is.
pub struct Schedule {
    task: &'static Task,
    due: Instant,
    /// Whether it said itself when it wants to come again.
    rests: bool,
    errors: u32,
}

/// All tasks, due now.
pub fn schedules() -> Vec<Schedule> {
    TASKS
        .iter()
        .map(|task| Schedule { task, due: Instant::now(), rests: false, errors: 0 })
        .collect()
}

impl Schedule {
    /// How long until its next turn.
    pub fn time_left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// The worker does not sleep any more: what waits for that is due, unless it pauses after an
    /// error. It need not have been woken for that: a lock that one of its transactions waited for
    /// takes a call away. Only a task that rests is not disturbed without one.
    pub fn wake(&mut self, woken: bool) {
        if self.task.on_wake && self.errors == 0 && (woken || !self.rests) {
            self.due = Instant::now();
        }
    }

    /// Runs it if it is due; an error is logged. Returns whether it ran although nobody need have
    /// woken the worker for it: then it may have waited for a lock, and so have taken a call away.
    pub fn run_if_due(&mut self) -> bool {
        if self.time_left() > Duration::ZERO {
            return false;
        }
        let begin = Instant::now();
        let next = (self.task.run)();
        self.rests = matches!(next, Ok(NextTurn::After(_)));
        self.due = begin
            + match next {
                Ok(next) => {
                    self.errors = 0;
                    match next {
                        NextTurn::AtInterval => (self.task.interval)(),
                        NextTurn::AtOnce => Duration::ZERO,
                        NextTurn::After(pause) => pause,
                    }
                }
                Err(error) => {
                    pgrx::log!("lead_audit: could not {}: {error}", self.task.name);
                    self.errors += 1;
                    Duration::from_secs(1 << self.errors.min(6)).min(LONGEST_PAUSE)
                }
            };
        !self.task.on_wake
    }

    /// The last turn before the process ends, whatever the schedule says.
    pub fn run_last(&mut self) {
        const MOST: u32 = 10_000;
        for _ in 0..MOST {
            match (self.task.run)() {
                Ok(NextTurn::AtOnce | NextTurn::After(_)) => {}
                Ok(NextTurn::AtInterval) => return,
                Err(error) => {
                    return pgrx::log!("lead_audit: could not {}: {error}", self.task.name);
                }
            }
        }
    }
}
