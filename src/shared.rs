//! What the server's processes share, where the library is preloaded: the databases that have the extension, and the records
//! that wait to be written there.
//!
//! All of it is in one memory region that the postmaster makes before any other process exists. Everything is done under one
//! lock, held for as long as it takes to copy a record.

#![allow(dead_code, unused_imports)]

mod databases;
mod pool;
mod region;

pub use databases::{
    Counts, Database, MAX_DATABASES, Outcome, Presence, Problem, adopt, counts, each_database, find, forget, generation, hold,
    note, release, set_problem, slot_of, update,
};
pub use pool::{Queued, discard_through, entry_of_queue, is_empty_for, peek, pop, push, set_open, take_all};
pub use region::{at_postmaster_start, is_there, launcher_starts, launcher_stops, rescan_asked, wake_launcher};
