//! Contains the code with which the worker turns records into entries. `drain` takes records from
//! the queue, and `failed_entry` makes an entry for each record. If a statement failed before
//! PostgreSQL knew its table (during parsing, or while a parameter was bound), `resolve` finds the
//! table from the statement's text. If a record makes the worker die, `quarantine` prevents the
//! next worker from processing the same record.

mod drain;
mod failed_entry;
mod lock_budget;
mod quarantine;
mod resolve;

use crate::failures::session::note_name;
use pgrx::Spi;

pub use drain::drain;

/// Adds the names of the watched tables to the name filter.
pub fn load_names() {
    let query = "SELECT DISTINCT table_name FROM lead_audit.watched_relation";
    let names = Spi::connect(|client| {
        let rows = client.select(query, None, &[])?;
        rows.map(|row| row.get::<String>(1)).collect::<Result<Vec<_>, _>>()
    });
    names.into_iter().flatten().flatten().for_each(|name| note_name(&name));
}
