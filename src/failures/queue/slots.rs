//! Stores the records that wait for workers. A record occupies one or more slots of the region.
//! Each database has its own list of records, so that a database without a worker does not delay
//! the records of other databases.
//!
//! The `state` of a record's first slot shows whether the record is complete. After a crash of the
//! server, the lists of records can be inconsistent, and are rebuilt from the states of all slots.

use super::region::{DATA, NONE, Region, Slot, locked, set_latch};
use pgrx::pg_sys;

/// The state of a free slot.
const FREE: u32 = 0;
/// The state of the first slot of a confirmed record.
const RECORD: u32 = 1;
/// The state of the second and each further slot of a record. While a session is still writing the
/// record, the first slot has this state too.
const MORE: u32 = 2;
/// The state of the first slot of an unconfirmed record, which its session has not confirmed or
/// cancelled yet.
const RESERVED: u32 = 3;

/// Whether the queue accepted a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queued {
    /// The queue accepted the record. The worker will write an entry for the record.
    Yes,
    /// Too few slots are free.
    Full,
    /// The queue is closed (`Region::open`), or the region's list does not contain the database.
    Closed,
}

impl Region {
    fn slot(&mut self, index: u32) -> &mut Slot {
        debug_assert!(index < self.slots);
        // SAFETY: `self.slots` slots follow the head of the region in memory. Every index comes
        // from a list of slots.
        unsafe { &mut *std::ptr::from_mut(self).add(1).cast::<Slot>().add(index as usize) }
    }

    fn take_slot(&mut self) -> Option<u32> {
        let index = self.free;
        if index == NONE {
            return None;
        }
        self.free = self.slot(index).more;
        self.slots_used += 1;
        Some(index)
    }

    fn give_back(&mut self, first: u32) -> u32 {
        let (mut index, mut count) = (first, 0);
        while index != NONE {
            let free = self.free;
            let slot = self.slot(index);
            let following = slot.more;
            slot.state = FREE;
            slot.more = free;
            self.free = index;
            self.slots_used -= 1;
            count += 1;
            index = following;
        }
        count
    }

    /// Copies a record into free slots, and returns the index of the record's first slot. Returns
    /// `None` if too few slots are free.
    fn store(&mut self, database: pg_sys::Oid, record: &[u8]) -> Option<u32> {
        let mut first = NONE;
        // The pieces of the record are stored from the last to the first, because each slot
        // contains the index of the slot with the next piece.
        for piece in record.chunks(DATA).rev() {
            let Some(index) = self.take_slot() else {
                self.give_back(first);
                return None;
            };
            let slot = self.slot(index);
            slot.data[..piece.len()].copy_from_slice(piece);
            slot.more = first;
            slot.database = database.to_u32();
            slot.length = record.len() as u32;
            slot.next = NONE;
            slot.state = MORE;
            first = index;
        }
        let mut index = first;
        while index != NONE {
            let slot = self.slot(index);
            slot.first = first;
            index = slot.more;
        }
        (first != NONE).then_some(first)
    }

    /// Sets the state of a record's first slot. The caller must have written all other fields of
    /// the record's slots before.
    fn set_state(&mut self, first: u32, state: u32) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        // SAFETY: the pointer refers to a slot of the region. The first fence makes all earlier
        // writes visible before the write of the state.
        unsafe { std::ptr::addr_of_mut!(self.slot(first).state).write_volatile(state) };
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    }

    /// Appends a stored record to its database's list, and gives the record the next sequence
    /// number. Returns the latch of the process that the caller must wake, or 0 if the caller need
    /// not wake a process. The process to wake is the database's worker or, if the database has no
    /// worker, the launcher.
    fn enqueue(&mut self, place: usize, first: u32) -> usize {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.slot(first).sequence = sequence;
        self.set_state(first, RECORD);
        let was_empty = self.databases[place].first == NONE;
        append(self, place, first);
        let is_filling = self.databases[place].slots_used > self.slots_of_each() / 2;
        let launcher_latch = self.launcher_latch;
        let database = &mut self.databases[place];
        database.counts.queued += 1;
        // If `looks_again` is set, the worker is running a task, or pauses before its next task.
        // While `looks_again` is set, the worker is woken only if the database's records occupy
        // more than half of the slots that the database may use. Waking the worker clears
        // `looks_again`, so the worker is woken only once.
        let is_needed = if database.looks_again { is_filling } else { was_empty };
        if !is_needed {
            return 0;
        }
        database.looks_again = false;
        if database.worker == 0 { launcher_latch } else { database.latch }
    }

    /// Returns the maximum number of slots that one database may use. One database can use seven
    /// eighths of all slots, so that at least one eighth remains for all other databases.
    fn slots_of_each(&self) -> u32 {
        self.slots - self.slots / 8
    }

    fn read(&mut self, first: u32) -> Vec<u8> {
        let length = self.slot(first).length as usize;
        let mut record = Vec::with_capacity(length);
        let mut index = first;
        while index != NONE && record.len() < length {
            let slot = self.slot(index);
            let piece = (length - record.len()).min(DATA);
            record.extend_from_slice(&slot.data[..piece]);
            index = slot.more;
        }
        record
    }
}

/// Rebuilds the lists of records from the states of the slots. Drops each incomplete record, whose
/// session died while it was writing the record. Confirms each unconfirmed record, because the
/// crash has rolled back the transaction of the record's session. Returns the records of databases
/// that are not in the region's list.
pub fn rebuild(region: &mut Region) -> Vec<Vec<u8>> {
    let slots = region.slots;
    let mut records: Vec<(u64, u32)> = Vec::new();
    for index in 0..slots {
        let slot = region.slot(index);
        match slot.state {
            RECORD => records.push((slot.sequence, index)),
            RESERVED => records.push((u64::MAX, index)),
            _ => {}
        }
    }
    records.sort_unstable();
    let mut used = vec![false; slots as usize];
    let mut whole = Vec::with_capacity(records.len());
    for (sequence, first) in records {
        if let Some(own) = slots_of(region, first) {
            own.iter().for_each(|&index| used[index as usize] = true);
            if sequence < u64::MAX {
                region.next_sequence = region.next_sequence.max(sequence + 1);
            }
            whole.push((sequence, first, own.len() as u32));
        }
    }
    for database in &mut region.databases {
        (database.first, database.last, database.slots_used) = (NONE, NONE, 0);
    }
    (region.free, region.slots_used) = (NONE, 0);
    for index in (0..slots).rev() {
        if !used[index as usize] {
            let free = region.free;
            let slot = region.slot(index);
            slot.state = FREE;
            slot.more = free;
            region.free = index;
        }
    }
    let mut homeless = Vec::new();
    for (sequence, first, count) in whole {
        let oid = pg_sys::Oid::from(region.slot(first).database);
        region.slots_used += count;
        let Some(place) = region.place_of(oid) else {
            homeless.push(region.read(first));
            region.give_back(first);
            continue;
        };
        region.databases[place].slots_used += count;
        if sequence < u64::MAX {
            append(region, place, first);
        } else {
            region.enqueue(place, first);
        }
    }
    homeless
}

/// Returns the indexes of a record's slots. Returns `None` if one of these slots belongs to another
/// record.
fn slots_of(region: &mut Region, first: u32) -> Option<Vec<u32>> {
    let count = (region.slot(first).length as usize).div_ceil(DATA);
    let mut own = Vec::new();
    let mut index = first;
    while own.len() < count {
        if index >= region.slots || region.slot(index).first != first || own.contains(&index) {
            return None;
        }
        own.push(index);
        index = region.slot(index).more;
    }
    region.slot(*own.last()?).more = NONE;
    Some(own)
}

fn append(region: &mut Region, place: usize, first: u32) {
    region.slot(first).next = NONE;
    let last = region.databases[place].last;
    if last == NONE {
        region.databases[place].first = first;
    } else {
        region.slot(last).next = first;
    }
    region.databases[place].last = first;
}

/// Copies a record into free slots. Returns the error `Closed` if the queue accepts no records, and
/// the error `Full` if too few slots are left for the database.
fn store_for(region: &mut Region, place: usize, record: &[u8]) -> Result<u32, Queued> {
    if region.open == 0 {
        return Err(Queued::Closed);
    }
    let count = record.len().div_ceil(DATA) as u32;
    if region.databases[place].slots_used + count > region.slots_of_each() {
        return Err(Queued::Full);
    }
    let first = region.store(region.databases[place].oid(), record).ok_or(Queued::Full)?;
    region.databases[place].slots_used += count;
    Ok(first)
}

/// Stores an unconfirmed record, and returns the index of the record's first slot. Returns `None`
/// if the queue does not accept the record.
pub fn reserve(database: pg_sys::Oid, record: &[u8]) -> Option<u32> {
    locked(|region| {
        let place = region.place_of(database)?;
        let first = store_for(region, place, record).ok()?;
        region.set_state(first, RESERVED);
        Some(first)
    })
    .flatten()
}

/// Confirms a record, so that the database's worker writes an entry for the record.
pub fn confirm(database: pg_sys::Oid, first: u32) {
    let latch =
        locked(|region| region.place_of(database).map(|place| region.enqueue(place, first)))
            .flatten();
    // SAFETY: `latch` is 0 or the address of a latch that the worker or the launcher has stored.
    unsafe { set_latch(latch.unwrap_or(0)) };
}

/// Removes an unconfirmed record.
pub fn cancel(database: pg_sys::Oid, first: u32) {
    locked(|region| {
        let count = region.give_back(first);
        if let Some(place) = region.place_of(database) {
            region.databases[place].slots_used -= count;
        }
    });
}

/// Stores a confirmed record for the worker of a database. If the queue does not accept the record,
/// counts the record as dropped.
pub fn push(database: pg_sys::Oid, record: &[u8]) -> Queued {
    let done = locked(|region| {
        let Some(place) = region.place_of(database) else { return (Queued::Closed, 0) };
        match store_for(region, place, record) {
            Ok(first) => (Queued::Yes, region.enqueue(place, first)),
            Err(why) => {
                region.databases[place].counts.dropped += 1;
                (why, 0)
            }
        }
    });
    let Some((queued, latch)) = done else { return Queued::Closed };
    // SAFETY: `latch` is 0 or the address of a latch that the worker or the launcher has stored.
    unsafe { set_latch(latch) };
    queued
}

/// Returns copies of the database's oldest records, with the sequence numbers of the records.
/// Copies no more than `most` records, and stops when the copies have at least `bytes` bytes.
pub fn peek(database: pg_sys::Oid, most: usize, bytes: usize) -> Vec<(u64, Vec<u8>)> {
    let mut copies = Vec::new();
    let mut total = 0;
    locked(|region| {
        let Some(place) = region.place_of(database) else { return };
        let mut index = region.databases[place].first;
        while index != NONE && copies.len() < most && total < bytes {
            let record = region.read(index);
            total += record.len();
            let slot = region.slot(index);
            copies.push((slot.sequence, record));
            index = slot.next;
        }
    });
    copies
}

/// Removes the database's records up to the sequence number `through`, and counts them as written.
pub fn pop(database: pg_sys::Oid, through: u64) {
    locked(|region| {
        let Some(place) = region.place_of(database) else { return };
        let mut count = 0;
        loop {
            let first = region.databases[place].first;
            if first == NONE || region.slot(first).sequence > through {
                break;
            }
            remove(region, place, NONE, first);
            count += 1;
        }
        region.databases[place].counts.written += count;
    });
}

/// Removes the records with these sequence numbers, because they concern no watched table. The
/// records no longer count as queued.
pub fn remove_unneeded(database: pg_sys::Oid, sequences: &[u64]) {
    locked(|region| {
        let Some(place) = region.place_of(database) else { return };
        let count = remove_each(region, place, sequences);
        let counts = &mut region.databases[place].counts;
        counts.queued -= count.min(counts.queued);
    });
}

/// Removes the records with these sequence numbers, because they are now in the server's log. The
/// records count as dropped.
pub fn drop_logged(database: pg_sys::Oid, sequences: &[u64]) {
    locked(|region| {
        let Some(place) = region.place_of(database) else { return };
        let count = remove_each(region, place, sequences);
        region.databases[place].counts.dropped += count;
    });
}

/// Removes the record with this sequence number from the queue, because a worker died while it
/// processed the record. The record counts as quarantined and dropped.
pub fn quarantine(database: pg_sys::Oid, sequence: u64) {
    locked(|region| {
        let Some(place) = region.place_of(database) else { return };
        let count = remove_each(region, place, &[sequence]);
        let counts = &mut region.databases[place].counts;
        counts.dropped += count;
        counts.quarantined += count;
    });
}

/// Removes the records with these ascending sequence numbers. Returns the number of removed
/// records.
fn remove_each(region: &mut Region, place: usize, sequences: &[u64]) -> u64 {
    let mut count = 0;
    let (mut previous, mut index) = (NONE, region.databases[place].first);
    for &sequence in sequences {
        while index != NONE && region.slot(index).sequence < sequence {
            (previous, index) = (index, region.slot(index).next);
        }
        if index != NONE && region.slot(index).sequence == sequence {
            index = remove(region, place, previous, index);
            count += 1;
        }
    }
    count
}

/// Removes the record at `index` from the database's list. `previous` is the record before this
/// record, or NONE if this record is the first. Returns the next record, or NONE.
fn remove(region: &mut Region, place: usize, previous: u32, index: u32) -> u32 {
    let next = region.slot(index).next;
    match previous {
        NONE => region.databases[place].first = next,
        previous => region.slot(previous).next = next,
    }
    let slots = region.give_back(index);
    let database = &mut region.databases[place];
    if next == NONE {
        database.last = previous;
    }
    database.slots_used -= slots;
    next
}

/// Returns copies of all records in the region of an earlier server, which this server cannot use
/// as its own queue.
pub fn all(region: &mut Region) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for place in 0..region.databases.len() {
        let mut index = region.databases[place].first;
        while index != NONE {
            all.push(region.read(index));
            index = region.slot(index).next;
        }
    }
    all
}

/// Returns the number of this queue. Sequence numbers of different queues can be equal, so a stored
/// sequence number is valid only together with the number of its queue.
pub fn queue_number() -> i64 {
    locked(|region| region.queue).unwrap_or(0)
}
