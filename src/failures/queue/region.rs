//! The region: the memory that the server's processes share, its layout, and the lock on it.
//! `startup` maps it.
//!
//! Everything is done under one lock, held for as long as it takes to copy a record. What is read
//! without it is atomic.

use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many databases there is room for. Each takes a worker process, so this is far beyond what a
/// server has.
pub const MAX_DATABASES: usize = 256;

/// Whether the extension is in a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Presence {
    /// Not looked at yet.
    Unknown = 0,
    /// A worker found it there.
    Present = 1,
}

/// Why a worker that ought to run does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Problem {
    /// It does, or will in a moment.
    None = 0,
    /// max_worker_processes are in use.
    NoProcess = 1,
    /// It ended with an error, and is started again a little later.
    Failed = 2,
}

/// How the last worker of a database ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum WorkerExit {
    /// It runs, or died without a word.
    Unknown = 0,
    /// The extension is not in this database.
    NoExtension = 1,
    /// It was asked to end.
    Stopped = 2,
}

/// One database. All zeroes is a place that is free.
#[repr(C)]
pub struct Database {
    pub oid: u32,
    pub presence: Presence,
    pub problem: Problem,
    pub last_exit: WorkerExit,
    /// The worker's process, or 0.
    pub worker: i32,
    /// Whether the worker looks for records before long although nobody wakes it. Here it fills
    /// what would be a gap, so that a queue that was left by a server of before can be read.
    pub looks_again: u32,
    pub latch: usize,
    /// A session that needs the database without our worker: while it drops or renames it.
    pub held_by: i32,
    /// The list of its records.
    pub first: u32,
    pub last: u32,
    pub slots_used: u32,
    pub counts: Counts,
    /// What the worker is busy with.
    pub progress: Progress,
    /// A Bloom filter of the names of watched tables, in lower case.
    pub names: [AtomicU64; NAME_WORDS],
}

/// What a worker is busy with. It stays when the worker dies, so that the next one knows what the
/// first may have died of.
#[repr(C)]
pub struct Progress {
    /// The record that it makes an entry of, by its number, or 0.
    processing: AtomicU64,
    /// The last of the records whose entries it writes together, by its number, or 0.
    writing: AtomicU64,
}

impl Progress {
    /// Says what it is. Takes no lock, so that a signal handler can do it.
    pub fn set(&self, processing: u64, writing: u64) {
        self.writing.store(writing, Ordering::Release);
        self.processing.store(processing, Ordering::Release);
    }

    /// The record that is processed, and the last of those that are written; 0 is none.
    pub fn get(&self) -> (u64, u64) {
        (self.processing.load(Ordering::Acquire), self.writing.load(Ordering::Acquire))
    }
}

/// Words of the filter.
pub const NAME_WORDS: usize = 32;

/// What became of the records of a database since the server was started.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Counts {
    /// Taken into the queue.
    pub queued: u64,
    /// Written as entries.
    pub written: u64,
    /// Only in the server's log.
    pub dropped: u64,
    /// Of these, what a worker died of.
    pub quarantined: u64,
}

impl Database {
    /// Its oid.
    pub fn oid(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.oid)
    }

    /// Memory that its records take.
    pub fn waiting_bytes(&self) -> u64 {
        u64::from(self.slots_used) * SLOT_BYTES as u64
    }

    /// Nothing of what names processes is true after a crash.
    pub fn forget_processes(&mut self) {
        (self.worker, self.latch, self.held_by) = (0, 0, 0);
        self.looks_again = 0;
        (self.problem, self.last_exit) = (Problem::None, WorkerExit::Unknown);
    }

    pub fn begin(&mut self, oid: pg_sys::Oid) {
        self.oid = oid.to_u32();
        self.presence = Presence::Unknown;
        self.forget_processes();
        (self.first, self.last, self.slots_used) = (NONE, NONE, 0);
        self.counts = Counts::default();
        self.progress.set(0, 0);
        self.names.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

/// Bytes of a record that a slot holds.
pub const DATA: usize = 1024 - 32;

/// Bytes of a slot.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// No slot.
pub const NONE: u32 = u32::MAX;

/// One slot.
#[repr(C)]
pub struct Slot {
    pub state: u32,
    pub database: u32,
    pub sequence: u64,
    /// Length of the whole record, in its first slot.
    pub length: u32,
    /// The next slot of the same record, or of the list of free ones.
    pub more: u32,
    /// The first slot of the database's next record.
    pub next: u32,
    /// The record's first slot.
    pub first: u32,
    pub data: [u8; DATA],
}

/// The head of the region. Slots for records follow it.
#[repr(C)]
pub struct Region {
    /// Tells this layout from any other.
    pub magic: u64,
    /// The cluster that it belongs to.
    pub system: u64,
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

thread_local! {
    static REGION: Cell<*mut Region> = const { Cell::new(std::ptr::null_mut()) };
    static LOCK: Cell<*mut pg_sys::LWLock> = const { Cell::new(std::ptr::null_mut()) };
    /// Whether this process holds the lock.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// The region is mapped at this address.
pub fn set_region(region: *mut Region) {
    REGION.set(region);
}

/// The region's address, or null.
pub fn address() -> *mut Region {
    REGION.get()
}

/// The lock is there.
pub fn set_lock(lock: *mut pg_sys::LWLock) {
    LOCK.set(lock);
}

/// Whether the library was preloaded and has its memory.
pub fn is_there() -> bool {
    !REGION.get().is_null() && !LOCK.get().is_null()
}

/// The lock on the region. It is released with this, by a panic too.
struct Locked;

impl Locked {
    /// Waits for it. `None` where there is no region, and where this process holds the lock
    /// already: it would wait for itself.
    fn acquire() -> Option<Self> {
        if !is_there() || HELD.replace(true) {
            return None;
        }
        let held = Locked;
        // SAFETY: the lock is in PostgreSQL's shared memory. It is not held, so that acquiring it
        // raises no error.
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

/// Runs `work` with the region to itself; `None` where there is none, and within itself. `work` is
/// to be quick.
pub fn locked<R>(work: impl FnOnce(&mut Region) -> R) -> Option<R> {
    let _held = Locked::acquire()?;
    // SAFETY: the region lives as long as the process, and under the lock nobody else touches it,
    // but for its atomics: another process would need the lock, and this one does not get it twice.
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
        // SAFETY: as the caller promises. A latch of a process that is gone stays where it is, and
        // setting it does no harm.
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
