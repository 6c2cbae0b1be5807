//! Maps the region when the server starts. The postmaster maps the region, and its child processes
//! inherit the mapping.
//!
//! The region is deliberately not in PostgreSQL's own shared memory. When a server process crashes,
//! PostgreSQL recreates its shared memory, but the queued records must survive the crash. Only the
//! region's lock is in PostgreSQL's shared memory. PostgreSQL recreates this lock after a crash, so
//! no dead process holds it. A session writes the state of a record after all other parts of the
//! record. After a crash, the state therefore shows whether the record is complete, and incomplete
//! records are dropped. The region's lists of records are rebuilt after a crash.
//!
//! If the operating system supports named shared memory, the region has a name. In a region with a
//! name, queued records survive even if the postmaster is killed.

use super::region::{Region, Slot, address, set_lock, set_region};
use super::{shared_memory, slots};
use crate::settings;
use pgrx::pg_sys;
use std::ffi::CStr;

/// A number that identifies the layout of the region. The number combines the bytes "leadaud", the
/// version of the layout, and the size of Region.
const MAGIC: u64 = u64::from_be_bytes(*b"leadaud\x03") ^ (size_of::<Region>() as u64) << 8;

const TRANCHE: &CStr = c"lead_audit";

/// Requests the region's lock. The shmem_request hook calls the function, because only this hook
/// may request a lock.
pub fn request_lock() {
    // SAFETY: the shmem_request hook calls this function, and the name is static.
    unsafe { pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), 1) }
}

/// Maps the region when the server starts, and repairs the region after a crash of a server
/// process.
pub fn start_up() {
    // SAFETY: `request_lock` requested the tranche.
    unsafe { set_lock(&raw mut (*pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr())).lock) };
    let known = address();
    if !known.is_null() {
        // SAFETY: `known` is the address of the region that an earlier call has mapped. No other
        // process that could use the region is alive.
        return after_crash(unsafe { &mut *known });
    }
    let slots = settings::failures::queue_bytes() / size_of::<Slot>();
    let bytes = size_of::<Region>() + slots * size_of::<Slot>();
    if let Some(mut left) = shared_memory::left_in_other_size(bytes) {
        log_left(&mut left);
    }
    let (memory, is_named) = match shared_memory::named(bytes) {
        Ok(memory) => (memory, true),
        Err(cause) => {
            pgrx::log!(
                "lead_audit: the queue has no memory that outlives the server ({cause}); \
                 it is lost if that is killed"
            );
            match shared_memory::anonymous(bytes) {
                Ok(memory) => (memory, false),
                Err(cause) => {
                    return pgrx::warning!(
                        "lead_audit: no memory for a queue of {bytes} bytes ({cause})"
                    );
                }
            }
        }
    };
    let region = memory.cast::<Region>();
    // SAFETY: the memory is large enough and aligned to a page. An earlier server may have left a
    // region of another layout, but the code reads only integers, for which every byte sequence is
    // valid.
    let (magic, left_by, left_slots) = unsafe {
        (
            (&raw const (*region).magic).read(),
            (&raw const (*region).system).read(),
            (&raw const (*region).slots).read(),
        )
    };
    // SAFETY: the code reads the clock, and a value of the control file, which the postmaster has
    // already read.
    let (system, now) = unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::GetCurrentTimestamp()) };
    let is_left = magic == MAGIC && left_by == system && left_slots == slots as u32;
    if magic != 0 && magic != MAGIC && left_by == system {
        pgrx::log!(
            "lead_audit: the queue of a killed server is of another version of the library, \
             and is discarded"
        );
    }
    if !is_left {
        // SAFETY: the memory has `bytes` bytes.
        unsafe { memory.write_bytes(0, bytes) };
    }
    // SAFETY: the memory is a region of this layout, or consists of zeroes, which are also a valid
    // Region.
    let head = unsafe { &mut *region };
    if !is_left {
        (head.magic, head.system) = (MAGIC, system);
        (head.slots, head.next_sequence, head.queue) = (slots as u32, 1, now);
    }
    set_region(region);
    after_crash(head);
    if is_left && head.slots_used > 0 {
        pgrx::log!(
            "lead_audit: {} KiB of failed operations are left of the server that was killed",
            head.slots_used
        );
    }
    if is_named {
        // SAFETY: PostgreSQL calls `at_postmaster_exit` when the postmaster exits normally. Child
        // processes do not inherit the callback.
        unsafe { pg_sys::on_proc_exit(Some(at_postmaster_exit), pg_sys::Datum::from(0)) };
    }
}

/// Writes the records in the queue of an earlier server to the server's log. The function is called
/// if the new queue has another size than the earlier queue, and therefore cannot take over the
/// records.
fn log_left(left: &mut [u64]) {
    let bytes = size_of_val(left);
    if bytes < size_of::<Region>() {
        return;
    }
    // SAFETY: the memory is long enough and aligned for a Region. If the memory begins with the
    // right magic number, the bytes of the memory are a valid Region.
    let region = unsafe {
        let region = left.as_mut_ptr().cast::<Region>();
        if (&raw const (*region).magic).read() != MAGIC
            || (&raw const (*region).system).read() != pg_sys::GetSystemIdentifier()
        {
            return;
        }
        &mut *region
    };
    if bytes < size_of::<Region>() + region.slots as usize * size_of::<Slot>() {
        return;
    }
    let mut records = slots::rebuild(region);
    records.extend(slots::all(region));
    log_lost(&records, "the server was killed, and lead_audit.queue_size changed");
}

fn log_lost(records: &[Vec<u8>], why: &str) {
    for record in records {
        let record = String::from_utf8_lossy(record);
        pgrx::log!("lead_audit: an operation that failed has no audit entry: {why}: {record}");
    }
}

/// Removes the name of the region's memory when the server shuts down. Keeps the name if records
/// are left in the region.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_postmaster_exit(_code: i32, _argument: pg_sys::Datum) {
    let region = address();
    // SAFETY: no other process that could use the region is alive at this time.
    if !region.is_null() && unsafe { (*region).slots_used } == 0 {
        shared_memory::forget_name();
    }
}

/// Clears the fields of the region that describe processes, because no process of the server has
/// survived the crash. Keeps the records of each database that the region's list contains. Writes
/// the records of all other databases to the server's log.
fn after_crash(region: &mut Region) {
    region.open = 0;
    region.launcher_latch = 0;
    for database in &mut region.databases {
        database.forget_processes();
    }
    log_lost(&slots::rebuild(region), "its database has no worker");
}
