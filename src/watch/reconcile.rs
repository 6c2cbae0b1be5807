//! The worker compares the watched tables with the catalog: soon after any relation changed, and
//! every minute. It finds what got past the DDL guard, in whatever way.

use super::ddl::{failed, mend};
use crate::entries::relation_of_schema;
use pgrx::{Spi, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often to look whether a relation changed.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// How often to compare even if none did.
const LONGEST: Duration = Duration::from_secs(60);

/// How often the same fault is logged.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The fault of a table that somebody has locked.
const LOCKED: &str = "locked";

/// After so many turns that found a table locked, the next one waits longer for it.
const PATIENT_AFTER: u32 = 3;

thread_local! {
    static LOCKED_TURNS: Cell<u32> = const { Cell::new(0) };
    static SAID: RefCell<HashMap<(String, String), Instant>> = RefCell::new(HashMap::new());
    static CHANGED: Cell<bool> = const { Cell::new(true) };
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One turn of the worker, in a transaction: its beginning took in what other sessions said of
/// relations.
///
/// An error leaves the relations changed, so the next turn compares them again.
pub fn tick() {
    let is_due = CHANGED.get() || LAST.get().is_none_or(|last| last.elapsed() >= LONGEST);
    // Older SQL objects have no such check.
    if !is_due || relation_of_schema(c"watch_fault") == pg_sys::InvalidOid {
        return;
    }
    CHANGED.set(false);
    let done = Finally(true);
    // Below deadlock_timeout: of a session and the worker that wait for each other, it is the
    // worker that gives up. A table that is always in use is waited for longer, and then keeps
    // others waiting for that long.
    let patience = if LOCKED_TURNS.get() < PATIENT_AFTER {
        5
    } else {
        // SAFETY: reads a setting.
        unsafe { pg_sys::DeadlockTimeout / 2 }.clamp(1, 400)
    };
    if let Err(error) = Spi::run(&format!("SET LOCAL lock_timeout = {patience}")) {
        failed(&error);
    }
    let found = mend();
    let is_locked = found.iter().any(|(_, fault)| fault == LOCKED);
    found.into_iter().for_each(say);
    LAST.set(Some(Instant::now()));
    if is_locked {
        LOCKED_TURNS.set(if LOCKED_TURNS.get() < PATIENT_AFTER {
            LOCKED_TURNS.get() + 1
        } else {
            0
        });
        return; // looks again soon
    }
    LOCKED_TURNS.set(0);
    done.succeeded();
}

fn say((relation, fault): (String, String)) {
    let is_news = SAID.with_borrow_mut(|said| {
        said.retain(|_, at| at.elapsed() < SAY_AGAIN);
        said.insert((relation.clone(), fault.clone()), Instant::now()).is_none_or(|at| {
            said.insert((relation.clone(), fault.clone()), at);
            false
        })
    });
    if is_news {
        pgrx::log!("lead_audit: table {relation} was found to be: {fault}");
    }
}

/// Notes that the comparison did not come to its end, unless it did.
struct Finally(bool);

impl Finally {
    fn succeeded(mut self) {
        self.0 = false;
    }
}

impl Drop for Finally {
    fn drop(&mut self) {
        if self.0 {
            CHANGED.set(true);
        }
    }
}

/// Postgres says that some relation changed.
pub fn relation_changed() {
    CHANGED.set(true);
}
