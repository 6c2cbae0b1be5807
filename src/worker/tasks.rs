//! Defines the tasks of a worker, in the order in which they run. Each task runs in transactions of
//! its own. If a task returns an error, the worker logs the error, and runs the task once more
//! after a pause. After each further error in succession, the pause is longer.

use crate::failures;
use crate::pg::{NextTurn, ServerError, in_extension_transaction, must_stop};
use crate::seal;
use crate::settings;
use crate::watch;
use pgrx::PgSqlErrorCode;
use std::time::{Duration, Instant};

/// A task that a worker runs at intervals.
pub struct Task {
    /// The name of the task in log messages: "lead_audit: could not NAME".
    pub name: &'static str,
    /// The time from the beginning of one run to the beginning of the next run. The field is a
    /// function, because settings can change the interval.
    pub interval: fn() -> Duration,
    /// Whether the task also runs when another process wakes the worker by setting the worker's
    /// latch.
    pub on_wake: bool,
    /// The function that does the work of one run. The worker calls this function outside of a
    /// transaction. The function opens the transactions that it needs
    /// (`pg::in_extension_transaction`).
    pub run: fn() -> Result<NextTurn, ServerError>,
}

/// All tasks, in the order in which they run.
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

/// While `lead_audit.seal_interval` is 0, the worker checks at this interval whether sealing was
/// switched on.
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

/// Returns the interval at which the worker looks for checkpoints to send. The worker cannot know
/// when another session seals, so it looks for new checkpoints at intervals.
fn notify_interval() -> Duration {
    seal_interval().min(SWITCHED_OFF)
}

fn notify() -> Result<NextTurn, ServerError> {
    // The pause after a failed attempt to send checkpoints.
    const PAUSE: Duration = Duration::from_secs(10);
    Ok(if seal::notify() || must_stop() { NextTurn::AtInterval } else { NextTurn::After(PAUSE) })
}

fn check_watched() -> Result<NextTurn, ServerError> {
    // At a shutdown, the worker skips the check of the watched tables, because the next worker of
    // the database makes this check.
    if must_stop() {
        return Ok(NextTurn::AtInterval);
    }
    match in_extension_transaction(c"checking the watched tables", watch::check) {
        // Another session has locked a watched table, so the check did not finish. The next run of
        // this task repeats the check.
        Err(error) if error.code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
            Ok(NextTurn::AtInterval)
        }
        result => result.map(|_| NextTurn::AtInterval),
    }
}

/// The longest pause of a task after an error. This value is also the interval of the task that
/// writes the entries of records.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A task and the time of its next run.
pub struct Schedule {
    task: &'static Task,
    due: Instant,
    /// Whether the last run of the task returned `NextTurn::After`, and so has set the time of the
    /// next run.
    is_pausing: bool,
    errors: u32,
    /// Whether the previous worker of the database has already logged an error of the task. If
    /// `is_reported` is true, this worker does not log the next error of the task.
    is_reported: bool,
}

/// The number of successive errors after which the pause of a task no longer grows.
const MANY_ERRORS: u32 = 6;

/// Returns the schedules of all tasks. Each task is due at once. `reported` is the result of the
/// function `reported` in the previous worker of the database. For each task whose bit is set in
/// `reported`, the worker does not log the next error.
pub fn schedules(reported: u8) -> Vec<Schedule> {
    let schedule = |(index, task): (usize, &'static Task)| {
        let is_reported = reported & 1 << index != 0;
        let errors = if is_reported { MANY_ERRORS } else { 0 };
        Schedule { task, due: Instant::now(), is_pausing: false, errors, is_reported }
    };
    TASKS.iter().enumerate().map(schedule).collect()
}

/// Returns the tasks whose last run ended with an error, as bits in the order of `TASKS`.
pub fn reported(schedules: &[Schedule]) -> u8 {
    const { assert!(TASKS.len() <= u8::BITS as usize) };
    let bits = schedules.iter().enumerate();
    bits.fold(0, |bits, (index, schedule)| bits | u8::from(schedule.errors > 0) << index)
}

impl Schedule {
    /// Returns the time until the next run of the task. Returns zero if the task is due.
    pub fn time_left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Makes the task due at once if its `on_wake` is true, except while the task pauses after an
    /// error. `woken` is true if the worker's latch was set. `woken` is false if the worker has
    /// slept until its next task, or has run a task whose `on_wake` is false. A task whose
    /// `on_wake` is false can wait for a lock, and the wait can reset the latch, so that a wake-up
    /// is lost. If `woken` is false and the last run of the task has set the time of the next run,
    /// the task keeps this time.
    pub fn wake(&mut self, woken: bool) {
        if self.task.on_wake && self.errors == 0 && (woken || !self.is_pausing) {
            self.due = Instant::now();
        }
    }

    /// Runs the task if the task is due. If the task returns an error, logs the error. Returns true
    /// if the task has run and its `on_wake` is false. If the result is true, the worker's latch
    /// may have been reset during the run, because a wait for a lock resets the latch.
    pub fn run_if_due(&mut self) -> bool {
        if self.time_left() > Duration::ZERO {
            return false;
        }
        let begin = Instant::now();
        let next = (self.task.run)();
        self.is_pausing = matches!(next, Ok(NextTurn::After(_)));
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
                    if !std::mem::take(&mut self.is_reported) {
                        pgrx::log!("lead_audit: could not {}: {error}", self.task.name);
                    }
                    self.errors += 1;
                    Duration::from_secs(1 << self.errors.min(MANY_ERRORS)).min(LONGEST_PAUSE)
                }
            };
        !self.task.on_wake
    }

    /// Runs the task until no work remains. The worker calls this function before it ends.
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
