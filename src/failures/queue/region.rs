//! The region: the memory that the server's processes share, its layout and its lock. `startup`
//! maps it.
//!
//! One lock protects everything. It is held no longer than it takes to copy a record. Fields that
//! are read without the lock are atomic.

use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The largest number of databases that have workers.
pub const MAX_DATABASES: usize = 256;

/// Whether the extension is in a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Presence {
    /// No worker has looked yet.
    Unknown = 0,
    /// A worker found the extension.
    Present = 1,
}

/// Why a database's worker does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Problem {
    /// It runs, or is about to start.
    None = 0,
    /// All max_worker_processes are in use. The database waits for its turn.
    NoProcess = 1,
    /// It ended with an error and is restarted a little later.
    Failed = 2,
}

/// How the last worker of a database ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum WorkerExit {
    /// It still runs, or it died.
    Unknown = 0,
    /// The extension is not in this database.
    NoExtension = 1,
    /// It was asked to end.
    Stopped = 2,
    /// It had its turn, and left its process to another database.
    GaveWay = 3,
}

/// How far a worker has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// It connects to its database.
    Connecting = 0,
    /// It runs its tasks for the first time.
    Connected = 1,
    /// It has run all tasks.
    HasWorked = 2,
}

/// One database. A free place is all zeroes.
#[repr(C)]
pub struct Database {
    pub oid: u32,
    pub presence: Presence,
    pub problem: Problem,
    pub last_exit: WorkerExit,
    /// The worker's process id, or 0.
    pub worker: i32,
    /// Whether the worker will look for records soon without being woken. This field and the next
    /// three use bytes that were padding, so the queue of an earlier version can be read.
    pub looks_again: bool,
    pub stage: Stage,
    /// Whether the launcher has asked the worker to leave, since another database waits.
    pub gives_way: bool,
    /// The tasks with an error that the log already contains, one bit each, when the worker gave
    /// way.
    pub reported: u8,
    pub latch: usize,
    /// The process id of a session that drops or renames the database and needs it without a
    /// worker, or 0.
    pub held_by: i32,
    /// The first slot of the database's oldest record.
    pub first: u32,
    pub last: u32,
    pub slots_used: u32,
    pub counts: Counts,
    /// What the worker is working on.
    pub progress: Progress,
    /// A Bloom filter of the names of watched tables, in lower case.
    pub names: [AtomicU64; NAME_WORDS],
}

/// The records that a worker is working on. Kept when the worker dies, so that the next worker
/// knows which record may have caused it.
#[repr(C)]
pub struct Progress {
    /// The number of the record whose entry is being made, or 0.
    processing: AtomicU64,
    /// The number of the last record of the batch that is being written, or 0.
    writing: AtomicU64,
}

impl Progress {
    /// Sets both numbers. Takes no lock, so a signal handler can call it.
    pub fn set(&self, processing: u64, writing: u64) {
        self.writing.store(writing, Ordering::Release);
        self.processing.store(processing, Ordering::Release);
    }

    /// The record being processed, and the last record of the batch being written. 0 means none.
    pub fn get(&self) -> (u64, u64) {
        (self.processing.load(Ordering::Acquire), self.writing.load(Ordering::Acquire))
    }
}

/// Size of the name filter, in words.
pub const NAME_WORDS: usize = 32;

/// Counts of a database's records since the server was started.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Counts {
    /// Taken into the queue.
    pub queued: u64,
    /// Written as entries.
    pub written: u64,
    /// Only in the server's log.
    pub dropped: u64,
    /// The dropped records that ended a worker.
    pub quarantined: u64,
}

impl Database {
    /// The database's oid.
    pub fn oid(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.oid)
    }

    /// Whether records wait for the worker.
    pub fn has_records(&self) -> bool {
        self.first != NONE
    }

    /// Size in bytes of the database's records.
    pub fn waiting_bytes(&self) -> u64 {
        u64::from(self.slots_used) * SLOT_BYTES as u64
    }

    /// After a crash: clears the fields that name processes, which no longer exist.
    pub fn forget_processes(&mut self) {
        (self.worker, self.latch, self.held_by) = (0, 0, 0);
        (self.looks_again, self.gives_way, self.reported) = (false, false, 0);
        self.stage = Stage::Connecting;
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

/// How many bytes of a record a slot holds.
pub const DATA: usize = 1024 - 32;

/// Bytes of a slot.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// The index that means no slot.
pub const NONE: u32 = u32::MAX;

/// One slot of the pool.
#[repr(C)]
pub struct Slot {
    pub state: u32,
    pub database: u32,
    pub sequence: u64,
    /// Length of the whole record, in its first slot.
    pub length: u32,
    /// The next slot of the same record, or of the free list.
    pub more: u32,
    /// The first slot of the database's next record.
    pub next: u32,
    /// The record's first slot.
    pub first: u32,
    pub data: [u8; DATA],
}

/// The head of the region. The slots follow it in memory.
#[repr(C)]
pub struct Region {
    /// Distinguishes this layout from others.
    pub magic: u64,
    /// The identifier of the cluster that the region belongs to.
    pub system: u64,
    pub slots: u32,
    /// The first slot of the free list.
    pub free: u32,
    pub slots_used: u32,
    /// Whether records are accepted. True only while the launcher runs.
    pub open: u32,
    /// Distinguishes this queue from earlier ones of the same cluster.
    pub queue: i64,
    pub next_sequence: u64,
    /// Incremented when the databases with the extension may have changed, so that sessions look
    /// again.
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

/// Sets the address at which the region is mapped.
pub fn set_region(region: *mut Region) {
    REGION.set(region);
}

/// The region's address, or null.
pub fn address() -> *mut Region {
    REGION.get()
}

/// Sets the lock.
pub fn set_lock(lock: *mut pg_sys::LWLock) {
    LOCK.set(lock);
}

/// Whether the library was preloaded and the region is mapped.
pub fn is_there() -> bool {
    !REGION.get().is_null() && !LOCK.get().is_null()
}

/// The lock on the region. Dropping this releases it, after a panic too.
struct Locked;

impl Locked {
    /// Waits for the lock. `None` if there is no region, or if this process already holds the lock
    /// and would wait for itself.
    fn acquire() -> Option<Self> {
        if !is_there() || HELD.replace(true) {
            return None;
        }
        let held = Locked;
        // SAFETY: the lock is in PostgreSQL's shared memory. This process does not hold it, so
        // acquiring it raises no error.
        unsafe { pg_sys::LWLockAcquire(LOCK.get(), pg_sys::LWLockMode::LW_EXCLUSIVE) };
        Some(held)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        HELD.set(false);
        // SAFETY: held since `acquire`, unless an error has released all locks of the process.
        unsafe {
            if pg_sys::LWLockHeldByMe(LOCK.get()) {
                pg_sys::LWLockRelease(LOCK.get());
            }
        }
    }
}

/// Runs `work` with exclusive access to the region. `None` if there is no region, or if called
/// within `work`. `work` must be quick.
pub fn locked<R>(work: impl FnOnce(&mut Region) -> R) -> Option<R> {
    let _held = Locked::acquire()?;
    // SAFETY: the region lives as long as the process. Under the lock only its atomics are accessed
    // by others: other processes need the lock, and this process cannot take it twice.
    Some(work(unsafe { &mut *REGION.get() }))
}

/// The number that changes when the databases with the extension may have changed. Read without the
/// lock.
pub fn generation() -> u32 {
    let region = REGION.get();
    if region.is_null() {
        return 0;
    }
    // SAFETY: the region lives as long as the process, and the field is atomic.
    unsafe { (*region).generation.load(Ordering::Acquire) }
}

/// Sets the latch of another process.
///
/// # Safety
/// `latch` must be 0 or the address of a latch in shared memory.
pub unsafe fn set_latch(latch: usize) {
    if latch != 0 {
        // SAFETY: `latch` is the address of a latch in shared memory (see # Safety). A latch
        // outlives its process, and setting it then does no harm.
        unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) }
    }
}

/// Wakes the launcher. With `rescan` it looks for databases that were created or dropped.
pub fn wake_launcher(rescan: bool) {
    let latch = locked(|region| {
        if rescan {
            region.rescan.store(1, Ordering::Release);
        }
        region.launcher_latch
    });
    // SAFETY: the launcher stored the address of its own latch.
    unsafe { set_latch(latch.unwrap_or(0)) }
}

/// Whether the launcher was asked to look for databases since the last call.
pub fn rescan_asked() -> bool {
    locked(|region| region.rescan.swap(0, Ordering::AcqRel) != 0).unwrap_or(false)
}

/// Stores the launcher's latch.
pub fn launcher_starts() {
    // SAFETY: reads a variable of this process.
    let latch = unsafe { pg_sys::MyLatch } as usize;
    locked(|region| region.launcher_latch = latch);
}

/// Removes the launcher's latch when it ends.
pub fn launcher_stops() {
    locked(|region| region.launcher_latch = 0);
}

/// Sets whether records are accepted.
pub fn set_open(open: bool) {
    locked(|region| region.open = u32::from(open));
}
