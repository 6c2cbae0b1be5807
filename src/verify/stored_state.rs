//! Checks the stored tiles, open gaps and log ids. Reports rows that somebody inserted or changed
//! manually.

use super::faults::Faults;
use crate::pg::SpiPlan;
use crate::seal::{TreeRow, objects_are_current, parse_ids};
use pgrx::{IntoDatum, pg_sys};

/// Maximum number of surplus tiles that are reported. A surplus tile is a stored tile that the tree
/// does not have.
const MOST: i64 = 100;

/// Runs all checks of this module. `size` is the tree size of the newest checkpoint.
pub fn check(snapshot: pg_sys::Snapshot, tree: &TreeRow, size: u64, faults: &mut Faults) {
    surplus_tiles(snapshot, size, faults);
    open_gaps(snapshot, tree, faults);
    log_id(snapshot, tree, faults);
}

/// Reports stored tiles that the tree of `size` leaves does not have.
fn surplus_tiles(snapshot: pg_sys::Snapshot, size: u64, faults: &mut Faults) {
    // The tree has fewer than 2^63 leaves, so no full tile exists at level 7.
    let plan = SpiPlan::prepare(
        "SELECT 'lead_audit.tree_tile', t.level, t.index FROM lead_audit.tree_tile t \
         WHERE (t.level BETWEEN 0 AND 6 \
         AND t.index BETWEEN 0 AND ($1 >> 8 * (t.level + 1)) - 1) IS NOT TRUE \
         UNION ALL SELECT 'lead_audit.tree_edge', e.level, e.index FROM lead_audit.tree_edge e \
         WHERE (e.level BETWEEN 0 AND 7 AND e.index = $1 >> 8 * e.level >> 8 \
         AND (e.level = 0 OR $1 >> 8 * e.level > 0)) IS NOT TRUE \
         ORDER BY 1, 2, 3 LIMIT $2",
        &[pg_sys::INT8OID, pg_sys::INT8OID],
    );
    let rows = plan.read(snapshot, &[(size as i64).into_datum(), MOST.into_datum()]);
    for row in 0..rows.len() {
        let table: String = rows.get(row, 0).unwrap_or_default();
        let (level, index): (Option<i16>, Option<i64>) = (rows.get(row, 1), rows.get(row, 2));
        let (level, index) = (level.unwrap_or_default(), index.unwrap_or_default());
        faults.of_tree(
            "tree_tile",
            format!("{table} has tile {index} of level {level}, which the tree does not have"),
        );
    }
}

/// Reports open gaps that sealing did not store. A manually inserted open gap is a fault, because
/// sealing would then seal an entry that somebody inserts with an id of this gap.
fn open_gaps(snapshot: pg_sys::Snapshot, tree: &TreeRow, faults: &mut Faults) {
    let rows = SpiPlan::prepare(
        "SELECT first_id, ids::text, in_progress FROM lead_audit.open_gap ORDER BY first_id",
        &[],
    )
    .read(snapshot, &[]);
    if rows.len() as i64 != tree.open_gaps {
        let detail = format!(
            "lead_audit.open_gap has {} rows; sealing has left {}",
            rows.len(),
            tree.open_gaps
        );
        faults.of_tree("open_gap", detail);
    }
    let sealed = SpiPlan::prepare(
        "SELECT true FROM lead_audit.leaf_range WHERE first_id <= $2 AND last_id >= $1 \
         ORDER BY first_id DESC LIMIT 1",
        &[pg_sys::INT8OID, pg_sys::INT8OID],
    );
    for row in 0..rows.len() {
        pgrx::check_for_interrupts!();
        let first_id: i64 = rows.get(row, 0).unwrap_or_default();
        let ids =
            rows.get::<String>(row, 1).and_then(|ids| parse_ids(&ids).ok()).unwrap_or_default();
        let in_progress: Vec<i64> = rows.get(row, 2).unwrap_or_default();
        let complaint = if ids.is_empty() {
            Some("it has no ids")
        } else if in_progress.is_empty()
            || in_progress.iter().any(|&xid| !tree.waits_for.contains(&(xid as u64)))
        {
            Some("sealing does not wait for its transactions")
        } else if ids.last().is_some_and(|last| last > tree.looked_to) {
            Some("it has ids that sealing has not looked at")
        } else {
            let is_sealed = ids.ranges().iter().any(|range| {
                sealed.read(snapshot, &[range.first.into_datum(), range.last.into_datum()]).len()
                    > 0
            });
            is_sealed.then_some("it has ids that are sealed")
        };
        if let Some(complaint) = complaint {
            faults.of_tree(
                "open_gap",
                format!("the gap that begins with id {first_id}: {complaint}"),
            );
        }
    }
}

/// Checks that the rows of lead_audit.checkpoint have the log id of lead_audit.tree. With the
/// default origin, the note of a checkpoint also contains the log id.
fn log_id(snapshot: pg_sys::Snapshot, tree: &TreeRow, faults: &mut Faults) {
    // The SQL objects of version 1.0 do not store the log id with a checkpoint.
    if !objects_are_current() {
        return;
    }
    let plan = SpiPlan::prepare(
        "SELECT tree_size FROM lead_audit.checkpoint WHERE log_id <> $1 ORDER BY tree_size LIMIT 1",
        &[pg_sys::UUIDOID],
    );
    let other: Option<i64> = plan.read(snapshot, &[tree.log_id.into_datum()]).get(0, 0);
    // The default origin of a log ends with the log id.
    let plan = SpiPlan::prepare(
        "SELECT tree_size FROM lead_audit.checkpoint \
         WHERE log_id IS NULL \
         AND note ~ '^lead_audit/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\\n' \
         AND NOT pg_catalog.starts_with(note, 'lead_audit/' || $1::text || E'\\n') \
         ORDER BY tree_size LIMIT 1",
        &[pg_sys::UUIDOID],
    );
    let named: Option<i64> = plan.read(snapshot, &[tree.log_id.into_datum()]).get(0, 0);
    if let Some(size) = other.or(named) {
        let detail =
            format!("lead_audit.tree has another log_id than the checkpoint of tree size {size}");
        faults.of_tree("log_id", detail);
    }
}
