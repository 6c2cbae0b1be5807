//! Compares each entry with its checksum and its leaf, in ascending order of ids. All reads use one
//! snapshot. The entries are read row by row, so memory use does not grow with the log. A query
//! cancel takes effect between two rows.

use super::faults::{Faults, Mismatch};
use super::leaves::Leaves;
use crate::entries::{
    COLUMNS, EntryColumn, StoredEntry, StoredFault, check_columns, relation_of_schema,
};
use crate::pg::{IdScan, RowMemory, ServerError, attribute, borrowed_text, detoasted};
use ledger::KeyChange;
use ledger::merkle::Hash;
use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// Minimum time between two progress messages of a long verification.
const PROGRESS: Duration = Duration::from_secs(5);

/// The entries to check, selected by a range of ids and a range of times. A range includes both of
/// its ends.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The first and the last id to check are `from_id` and `to_id`.
    pub from_id: i64,
    pub to_id: i64,
    /// The first and the last time to check are `from_time` and `to_time`, in microseconds since
    /// 2000-01-01 UTC.
    pub from_time: i64,
    pub to_time: i64,
}

impl Wanted {
    /// The ranges that select all entries.
    pub const ALL: Wanted =
        Wanted { from_id: i64::MIN, to_id: i64::MAX, from_time: i64::MIN, to_time: i64::MAX };

    /// Returns whether entries are selected by time. A verification by time does not report missing
    /// entries, because the time of a missing entry is unknown.
    fn by_time(&self) -> bool {
        (self.from_time, self.to_time) != (i64::MIN, i64::MAX)
    }
}

/// The result of the check of the entries, without the faults.
#[derive(Debug, Default)]
pub struct Checked {
    /// Number of entries in the range of ids.
    pub entries: u64,
    /// The changes of the log's key or origin, by the id of the KEY entry that states the change.
    pub key_changes: BTreeMap<i64, KeyChange>,
}

/// Checks the entries that `wanted` selects.
///
/// # Safety
/// The snapshot must be active until this function returns.
pub unsafe fn check(
    snapshot: pg_sys::Snapshot,
    wanted: &Wanted,
    mut leaves: Leaves,
    faults: &mut Faults,
) -> Result<Checked, ServerError> {
    // SAFETY: the snapshot is active until this function returns (see # Safety).
    let mut scan = unsafe { IdScan::open(relation_of_schema(c"entry"), snapshot)? };
    // SAFETY: the scan keeps the table open.
    let columns = unsafe {
        check_columns(scan.tuple_desc())?;
        (*scan.tuple_desc()).natts as usize
    };
    // SAFETY: the scan keeps the table open, and the name of a column is a C string.
    let names: Vec<String> = (COLUMNS..columns)
        .map(|index| unsafe {
            CStr::from_ptr(attribute(scan.tuple_desc(), index).attname.data.as_ptr())
        })
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let mut key_changes = BTreeMap::new();
    let (mut scratch, mut memory) = (Vec::new(), RowMemory::new(c"lead_audit verified entry"));
    let mut progress = Progress::new();
    // The lowest id that the scan has not reached yet. If the scan skips this id and the id is
    // sealed, the entry with this id is missing.
    let mut next = wanted.from_id;
    scan.range(wanted.from_id, wanted.to_id);
    while let Some(id) = scan.next() {
        miss(&mut leaves, &mut next, id, wanted, faults);
        let (values, nulls) = scan.columns(columns);
        let time = values[EntryColumn::OccurredAt as usize].value() as i64;
        if nulls[EntryColumn::OccurredAt as usize]
            || (wanted.from_time..=wanted.to_time).contains(&time)
        {
            let entry = StoredEntry { values, nulls };
            // SAFETY: `check_columns` has checked the columns. The row's memory stays valid until
            // the next row is fetched.
            let (mut own_fault, found, change) = memory.for_row(|| unsafe {
                (entry.verify(&mut scratch), leaf_of(&entry), key_change_of(&entry))
            });
            // This version of lead_audit cannot check the values of unknown columns.
            if let Some(unknown) = nulls[COLUMNS..].iter().position(|is_null| !is_null) {
                own_fault = Err(StoredFault::UnknownColumn(names[unknown].clone()));
            }
            if let (Ok(()), Some(change)) = (&own_fault, change) {
                key_changes.insert(id, change);
            }
            judge(id, own_fault, found, &mut leaves, faults);
        }
        progress.one_more(id, faults.len());
    }
    let last_was_there = next > wanted.to_id;
    miss(&mut leaves, &mut next, wanted.to_id, wanted, faults);
    if !last_was_there {
        miss_one(&mut leaves, wanted.to_id, wanted, faults);
    }
    Ok(Checked { entries: progress.entries, key_changes })
}

/// Returns the leaf hash of an entry's stored checksum.
///
/// # Safety
/// The caller must fulfil the requirements of `StoredEntry::verify`.
unsafe fn leaf_of(entry: &StoredEntry) -> Option<Hash> {
    let index = EntryColumn::Checksum as usize;
    // SAFETY: the column `checksum` is a bytea, and the hash is copied.
    let checksum: Option<Hash> = (!entry.nulls[index])
        .then(|| unsafe { detoasted(entry.values[index]) }.try_into().ok())
        .flatten();
    checksum.map(|checksum| ledger::leaf_hash(&checksum))
}

/// Returns the change of the log's key or origin that a KEY entry states, or `None` for other
/// entries.
///
/// # Safety
/// The caller must fulfil the requirements of `StoredEntry::verify`.
unsafe fn key_change_of(entry: &StoredEntry) -> Option<KeyChange> {
    let text = |column: EntryColumn| {
        // SAFETY: the column is text or json, and not NULL. The entry's values live longer than the
        // text that borrows from them.
        (!entry.nulls[column as usize])
            .then(|| unsafe { borrowed_text(entry.values[column as usize]) }.ok())
            .flatten()
    };
    (text(EntryColumn::Operation)? == KeyChange::OPERATION)
        .then(|| KeyChange::of_details(text(EntryColumn::Details)?))
        .flatten()
}

/// Reports each sealed id from `next` to `id - 1` as missing, because the scan found no entry with
/// this id.
fn miss(leaves: &mut Leaves, next: &mut i64, id: i64, wanted: &Wanted, faults: &mut Faults) {
    while let Some(range) = leaves.range() {
        for missing in
            i64::max(*next, range.ids.first)..=i64::min(id.saturating_sub(1), range.ids.last)
        {
            pgrx::check_for_interrupts!();
            miss_one(leaves, missing, wanted, faults);
        }
        if range.ids.last >= id {
            break;
        }
        leaves.advance();
    }
    *next = id.saturating_add(1);
}

fn miss_one(leaves: &mut Leaves, id: i64, wanted: &Wanted, faults: &mut Faults) {
    let Some(range) =
        leaves.range().filter(|range| (range.ids.first..=range.ids.last).contains(&id))
    else {
        return;
    };
    if !wanted.by_time() {
        let leaf = range.leaf(id);
        faults.mismatch(Mismatch {
            id,
            leaf,
            found: None,
            stored: leaves.stored(leaf),
            own_fault: None,
        });
    }
}

/// Compares an existing entry with its leaf. Reports an entry that differs from its leaf, and an
/// entry without a leaf that sealing could not have skipped. For any other entry, reports the
/// entry's own fault, for example a wrong checksum.
fn judge(
    id: i64,
    own: Result<(), StoredFault>,
    found: Option<Hash>,
    leaves: &mut Leaves,
    faults: &mut Faults,
) {
    let own_fault = own.err().map(|fault| (fault.kind(), fault.detail()));
    match leaves.range().filter(|range| (range.ids.first..=range.ids.last).contains(&id)) {
        Some(range) => {
            let leaf = range.leaf(id);
            let stored = leaves.stored(leaf);
            if found.is_none() || found != stored {
                return faults.mismatch(Mismatch { id, leaf, found, stored, own_fault });
            }
        }
        None if own_fault.is_none() && !leaves.may_be_unsealed(id) => {
            let detail = "the entry was not there when ids around it were sealed, and no \
                          transaction was open that could bring it";
            return faults.of_entry(id, "inserted", detail.to_owned());
        }
        None => {}
    }
    if let Some((kind, detail)) = own_fault {
        faults.of_entry(id, kind, detail);
    }
}

/// The progress of a verification, which is reported from time to time.
struct Progress {
    entries: u64,
    last_said: Instant,
}

impl Progress {
    fn new() -> Self {
        Progress { entries: 0, last_said: Instant::now() }
    }

    fn one_more(&mut self, id: i64, faults: usize) {
        self.entries += 1;
        if self.entries.is_multiple_of(1024) && self.last_said.elapsed() >= PROGRESS {
            self.last_said = Instant::now();
            pgrx::notice!(
                "verified {} entries, up to id {id}; faults so far: {faults}",
                self.entries
            );
        }
    }
}
