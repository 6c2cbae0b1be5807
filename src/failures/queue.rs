//! The queue is memory that all processes of the server share. The queue exists only if the library
//! is preloaded. The queue contains the records and a list of the databases that have the
//! extension. Each record waits in the queue for the worker of its database.
//!
//! In the code, the memory of the queue is called the *region* (see `region`). The postmaster maps
//! the region before any other process of the server starts (see `startup`).

mod databases;
pub mod record;
mod region;
mod server_log;
mod shared_memory;
mod slots;
mod startup;

pub use databases::{
    Hold, absent, adopt, ask_to_give_way, count_dropped, counts, doubted, each_database, find,
    forget, found, hold, is_empty_for, note, progress_of, release, set_problem, slot_of,
    stop_connecting, update,
};
pub use region::{
    MAX_DATABASES, NAME_WORDS, Presence, Problem, Progress, Stage, WorkerExit, generation,
    is_there, launcher_starts, launcher_stops, rescan_asked, set_open, wake_launcher,
};
pub use server_log::{
    LogLine, begin_recording, end_recording, is_recording, log_rest, write_to_server_log,
};
pub use slots::{drop_logged, peek, pop, quarantine, queue_number, remove_unneeded};
pub use startup::{request_lock, start_up};
