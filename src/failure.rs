//! What failed is kept: a failed statement takes its entries with it when it is rolled back, so what there is to say of it
//! leaves by another way, a queue in shared memory from which the database's worker writes it.
//!
//! In the session: `hooks` mark on the stack, with a `frame`, which statement on a watched table is under way. When an error is raised, the
//! callback in `raised` makes a record of it (with `failing_row`, if the row is at hand), and `ending` sends it when the
//! (sub)transaction that the statement ran in is rolled back; if the statement survives, the record is dropped. In the worker:
//! `write` makes entries of records; for errors that came before Postgres knew the table (in parsing, in binding a parameter),
//! `resolve` finds it out from the statement's text.
//!
//! All of it needs the library to be preloaded.

mod ending;
mod failing_row;
mod following;
mod frame;
mod hooks;
mod masked;
mod names;
mod patience;
mod present_row;
mod raised;
mod record;
mod resolve;
mod temporary;
mod watched;
mod write;

pub use following::switch_off;
pub use names::note_name;
pub use record::log_rest;
pub use temporary::{doubt_temporary_tables, note_temporary_table};
pub use write::{drain, load_names};

/// Installs hooks and callbacks. After `journal::install_flush_points`: what goes wrong in writing entries is seen here too.
pub fn install() {
    crate::journal::follow_written();
    crate::journal::report_gaps_to(ending::gap);
    watched::follow_relation_changes();
    hooks::install();
    ending::install();
}
