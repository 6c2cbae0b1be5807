//! Inserted ids: somebody inserted an entry under such an id by hand, before the sequence gave out
//! the id.
//!
//! When the sequence reaches an inserted id, sealing must not mistake the inserted entry for the
//! entry of the writer that gets the id. So each sealing looks for entries above all ids that were
//! given out, and records their ids. A writer that meets an inserted entry records its id too
//! (`entries`).

use super::open_ids::last_id_given_out;
use super::stored_tree::{TreeRow, objects_are_current};
use crate::pg::{ServerError, SpiPlan};
use pgrx::{IntoDatum, pg_sys};

/// The inserted ids, in ascending order.
#[derive(Debug, Default)]
pub struct InsertedIds(Vec<i64>);

impl InsertedIds {
    /// Records new inserted ids, and returns all recorded ids.
    pub fn look(snapshot: pg_sys::Snapshot, tree: &TreeRow) -> Result<Self, ServerError> {
        // The sequence is read after the snapshot was taken, so every visible entry whose id came
        // from the sequence has an id of at most `last_id`.
        let last_id = last_id_given_out()?;
        // During a restore the sequence may be too low: the restore may set it after it inserts the
        // entries.
        if !tree.is_from_elsewhere() && last_id >= tree.looked_to && objects_are_current() {
            let note = SpiPlan::prepare(
                "INSERT INTO lead_audit.inserted_entry (id) SELECT e.id FROM lead_audit.entry e \
                 WHERE e.id > $1 ON CONFLICT DO NOTHING RETURNING id",
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

    /// Returns the recorded ids.
    pub fn known(snapshot: pg_sys::Snapshot) -> Result<Self, ServerError> {
        if !objects_are_current() {
            return Ok(InsertedIds::default());
        }
        let rows = SpiPlan::prepare("SELECT id FROM lead_audit.inserted_entry ORDER BY id", &[])
            .read(snapshot, &[]);
        Ok(InsertedIds((0..rows.len()).filter_map(|row| rows.get(row, 0)).collect()))
    }

    /// Returns whether this id was inserted by hand.
    pub fn contains(&self, id: i64) -> bool {
        self.0.binary_search(&id).is_ok()
    }
}

/// Maximum number of ids in one message to the server's log.
const MOST_SAID: usize = 100;
