//! Compares the watched tables with the catalog, to find changes that the DDL guard did not see.
//! The worker compares the watched tables every minute, and within a few seconds after a change of
//! any relation.

use super::command_effects::Effects;
use super::ddl_guard::{Guarding, failed};
use crate::actor;
use crate::entries::relation_of_schema;
use crate::pg::{as_user, extension_owner};
use crate::version::internal_schema;
use pgrx::iter::TableIterator;
use pgrx::{Spi, name, pg_extern, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Interval at which the worker calls `tick`. `tick` compares the watched tables if a relation has
/// changed or `LONGEST` has passed.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// Maximum time between two comparisons, if no relation has changed.
const LONGEST: Duration = Duration::from_secs(60);

/// Minimum time between two messages about the same fault in the server's log.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// The fault that is reported for a table that another session has locked.
const LOCKED: &str = "locked";

/// If this number of successive calls of `tick` have found a table locked, the next call of `tick`
/// waits longer for the lock.
const LONG_WAIT_AFTER: u32 = 3;

thread_local! {
    static LOCKED_TURNS: Cell<u32> = const { Cell::new(0) };
    static LOGGED: RefCell<HashMap<(String, String), Instant>> = RefCell::new(HashMap::new());
    static CHANGED: Cell<bool> = const { Cell::new(true) };
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Compares the watched tables with the catalog, if a comparison is due. The worker calls this
/// function in a transaction of its own. At the beginning of this transaction, PostgreSQL has
/// processed the invalidations of relations that other sessions have changed.
///
/// If the comparison fails, the relations still count as changed, so the next call of `tick`
/// repeats the comparison.
pub fn tick() {
    let is_due = CHANGED.get() || LAST.get().is_none_or(|last| last.elapsed() >= LONGEST);
    // The SQL objects of version 1.0 lack the view `watch_fault`, so the comparison cannot run.
    if !is_due || relation_of_schema(c"watch_fault") == pg_sys::InvalidOid {
        return;
    }
    CHANGED.set(false);
    let done = IncompleteUnlessDone(true);
    // The lock timeout is shorter than deadlock_timeout, so in a deadlock with another session the
    // worker gives up first. While the worker waits for a lock, other sessions can wait behind the
    // worker, so the timeout is usually very short. If `LONG_WAIT_AFTER` calls in succession have
    // found a locked table, the next call uses a longer timeout.
    let lock_timeout = if LOCKED_TURNS.get() < LONG_WAIT_AFTER {
        5
    } else {
        // SAFETY: DeadlockTimeout is the value of a setting.
        unsafe { pg_sys::DeadlockTimeout / 2 }.clamp(1, 400)
    };
    if let Err(error) = Spi::run(&format!("SET LOCAL lock_timeout = {lock_timeout}")) {
        failed(&error);
    }
    let found = repair();
    let is_locked = found.iter().any(|(_, fault)| fault == LOCKED);
    found.into_iter().for_each(log_fault);
    LAST.set(Some(Instant::now()));
    if is_locked {
        LOCKED_TURNS.set(if LOCKED_TURNS.get() < LONG_WAIT_AFTER {
            LOCKED_TURNS.get() + 1
        } else {
            0
        });
        return; // The next call of `tick` compares the tables again.
    }
    LOCKED_TURNS.set(0);
    done.succeeded();
}

/// `lead_audit.check_watched()`: repairs the watched tables, and returns the faults that it found.
#[pg_extern(sql = false)]
fn check_watched() -> TableIterator<'static, (name!(relation, String), name!(fault, String))> {
    TableIterator::new(repair())
}

/// Finds each difference between the catalog and the tables of lead_audit that describe the watched
/// tables. Repairs or records each difference. Returns the table and the fault of each difference.
fn repair() -> Vec<(String, String)> {
    // While the triggers are repaired, the DDL guard ignores the commands of the repair, because
    // the repair itself writes entries about these commands.
    let Some(_guarding) = Guarding::begin(Effects::default()) else { return Vec::new() };
    let Some(owner) = extension_owner() else { return Vec::new() };
    // SAFETY: GetUserId() only reads a variable of the session.
    let invoker = unsafe { pg_sys::GetUserId() };
    let found = actor::acting_for(invoker, || {
        as_user(owner, || {
            Spi::connect_mut(|client| {
                let query = format!(
                    "SELECT m.relation, m.fault FROM {}.repair_watched() m",
                    internal_schema()
                );
                let rows = client.update(&query, None, &[])?;
                rows.map(|row| {
                    Ok((row.get(1)?.unwrap_or_default(), row.get(2)?.unwrap_or_default()))
                })
                .collect::<pgrx::spi::Result<_>>()
            })
        })
    });
    found.unwrap_or_else(|error: pgrx::spi::SpiError| failed(&error))
}

fn log_fault((relation, fault): (String, String)) {
    let is_news = LOGGED.with_borrow_mut(|said| {
        said.retain(|_, at| at.elapsed() < REPEAT_AFTER);
        said.insert((relation.clone(), fault.clone()), Instant::now()).is_none_or(|at| {
            said.insert((relation.clone(), fault.clone()), at);
            false
        })
    });
    if is_news {
        pgrx::log!("lead_audit: table {relation} was found to be: {fault}");
    }
}

/// If this value is dropped without a call of `succeeded`, the relations count as changed, so that
/// the next call of `tick` repeats the comparison.
struct IncompleteUnlessDone(bool);

impl IncompleteUnlessDone {
    fn succeeded(mut self) {
        self.0 = false;
    }
}

impl Drop for IncompleteUnlessDone {
    fn drop(&mut self) {
        if self.0 {
            CHANGED.set(true);
        }
    }
}

/// Notes that a relation has changed, so that the next call of `tick` compares the watched tables.
/// The relcache callback of lead_audit calls this function.
pub fn relation_changed() {
    CHANGED.set(true);
}
