//! Writes the baseline: one SNAPSHOT entry for each row that the table has when watching begins.

use super::ddl_guard::with_guard_on;
use crate::actor;
use crate::capture::{RowEvent, RowOperation, record_row};
use crate::entries;
use crate::pg::{as_owner_restricted, for_each_row};
use pgrx::{Uuid, pg_extern, pg_sys};

/// `lead_audit_internal.write_baseline(regclass, uuid, text)`: writes the baseline of a table and
/// returns the number of rows. enable() holds a lock that blocks writers of the table until the
/// audit triggers exist. Therefore each row of the table either has a SNAPSHOT entry, or was
/// written later and recorded by the audit trigger.
#[pg_extern(sql = false)]
fn write_baseline(relation: pg_sys::Oid, watch_id: Uuid, soft_delete_column: &[u8]) -> i64 {
    // If the column's name is not valid UTF-8, no column of the layout has this name.
    let soft_delete_column = std::str::from_utf8(soft_delete_column).unwrap_or("");
    // SAFETY: GetOuterUserId() only reads a variable of the session. enable() is SECURITY DEFINER,
    // but the entries record the role that called enable().
    actor::acting_for_unless_known(unsafe { pg_sys::GetOuterUserId() }, || {
        write_rows(relation, watch_id, soft_delete_column)
    })
}

fn write_rows(relation: pg_sys::Oid, watch_id: Uuid, soft_delete_column: &str) -> i64 {
    let mut rows = 0;
    for_each_row(relation, |table, row| {
        let event = RowEvent {
            operation: RowOperation::Snapshot,
            relation: table,
            watch_id: *watch_id.as_bytes(),
            soft_delete_column,
            row,
            new_row: None,
        };
        // SAFETY: the scan keeps the table open and the row valid until this closure returns. The
        // conversion of the table's values can call code of the table's owner, so the conversion
        // runs with the owner's rights.
        with_guard_on(|| unsafe { as_owner_restricted(table, || record_row(&event)) });
        rows += 1;
    });
    entries::flush();
    rows
}
