//! Renumbers entries whose ids are occupied. An id is occupied if somebody has inserted a row with
//! this id by hand, before the sequence reached the id.
//!
//! With `on_error = warn`, the event of an entry with an occupied id must still be recorded. The
//! first entry with an occupied id and all entries after it get new ids, so that the entries of the
//! batch stay in order. The occupied ids are stored in `lead_audit.inserted_entry`, so that sealing
//! does not mistake the inserted rows for genuine entries.

use super::batch::{self, PendingEntry};
use super::entry_table::{COLUMNS, EntryTable, EntryTuple, form_tuple, relation_of_schema};
use super::stored_entry::StoredEntry;
use crate::pg::{
    Hash32, IdScan, NewestSnapshot, OpenRelation, ServerError, SpiPlan, as_user, with_spi,
};
use ledger::EntryColumn;
use pgrx::{IntoDatum, pg_sys};

/// Gives new ids to entries whose ids are occupied. Returns `None` if no id is occupied. In this
/// case, the writing of the entries has failed for a reason other than an occupied id.
///
/// Raises any error that occurs.
pub fn around_inserted(entries: &[PendingEntry]) -> Option<Vec<PendingEntry>> {
    match renumber(entries) {
        Ok(renumbered) => renumbered,
        Err(error) => error.raise(None),
    }
}

fn renumber(entries: &[PendingEntry]) -> Result<Option<Vec<PendingEntry>>, ServerError> {
    let target = EntryTable::find()?;
    let table = OpenRelation::open(target.table, pg_sys::AccessShareLock);
    let ids: Vec<i64> = entries
        .iter()
        .map(|entry| {
            EntryTuple::of(&table, entry.tuple).values[EntryColumn::Id as usize].value() as i64
        })
        .collect();
    let taken = taken(target.table, &ids)?;
    let Some(first) = ids.iter().position(|id| taken.contains(id)) else { return Ok(None) };
    // SAFETY: an open relation has a row in pg_class.
    let owner = unsafe { (*(*table.as_ptr()).rd_rel).relowner };
    // The owner of lead_audit.entry runs `note`, because the role that writes the row has no rights
    // on lead_audit.inserted_entry.
    as_user(owner, || note(&taken));
    let mut scratch = Vec::new();
    let mut checksum = Hash32::default();
    let mut renumbered = entries[..first].to_vec();
    for entry in &entries[first..] {
        // The next id from the sequence can be occupied too.
        let id = loop {
            let id = target.next_id()?;
            if self::taken(target.table, &[id])?.is_empty() {
                break id;
            }
            as_user(owner, || note(&[id]));
        };
        let mut columns = EntryTuple::of(&table, entry.tuple);
        columns.values[EntryColumn::Id as usize] = pg_sys::Datum::from(id);
        let stored = StoredEntry { values: &columns.values, nulls: &columns.nulls };
        // SAFETY: this library made the tuple for this table, and the tuple stays alive.
        let computed = match unsafe { stored.read() } {
            Ok(read) => read.checksum(&mut scratch),
            // The library made this tuple, so it can normally be read. If it cannot be read, the
            // caller reports the error with which the writing of the entries failed.
            Err(_) => return Ok(None),
        };
        columns.values[EntryColumn::Checksum as usize] = checksum.assign(&computed);
        columns.values.truncate(COLUMNS);
        columns.nulls.truncate(COLUMNS);
        // SAFETY: the datums are those of the first columns of the table. `form_tuple` copies the
        // data to which the datums point.
        let tuple = unsafe {
            form_tuple(&table, batch::context(), &mut columns.values, &mut columns.nulls)
        };
        renumbered.push(entry.with_tuple(tuple));
    }
    Ok(Some(renumbered))
}

/// Returns those of `ids` that already have a row in the table, in ascending order.
fn taken(table: pg_sys::Oid, ids: &[i64]) -> Result<Vec<i64>, ServerError> {
    let (Some(&first), Some(&last)) = (ids.iter().min(), ids.iter().max()) else {
        return Ok(Vec::new());
    };
    let snapshot = NewestSnapshot::take();
    // SAFETY: the snapshot is active until this function ends, and the scan ends before the
    // snapshot.
    let mut scan = unsafe { IdScan::open(table, snapshot.as_ptr())? };
    scan.range(first, last);
    let mut taken = Vec::new();
    while let Some(id) = scan.next() {
        if ids.contains(&id) {
            taken.push(id);
        }
    }
    drop(scan);
    Ok(taken)
}

fn note(ids: &[i64]) {
    // The SQL objects of version 1.0 contain no table `inserted_entry`.
    if relation_of_schema(c"inserted_entry") == pg_sys::InvalidOid {
        return;
    }
    with_spi(|| {
        let plan = SpiPlan::prepare(
            // This command stores only ids above the last id that sealing has examined. Every entry
            // up to the last examined id is already sealed or already known as inserted.
            "INSERT INTO lead_audit.inserted_entry (id)
             SELECT u.id FROM pg_catalog.unnest($1) u (id)
             WHERE u.id OPERATOR(pg_catalog.>)
               (SELECT coalesce(pg_catalog.max(t.looked_to), 0) FROM lead_audit.tree t)
             ON CONFLICT DO NOTHING",
            &[pg_sys::INT8ARRAYOID],
        );
        let snapshot = NewestSnapshot::take();
        plan.write(snapshot.as_ptr(), &[ids.to_vec().into_datum()]);
    });
}
