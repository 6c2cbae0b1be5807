//! The region, which is the memory that all processes of the server share: its layout and its lock.
//! `startup` maps the region.
//!
//! One lock protects the whole region. A process holds the lock no longer than it takes to copy
//! some records. Fields that are read without the lock are atomic.

use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The largest number of databases that have workers.
pub const MAX_DATABASES: usize = 256;

/// Whether a database has the extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Presence {
    /// No worker has looked yet, or the extension may have been dropped.
    Unknown = 0,
    /// A process found the extension.
    Present = 1,
}

/// The reason why a database has no running worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Problem {
    /// The worker runs, or is about to start.
    None = 0,
    /// All background processes that max_worker_processes allows are in use. The database waits for
    /// its turn.
    NoProcess = 1,
    /// The worker ended with an error. The launcher restarts it a little later.
    Failed = 2,
}

/// The way in which the last worker of a database ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum WorkerExit {
    /// The worker still runs, or it died.
    Unknown = 0,
    /// The worker did not find the extension.
    NoExtension = 1,
    /// The worker was asked to end.
    Stopped = 2,
    /// The worker ended after its turn, so that another database can have a worker.
    GaveWay = 3,
}

/// The stage that a worker has reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// The worker connects to its database.
    Connecting = 0,
    /// The worker runs its tasks for the first time.
    Connected = 1,
    /// The worker has run each task at least once.
    HasWorked = 2,
}

/// One database of the list. In a free place, `oid` is 0.
#[repr(C)]
pub struct Database {
    pub oid: u32,
    pub presence: Presence,
    pub problem: Problem,
    pub last_exit: WorkerExit,
    /// The worker's process id, or 0.
    pub worker: i32,
    /// Whether the worker will soon look for records without being woken. This field and the next
    /// three use bytes that were padding in earlier versions, so this version can read their
    /// queues.
    pub looks_again: bool,
    pub stage: Stage,
    /// Whether the launcher has asked the worker to end, because another database waits for its
    /// turn.
    pub gives_way: bool,
    /// One bit for each task: whether the server's log already contained the task's error when the
    /// worker gave way.
    pub reported: u8,
    pub latch: usize,
    /// The process id of the session that holds the database, or 0. Such a session runs a command
    /// during which the database must have no worker, for example DROP DATABASE.
    pub held_by: i32,
    /// The first slot of the database's oldest record.
    pub first: u32,
    pub last: u32,
    pub slots_used: u32,
    pub counts: Counts,
    /// The records that the worker is processing.
    pub progress: Progress,
    /// A Bloom filter of the names of watched tables, in lower case.
    pub names: [AtomicU64; NAME_WORDS],
}

/// The records that a worker is processing. The values stay when the worker dies, so that the next
/// worker knows which record may have ended this worker.
#[repr(C)]
pub struct Progress {
    /// The number of the record that the worker is turning into an entry, or 0.
    processing: AtomicU64,
    /// The number of the last record of the transaction that the worker is writing, or 0.
    writing: AtomicU64,
}

impl Progress {
    /// Sets both numbers. Takes no lock, so a signal handler can call the function.
    pub fn set(&self, processing: u64, writing: u64) {
        self.writing.store(writing, Ordering::Release);
        self.processing.store(processing, Ordering::Release);
    }

    /// Returns the numbers of the record being processed and of the last record of the transaction
    /// being written. 0 means none.
    pub fn get(&self) -> (u64, u64) {
        (self.processing.load(Ordering::Acquire), self.writing.load(Ordering::Acquire))
    }
}

/// The size of the name filter, in words of 64 bits.
pub const NAME_WORDS: usize = 32;

/// Counts of a database's records since the server was started.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Counts {
    /// Records that the queue has accepted.
    pub queued: u64,
    /// Records that were written as entries.
    pub written: u64,
    /// Records that got no entry. Nearly all of them are in the server's log.
    pub dropped: u64,
    /// Those of the dropped records that ended a worker.
    pub quarantined: u64,
}

impl Database {
    /// Returns the database's oid.
    pub fn oid(&self) -> pg_sys::Oid {
        pg_sys::Oid::from(self.oid)
    }

    /// Returns whether records wait for the worker.
    pub fn has_records(&self) -> bool {
        self.first != NONE
    }

    /// Returns the size of the slots that the database's records occupy, in bytes.
    pub fn waiting_bytes(&self) -> u64 {
        u64::from(self.slots_used) * SLOT_BYTES as u64
    }

    /// Clears the fields that describe processes. The function is called when these processes no
    /// longer exist.
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

/// The number of bytes of a record that a slot holds.
pub const DATA: usize = 1024 - 32;

/// The size of a slot, in bytes.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// The index that means no slot.
pub const NONE: u32 = u32::MAX;

/// One slot of the region. A record occupies one or more slots.
#[repr(C)]
pub struct Slot {
    pub state: u32,
    pub database: u32,
    pub sequence: u64,
    /// The length of the whole record, in bytes.
    pub length: u32,
    /// The next slot of the same record, or of the free list.
    pub more: u32,
    /// The first slot of the database's next record.
    pub next: u32,
    /// The record's first slot.
    pub first: u32,
    pub data: [u8; DATA],
}

/// The head of the region. The slots follow the head in memory.
#[repr(C)]
pub struct Region {
    /// The number that identifies the layout: MAGIC in `startup`.
    pub magic: u64,
    /// The system identifier of the cluster that the region belongs to.
    pub system: u64,
    pub slots: u32,
    /// The first slot of the free list.
    pub free: u32,
    pub slots_used: u32,
    /// 1 while the queue accepts records, which is only while the launcher runs. Otherwise 0.
    pub open: u32,
    /// The number of this queue, which differs from that of earlier queues of the same cluster. It
    /// is the time at which the queue was made.
    pub queue: i64,
    pub next_sequence: u64,
    /// A number that is incremented when the set of databases with the extension may have changed.
    /// Sessions then check again whether their database has the extension.
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

/// Sets the address of the region's lock.
pub fn set_lock(lock: *mut pg_sys::LWLock) {
    LOCK.set(lock);
}

/// Returns whether the library was preloaded and the region is mapped.
pub fn is_there() -> bool {
    !REGION.get().is_null() && !LOCK.get().is_null()
}

/// A guard that holds the region's lock. Dropping the guard releases the lock, also during a panic.
struct Locked;

impl Locked {
    /// Acquires the lock, and waits if another process holds it. `None` if there is no region, or
    /// if this process already holds the lock and would wait for itself.
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
        // SAFETY: this process has held the lock since `acquire`, unless an error has released all
        // of its locks.
        unsafe {
            if pg_sys::LWLockHeldByMe(LOCK.get()) {
                pg_sys::LWLockRelease(LOCK.get());
            }
        }
    }
}

/// Runs `work` with exclusive access to the region. `None` if there is no region, or if the call is
/// made within another call's `work`. `work` must be quick.
pub fn locked<R>(work: impl FnOnce(&mut Region) -> R) -> Option<R> {
    let _held = Locked::acquire()?;
    // SAFETY: the region lives as long as the process. While this process holds the lock, other
    // processes access only atomic fields, and this process cannot acquire the lock a second time.
    Some(work(unsafe { &mut *REGION.get() }))
}

/// Returns the region's generation: the number that changes when the set of databases with the
/// extension may have changed. Takes no lock.
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
        // outlives its process, and setting the latch of an ended process does no harm.
        unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) }
    }
}

/// Wakes the launcher. With `rescan` the launcher also looks for databases that were created or
/// dropped.
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

/// Returns whether a process has asked the launcher to look for databases since the last call.
pub fn rescan_asked() -> bool {
    locked(|region| region.rescan.swap(0, Ordering::AcqRel) != 0).unwrap_or(false)
}

/// Stores the latch of this process, which is the launcher.
pub fn launcher_starts() {
    // SAFETY: the code only reads a variable of this process.
    let latch = unsafe { pg_sys::MyLatch } as usize;
    locked(|region| region.launcher_latch = latch);
}

/// Removes the launcher's latch when it ends.
pub fn launcher_stops() {
    locked(|region| region.launcher_latch = 0);
}

/// Sets whether the queue accepts records.
pub fn set_open(open: bool) {
    locked(|region| region.open = u32::from(open));
}
