//! The worker compares the watched tables with the catalog: soon after any relation changed, and every minute. It finds what got past
//! the DDL guard, in whatever way.

use super::ddl::{failed, mend};
use crate::entries::relation_of_schema;
use pgrx::{Spi, pg_sys};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How often to look whether a relation changed.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// How often to compare even if none did.
const LONGEST: Duration = Duration::from_secs(60);

thread_local! {
    static CHANGED: Cell<bool> = const { Cell::new(true) };
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One turn of the worker, in a transaction: its beginning took in what other sessions said of relations.
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
    // Far below deadlock_timeout: of a session and the worker that wait for each other, it is the worker that gives up.
    if let Err(error) = Spi::run("SET LOCAL lock_timeout = '5ms'") {
        failed(&error);
    }
    for (relation, fault) in mend() {
        pgrx::log!("lead_audit: table {relation} was found to be: {fault}");
    }
    LAST.set(Some(Instant::now()));
    done.succeeded();
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
