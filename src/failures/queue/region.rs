//! The region itself: memory that the postmaster maps when it loads the library, and its children inherit.
//!
//! It is not part of PostgreSQL's own shared memory on purpose: that is made anew when a server process crashes, and what is
//! queued must outlive it. Only the lock is there, so that it is free again after a crash. A record counts from the moment
//! that its state says so, which is the last thing written of it; the lists are worked out again after a crash.
//!
//! Where the system lets it, the memory has a name, so that a server that is started again after even the postmaster was killed
//! finds what was queued.

use super::databases::{Database, MAX_DATABASES};
use super::memory;
use super::pool::{self, Slot};
use crate::settings;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, Ordering};

/// The head of the region. Slots for records follow it.
#[repr(C)]
pub struct Region {
    /// Tells this layout from any other.
    magic: u64,
    /// The cluster that it belongs to.
    system: u64,
    pub slots: u32,
    /// The first slot that is not in use.
    pub free: u32,
    pub slots_used: u32,
    /// Whether records are taken. Only while the launcher is there to see to them.
    pub open: u32,
    /// Tells this life of the queue from every other.
    pub queue: i64,
    pub next_sequence: u64,
    /// Raised whenever a database comes or goes, so that sessions look again.
    pub generation: AtomicU32,
    pub rescan: AtomicU32,
    pub launcher_latch: usize,
    pub databases: [Database; MAX_DATABASES],
}

/// "lead_aud", and the number of the layout.
const MAGIC: u64 = u64::from_be_bytes(*b"leadaud\x03") ^ (size_of::<Region>() as u64) << 8;

const TRANCHE: &CStr = c"lead_audit";

thread_local! {
    static REGION: Cell<*mut Region> = const { Cell::new(std::ptr::null_mut()) };
    static LOCK: Cell<*mut pg_sys::LWLock> = const { Cell::new(std::ptr::null_mut()) };
    /// Whether this process holds the lock.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Asks for the lock, where PostgreSQL allows that.
pub fn request_lock() {
    // SAFETY: called by the hook on requests; the name is static.
    unsafe { pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), 1) }
}

/// At the server's start, and again after a crash of one of its processes.
pub fn start_up() {
    // SAFETY: the tranche was requested above.
    unsafe { LOCK.set(&raw mut (*pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr())).lock) };
    let known = REGION.get();
    if !known.is_null() {
        // SAFETY: mapped below. No other process is alive that could use it.
        return after_crash(unsafe { &mut *known });
    }
    let slots = settings::failure::queue_bytes() / size_of::<Slot>();
    let bytes = size_of::<Region>() + slots * size_of::<Slot>();
    if let Some(mut left) = memory::left_in_other_size(bytes) {
        log_left(&mut left);
    }
    let (memory, is_named) = match memory::named(bytes) {
        Ok(memory) => (memory, true),
        Err(cause) => {
            pgrx::log!("lead_audit: the queue has no memory that outlives the server ({cause}); it is lost if that is killed");
            match memory::anonymous(bytes) {
                Ok(memory) => (memory, false),
                Err(cause) => return pgrx::warning!("lead_audit: no memory for a queue of {bytes} bytes ({cause})"),
            }
        }
    };
    let region = memory.cast::<Region>();
    // SAFETY: the memory is large enough and aligned to a page; it is all zeroes, which is a valid Region, or what a server
    // of this layout left.
    let head = unsafe { &mut *region };
    // SAFETY: reads the control file, which the postmaster has read by now, and the clock.
    let (system, now) = unsafe { (pg_sys::GetSystemIdentifier(), pg_sys::GetCurrentTimestamp()) };
    let is_left = head.magic == MAGIC && head.system == system && head.slots == slots as u32;
    if head.magic != 0 && head.magic != MAGIC && head.system == system {
        pgrx::log!("lead_audit: the queue of a killed server is of another version of the library, and is discarded");
    }
    if !is_left {
        // SAFETY: the memory is `bytes` long.
        unsafe { memory.write_bytes(0, bytes) };
        (head.magic, head.system) = (MAGIC, system);
        (head.slots, head.next_sequence, head.queue) = (slots as u32, 1, now);
    }
    REGION.set(region);
    after_crash(head);
    if is_left && head.slots_used > 0 {
        pgrx::log!("lead_audit: {} KiB of failed operations are left of the server that was killed", head.slots_used);
    }
    if is_named {
        // SAFETY: called when the postmaster ends in an orderly way; its children do not inherit it.
        unsafe { pg_sys::on_proc_exit(Some(at_postmaster_exit), pg_sys::Datum::from(0)) };
    }
}

/// The queue had another size before: what is left in it cannot be taken over, and goes to the log.
fn log_left(left: &mut [u64]) {
    let bytes = size_of_val(left);
    if bytes < size_of::<Region>() {
        return;
    }
    // SAFETY: long enough and aligned for a Region, of which any bytes are valid if the magic number is there.
    let region = unsafe {
        let region = left.as_mut_ptr().cast::<Region>();
        if (&raw const (*region).magic).read() != MAGIC || (&raw const (*region).system).read() != pg_sys::GetSystemIdentifier() {
            return;
        }
        &mut *region
    };
    if bytes < size_of::<Region>() + region.slots as usize * size_of::<Slot>() {
        return;
    }
    let mut records = pool::rebuild(region);
    records.extend(pool::all(region));
    log_lost(&records, "the server was killed, and lead_audit.queue_size changed");
}

fn log_lost(records: &[Vec<u8>], why: &str) {
    for record in records {
        let record = String::from_utf8_lossy(record);
        pgrx::log!("lead_audit: an operation that failed has no audit entry: {why}: {record}");
    }
}

/// The memory's name goes with the server, unless records are left in it.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_postmaster_exit(_code: i32, _argument: pg_sys::Datum) {
    let region = REGION.get();
    // SAFETY: no other process is left that would use it.
    if !region.is_null() && unsafe { (*region).slots_used } == 0 {
        memory::forget_name();
    }
}

/// What named processes, none of which is alive any more, is put right; records stay.
fn after_crash(region: &mut Region) {
    region.open = 0;
    region.launcher_latch = 0;
    for database in &mut region.databases {
        database.forget_processes();
    }
    log_lost(&pool::rebuild(region), "its database has no worker");
}

/// Whether the library was preloaded and has its memory.
pub fn is_there() -> bool {
    !REGION.get().is_null() && !LOCK.get().is_null()
}

/// The lock on the region. It is released with this, by a panic too.
struct Locked;

impl Locked {
    /// Waits for it. `None` where there is no region, and where this process holds the lock already: it would wait for itself.
    fn acquire() -> Option<Self> {
        if !is_there() || HELD.replace(true) {
            return None;
        }
        let held = Locked;
        // SAFETY: the lock is in PostgreSQL's shared memory. It is not held, so that acquiring it raises no error.
        unsafe { pg_sys::LWLockAcquire(LOCK.get(), pg_sys::LWLockMode::LW_EXCLUSIVE) };
        Some(held)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        HELD.set(false);
        // SAFETY: held since `acquire`, unless an error released all locks of the process.
        unsafe {
            if pg_sys::LWLockHeldByMe(LOCK.get()) {
                pg_sys::LWLockRelease(LOCK.get());
            }
        }
    }
}

/// Runs `work` with the region to itself; `None` where there is none, and within itself. `work` is to be quick.
pub fn locked<R>(work: impl FnOnce(&mut Region) -> R) -> Option<R> {
    let _held = Locked::acquire()?;
    // SAFETY: the region lives as long as the process, and under the lock nobody else touches it, but for its atomics: another
    // process would need the lock, and this one does not get it twice.
    Some(work(unsafe { &mut *REGION.get() }))
}

/// The number that changes when a database comes or goes; read without the lock.
pub fn generation() -> u32 {
    let region = REGION.get();
    if region.is_null() {
        return 0;
    }
    // SAFETY: the region lives as long as the process; the field is atomic.
    unsafe { (*region).generation.load(Ordering::Acquire) }
}

/// Sets a latch that another process waits on.
///
/// # Safety
/// `latch` must be 0 or the address of a latch in shared memory.
pub unsafe fn set_latch(latch: usize) {
    if latch != 0 {
        // SAFETY: as the caller promises. A latch of a process that is gone stays where it is, and setting it does no harm.
        unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) }
    }
}

/// Wakes the launcher, and has it look for databases that have come or gone if `rescan`.
pub fn wake_launcher(rescan: bool) {
    let latch = locked(|region| {
        if rescan {
            region.rescan.store(1, Ordering::Release);
        }
        region.launcher_latch
    });
    // SAFETY: the launcher left the address of its own.
    unsafe { set_latch(latch.unwrap_or(0)) }
}

/// Whether somebody asked the launcher to look for databases since the last call.
pub fn rescan_asked() -> bool {
    locked(|region| region.rescan.swap(0, Ordering::AcqRel) != 0).unwrap_or(false)
}

/// The launcher says that it is there.
pub fn launcher_starts() {
    // SAFETY: reads a variable of this process.
    let latch = unsafe { pg_sys::MyLatch } as usize;
    locked(|region| region.launcher_latch = latch);
}

/// The launcher leaves: nobody is woken any more.
pub fn launcher_stops() {
    locked(|region| region.launcher_latch = 0);
}

/// Whether records are taken from now on.
pub fn set_open(open: bool) {
    locked(|region| region.open = u32::from(open));
}
