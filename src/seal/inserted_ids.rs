//! Finds inserted ids. An inserted id is the id of an entry that somebody inserted manually before
//! the sequence gave out the id.
//!
//! When the sequence reaches an inserted id, it gives this id to a session. Sealing must not
//! mistake the inserted entry for the entry of this session. Therefore each round of sealing looks
//! for entries whose ids the sequence has not given out yet, and records these ids. A session that
//! gets an inserted id from the sequence also records this id (`entries`).

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
        // The sequence is read after the snapshot was taken. If the snapshot shows an entry whose
        // id is higher than `last_id`, the entry therefore did not get its id from the sequence.
        let last_id = last_id_given_out()?;
        // The code does not look for inserted ids during a restore. A restore can insert the
        // entries before it sets the value of the sequence, so the restored ids would look like
        // inserted ids.
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

    /// Returns the inserted ids that are recorded in lead_audit.inserted_entry.
    pub fn known(snapshot: pg_sys::Snapshot) -> Result<Self, ServerError> {
        if !objects_are_current() {
            return Ok(InsertedIds::default());
        }
        let rows = SpiPlan::prepare("SELECT id FROM lead_audit.inserted_entry ORDER BY id", &[])
            .read(snapshot, &[]);
        Ok(InsertedIds((0..rows.len()).filter_map(|row| rows.get(row, 0)).collect()))
    }

    /// Returns whether `id` is an inserted id.
    pub fn contains(&self, id: i64) -> bool {
        self.0.binary_search(&id).is_ok()
    }
}

/// Maximum number of inserted ids for which one round of sealing writes a warning.
const MOST_SAID: usize = 100;
