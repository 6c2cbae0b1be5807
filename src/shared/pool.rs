//! Records on their way to a worker. Each lies in one or more slots of a pool; each database has a list of its own, so that one
//! whose worker is not there holds up no other.
//!
//! A slot's `state` is what counts: the lists are a shortcut, and are made anew from the states after a crash.

use super::region::{Region, locked, set_latch};
use pgrx::pg_sys;

/// Bytes of a record that a slot holds.
const DATA: usize = 1024 - 32;

/// Bytes of a slot.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// No slot.
pub const NONE: u32 = u32::MAX;

/// The slot is free.
const FREE: u32 = 0;
/// A record begins here, and is complete.
const RECORD: u32 = 1;
/// A record goes on here.
const MORE: u32 = 2;

/// One slot.
#[repr(C)]
pub struct Slot {
    state: u32,
    database: u32,
    sequence: u64,
    /// Length of the whole record, in its first slot.
    length: u32,
    /// The next slot of the same record, or of the list of free ones.
    more: u32,
    /// The first slot of the database's next record.
    next: u32,
    unused: u32,
    data: [u8; DATA],
}

/// Whether a record was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queued {
    /// A worker will write it.
    Yes,
    /// There is no room.
    Full,
    /// Nobody is there to write it.
    Closed,
}

impl Region {
    fn slot(&mut self, index: u32) -> &mut Slot {
        debug_assert!(index < self.slots);
        // SAFETY: `slots` slots follow the head in memory; every index comes from a list of these.
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

    /// Copies a record into slots; `None` if there are not enough.
    fn store(&mut self, database: pg_sys::Oid, record: &[u8]) -> Option<u32> {
        let sequence = self.next_sequence;
        let mut first = NONE;
        // From the end to the beginning, so that the first slot's state is the last that is written.
        let pieces = record.chunks(DATA).enumerate().rev();
        for (number, piece) in pieces {
            let Some(index) = self.take_slot() else {
                self.give_back(first);
                return None;
            };
            let slot = self.slot(index);
            slot.data[..piece.len()].copy_from_slice(piece);
            slot.more = first;
            slot.database = database.to_u32();
            slot.sequence = sequence;
            slot.length = record.len() as u32;
            slot.next = NONE;
            std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
            slot.state = if number == 0 { RECORD } else { MORE };
            first = index;
        }
        self.next_sequence += 1;
        Some(first)
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

/// Makes the lists anew from the states of the slots. What was being written when its process died is no record.
pub fn rebuild(region: &mut Region) {
    let mut records: Vec<(u64, u32)> = Vec::new();
    for index in 0..region.slots {
        let slot = region.slot(index);
        if slot.state == RECORD {
            records.push((slot.sequence, index));
        }
    }
    records.sort_unstable();
    let mut used = vec![false; region.slots as usize];
    let slots = region.slots;
    let mut whole = Vec::with_capacity(records.len());
    for (sequence, first) in records {
        let mut own = Vec::new();
        let mut index = first;
        let complete = loop {
            if index >= slots || used[index as usize] || region.slot(index).sequence != sequence {
                break false;
            }
            own.push(index);
            let length = region.slot(first).length as usize;
            if own.len() * DATA >= length {
                break true;
            }
            index = region.slot(index).more;
        };
        if complete {
            own.iter().for_each(|&index| used[index as usize] = true);
            if let Some(&last) = own.last() {
                region.slot(last).more = NONE;
            }
            region.next_sequence = region.next_sequence.max(sequence + 1);
            whole.push((first, own.len() as u32));
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
    for (first, count) in whole {
        let oid = pg_sys::Oid::from(region.slot(first).database);
        region.slots_used += count;
        match region.place_of(oid) {
            Some(place) => append(region, place, first, count),
            None => {
                region.give_back(first);
            }
        }
    }
}

fn append(region: &mut Region, place: usize, first: u32, count: u32) {
    region.slot(first).next = NONE;
    let last = region.databases[place].last;
    if last == NONE {
        region.databases[place].first = first;
    } else {
        region.slot(last).next = first;
    }
    region.databases[place].last = first;
    region.databases[place].slots_used += count;
}

/// Hands a record to the worker of a database, or counts it as dropped.
pub fn push(database: pg_sys::Oid, record: &[u8]) -> Queued {
    let done = locked(|region| {
        let Some(place) = region.place_of(database) else { return (Queued::Closed, 0) };
        if region.open == 0 {
            region.databases[place].counts.dropped += 1;
            return (Queued::Closed, 0);
        }
        let count = record.len().div_ceil(DATA) as u32;
        // One database leaves the others an eighth.
        let fits = region.databases[place].slots_used + count <= region.slots - region.slots / 8;
        let stored = if fits { region.store(database, record) } else { None };
        let Some(first) = stored else {
            region.databases[place].counts.dropped += 1;
            return (Queued::Full, 0);
        };
        let was_empty = region.databases[place].first == NONE;
        append(region, place, first, count);
        region.databases[place].counts.queued += 1;
        (Queued::Yes, if was_empty { region.databases[place].latch } else { 0 })
    });
    let Some((queued, latch)) = done else { return Queued::Closed };
    // SAFETY: the worker left the address of its own.
    unsafe { set_latch(latch) };
    queued
}

/// Copies of the database's oldest records with their sequence numbers, up to so many and so many bytes.
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

/// Takes off the records up to a sequence number. They were written, but for those that are only in the server's log, and
/// those that turned out to be none: these were not queued.
pub fn pop(database: pg_sys::Oid, through: u64, dropped: u64, none: u64) {
    locked(|region| {
        let Some(place) = region.place_of(database) else { return };
        let count = take_off(region, place, through);
        let counts = &mut region.databases[place].counts;
        counts.written += count.saturating_sub(dropped + none);
        counts.dropped += dropped;
        counts.queued -= none.min(counts.queued);
    });
}

/// Takes off the records up to a sequence number, which an earlier worker wrote before it died. Returns how many there were.
pub fn discard_through(database: pg_sys::Oid, through: u64) -> u64 {
    locked(|region| {
        let Some(place) = region.place_of(database) else { return 0 };
        let count = take_off(region, place, through);
        region.databases[place].counts.written += count;
        count
    })
    .unwrap_or(0)
}

fn take_off(region: &mut Region, place: usize, through: u64) -> u64 {
    let mut count = 0;
    loop {
        let first = region.databases[place].first;
        if first == NONE || region.slot(first).sequence > through {
            return count;
        }
        let next = region.slot(first).next;
        let slots = region.give_back(first);
        let database = &mut region.databases[place];
        database.first = next;
        database.slots_used -= slots;
        if next == NONE {
            database.last = NONE;
        }
        count += 1;
    }
}

/// Whether nothing waits for a database.
pub fn is_empty_for(database: pg_sys::Oid) -> bool {
    locked(|region| region.place_of(database).is_none_or(|place| region.databases[place].first == NONE)).unwrap_or(true)
}

/// Takes everything that waits for a database off, uncounted records becoming dropped ones: for who writes them to the log.
pub fn take_all(database: pg_sys::Oid) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    locked(|region| {
        let Some(place) = region.place_of(database) else { return };
        let mut index = region.databases[place].first;
        while index != NONE {
            all.push(region.read(index));
            index = region.slot(index).next;
        }
        let count = take_off(region, place, u64::MAX);
        region.databases[place].counts.dropped += count;
    });
    all
}

/// Copies of all records, for a queue that nobody uses any more.
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

/// Whether records are taken from now on.
pub fn set_open(open: bool) {
    locked(|region| region.open = u32::from(open));
}

/// The number by which a database tells this queue's sequence numbers from another's.
pub fn queue_number() -> i64 {
    locked(|region| region.queue).unwrap_or(0)
}
