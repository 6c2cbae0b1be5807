//! Entries that somebody has put into the table by hand under ids that were not given out yet.
//!
//! When the sequence comes to such an id, the entry must not be taken for the one that got it. So
//! each sealing looks for entries above all ids that were given out, and takes note of them; a
//! writer that meets one does the same (`entries`).

use super::id_gaps::last_id_given_out;
use super::stored_tree::{TreeRow, objects_are_current};
use crate::pg::{ServerError, SpiPlan};
use pgrx::{IntoDatum, pg_sys};

/// Their ids, in ascending order.
#[derive(Debug, Default)]
pub struct InsertedIds(Vec<i64>);

impl InsertedIds {
    /// Looks for new ones, and reads which are known.
    pub fn look(snapshot: pg_sys::Snapshot, tree: &TreeRow) -> Result<Self, ServerError> {
        // Read after the snapshot was taken: every id that it shows and that was taken from the
        // sequence is not above this one.
        let last_id = last_id_given_out()?;
        // While a dump is being restored, the sequence may come after the entries.
        if !tree.is_from_elsewhere() && last_id >= tree.looked_to && objects_are_current() {
            let note = SpiPlan::prepare(
                "INSERT INTO lead_audit.inserted_entry (id) SELECT e.id FROM lead_audit.entry e WHERE e.id > $1 \
                 ON CONFLICT DO NOTHING RETURNING id",
                &[pg_sys::INT8OID],
            );
            let found = note.write(snapshot, &[last_id.into_datum()]);
            for row in 0..found.len().min(MOST_SAID) {
                let id: i64 = found.get(row, 0).unwrap_or_default();
                pgrx::warning!(
                    "entry {id} was put into lead_audit.entry by hand: it is not sealed"
                );
            }
        }
        Self::known(snapshot)
    }

    /// Those that are known.
    pub fn known(snapshot: pg_sys::Snapshot) -> Result<Self, ServerError> {
        if !objects_are_current() {
            return Ok(InsertedIds::default());
        }
        let rows = SpiPlan::prepare("SELECT id FROM lead_audit.inserted_entry ORDER BY id", &[])
            .read(snapshot, &[]);
        Ok(InsertedIds((0..rows.len()).filter_map(|row| rows.get(row, 0)).collect()))
    }

    /// Whether this is one.
    pub fn contains(&self, id: i64) -> bool {
        self.0.binary_search(&id).is_ok()
    }
}

/// So many of them are named in the server's log at once.
const MOST_SAID: usize = 100;
