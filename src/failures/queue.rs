//! What the server's processes share, where the library is preloaded: the databases that have the extension, and the records
//! that wait to be written there.
//!
//! All of it is in one memory region that the postmaster makes before any other process exists. Everything is done under one
//! lock, held for as long as it takes to copy a record.

mod databases;
mod memory;
mod pool;
pub mod record;
mod region;

pub use databases::{
    Hold, MAX_DATABASES, NAME_WORDS, Outcome, Presence, Problem, Progress, absent, adopt, count_dropped, counts, doubted,
    each_database, find, forget, found, generation, hold, is_empty_for, note, progress_of, release, set_problem, slot_of, update,
};
pub use pool::{Queued, cancel, confirm, discard_through, peek, pop, push, quarantine, queue_number, reserve};
pub use record::{log_rest, write_to_server_log};
pub use region::{is_there, launcher_starts, launcher_stops, request_lock, rescan_asked, set_open, start_up, wake_launcher};
