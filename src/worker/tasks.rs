//! The tasks of a worker, in order of execution. Each runs in its own transactions. If a task
//! returns an error, the worker logs it and retries after a pause that grows with each error.

use crate::failures;
use crate::pg::{NextTurn, ServerError, in_extension_transaction, must_stop};
use crate::seal;
use crate::settings;
use crate::watch;
use pgrx::PgSqlErrorCode;
use std::time::{Duration, Instant};

/// A task that a worker runs at intervals, and when it is woken.
pub struct Task {
    /// The name for the log: "lead_audit: could not NAME".
    pub name: &'static str,
    /// Time from the beginning of a turn to the next turn. A function, since settings can change.
    pub interval: fn() -> Duration,
    /// Whether the task is also due when the worker's latch is set.
    pub on_wake: bool,
    /// Runs one turn, outside of a transaction. The task opens the transactions that it needs
    /// (`pg::in_transaction`).
    pub run: fn() -> Result<NextTurn, ServerError>,
}

/// All tasks, in order of execution.
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

/// Interval between checks whether sealing was switched on.
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

/// The worker also sends the checkpoints that other sessions seal, so it looks at intervals.
fn notify_interval() -> Duration {
    seal_interval().min(SWITCHED_OFF)
}

fn notify() -> Result<NextTurn, ServerError> {
    // Pause after a failure.
    const PAUSE: Duration = Duration::from_secs(10);
    Ok(if seal::notify() || must_stop() { NextTurn::AtInterval } else { NextTurn::After(PAUSE) })
}

fn check_watched() -> Result<NextTurn, ServerError> {
    // Nothing is lost if the last look is skipped at shutdown.
    if must_stop() {
        return Ok(NextTurn::AtInterval);
    }
    match in_extension_transaction(c"checking the watched tables", watch::check) {
        // Another session has locked a table. The next turn tries again.
        Err(error) if error.code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
            Ok(NextTurn::AtInterval)
        }
        result => result.map(|_| NextTurn::AtInterval),
    }
}

/// Longest pause after errors.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A task and the time of its next turn.
pub struct Schedule {
    task: &'static Task,
    due: Instant,
    /// Whether the task itself set the time of its next turn.
    rests: bool,
    errors: u32,
    /// Whether the log contains the error of the former worker.
    is_reported: bool,
}

/// Number of errors after which the pause is the longest.
const MANY_ERRORS: u32 = 6;

/// Returns all tasks, due now. `reported` is what `reported()` returned in the former worker: the
/// first error of these tasks is not logged again.
pub fn schedules(reported: u8) -> Vec<Schedule> {
    let schedule = |(index, task): (usize, &'static Task)| {
        let is_reported = reported & 1 << index != 0;
        let errors = if is_reported { MANY_ERRORS } else { 0 };
        Schedule { task, due: Instant::now(), rests: false, errors, is_reported }
    };
    TASKS.iter().enumerate().map(schedule).collect()
}

/// The tasks whose last turn ended with an error, as bits in the order of `TASKS`.
pub fn reported(schedules: &[Schedule]) -> u8 {
    const { assert!(TASKS.len() <= u8::BITS as usize) };
    let bits = schedules.iter().enumerate();
    bits.fold(0, |bits, (index, schedule)| bits | u8::from(schedule.errors > 0) << index)
}

impl Schedule {
    /// Returns the time until the next turn.
    pub fn time_left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Makes the task due if it runs on wake-up, unless it pauses after an error. Call this after a
    /// task even without a wake-up: a lock wait in a transaction resets the latch, and so can lose
    /// a wake-up. A task that set its own time stays undisturbed in that case.
    pub fn wake(&mut self, woken: bool) {
        if self.task.on_wake && self.errors == 0 && (woken || !self.rests) {
            self.due = Instant::now();
        }
    }

    /// Runs the task if it is due, and logs an error. Returns true if the task may have lost a
    /// wake-up of the others: it ran, does not run on wake-up, and a lock wait may have reset the
    /// latch.
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
                    if !std::mem::take(&mut self.is_reported) {
                        pgrx::log!("lead_audit: could not {}: {error}", self.task.name);
                    }
                    self.errors += 1;
                    Duration::from_secs(1 << self.errors.min(MANY_ERRORS)).min(LONGEST_PAUSE)
                }
            };
        !self.task.on_wake
    }

    /// Runs the last turn before the process ends, whatever the schedule.
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
