//! Defines the layout and the lock of the region. The region is the memory of the queue, which all
//! processes of the server share. The module `startup` maps the region.
//!
//! One lock protects the whole region. A process holds the region's lock only for a short time. The
//! longest work under the lock is to copy some records. Fields of the region that processes read
//! without the lock are atomic.

use pgrx::pg_sys;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The maximum number of databases in the region's list. Only a database of this list can have a
/// worker.
pub const MAX_DATABASES: usize = 256;

/// Whether a database has the extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Presence {
    /// No worker has looked for the extension yet, or the extension may have been dropped.
    Unknown = 0,
    /// A process found the extension in the database.
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
    /// The last worker ended with an error. The launcher starts a new worker a little later.
    Failed = 2,
}

/// The way in which the last worker of a database ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum WorkerExit {
    /// The worker still runs, or it ended with an error or a crash.
    Unknown = 0,
    /// The worker did not find the extension.
    NoExtension = 1,
    /// The worker ended without an error, usually because it was asked to end.
    Stopped = 2,
    /// The worker ended after its turn, so that another database can have a worker.
    GaveWay = 3,
}

/// The stage that a worker has reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// The worker is still connecting to its database.
    Connecting = 0,
    /// The worker has connected to its database, and is running its tasks for the first time.
    Connected = 1,
    /// The worker has run each task at least once.
    HasWorked = 2,
}

/// One element of the region's list of databases. In a free element, `oid` is 0.
#[repr(C)]
pub struct Database {
    pub oid: u32,
    pub presence: Presence,
    pub problem: Problem,
    pub last_exit: WorkerExit,
    /// The process id of the database's worker, or 0 if the database has no worker.
    pub worker: i32,
    /// Whether the worker will soon look for records even if no session wakes the worker, because
    /// the worker is running a task or pauses only briefly. The fields `looks_again`, `stage`,
    /// `gives_way` and `reported` use bytes that were padding in earlier versions of the library.
    /// `Database` has the same layout as in earlier versions, so this version can read the queues
    /// of earlier versions.
    pub looks_again: bool,
    pub stage: Stage,
    /// Whether the launcher has asked the worker to end, because another database waits for its
    /// turn.
    pub gives_way: bool,
    /// One bit for each task of the worker. A bit is set if the task failed when the previous
    /// worker ran the task for the last time. The previous worker has logged this error.
    pub reported: u8,
    pub latch: usize,
    /// The process id of the session that holds the database, or 0 if no session holds the
    /// database. A session that holds a database runs a command during which the database must have
    /// no worker, for example DROP DATABASE.
    pub held_by: i32,
    /// The index of the first slot of the database's oldest record.
    pub first: u32,
    pub last: u32,
    pub slots_used: u32,
    pub counts: Counts,
    /// The sequence numbers of the records that the worker is processing.
    pub progress: Progress,
    /// The name filter, which is a Bloom filter of the names of watched tables in lower case.
    pub names: [AtomicU64; NAME_WORDS],
}

/// The sequence numbers of the records that a worker is processing. When the worker dies, the
/// sequence numbers stay in the region. From the sequence numbers, the next worker learns which
/// record may have made the previous worker die.
#[repr(C)]
pub struct Progress {
    /// The sequence number of the record that the worker is turning into an entry, or 0.
    processing: AtomicU64,
    /// The sequence number of the last record whose entry the worker writes in the current
    /// transaction, or 0.
    writing: AtomicU64,
}

impl Progress {
    /// Sets `processing` and `writing`. Takes no lock, so a signal handler can call the function.
    pub fn set(&self, processing: u64, writing: u64) {
        self.writing.store(writing, Ordering::Release);
        self.processing.store(processing, Ordering::Release);
    }

    /// Returns the sequence numbers `processing` and `writing`. The value 0 means that there is no
    /// such record.
    pub fn get(&self) -> (u64, u64) {
        (self.processing.load(Ordering::Acquire), self.writing.load(Ordering::Acquire))
    }
}

/// The size of the name filter, in words of 64 bits.
pub const NAME_WORDS: usize = 32;

/// Counts of the records of one database since the server was started.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Counts {
    /// Records that the queue has accepted.
    pub queued: u64,
    /// Records that were written as entries.
    pub written: u64,
    /// Records that got no entry. Nearly all records that got no entry are in the server's log.
    pub dropped: u64,
    /// Dropped records that were quarantined, because a worker died while it processed them.
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

    /// Returns the total size in bytes of the slots that the database's records occupy.
    pub fn waiting_bytes(&self) -> u64 {
        u64::from(self.slots_used) * SLOT_BYTES as u64
    }

    /// Clears the fields that describe the database's worker and the session that holds the
    /// database. The function is called when neither the worker nor the session exists.
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

/// The maximum number of bytes of a record that one slot holds.
pub const DATA: usize = 1024 - 32;

/// The size of a slot, in bytes.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// The value of an index that refers to no slot.
pub const NONE: u32 = u32::MAX;

/// One slot of the region. A record occupies one or more slots.
#[repr(C)]
pub struct Slot {
    pub state: u32,
    pub database: u32,
    pub sequence: u64,
    /// The length of the whole record, in bytes.
    pub length: u32,
    /// The index of the next slot of the same record. In a free slot, this field is the index of
    /// the next free slot.
    pub more: u32,
    /// The index of the first slot of the database's next record.
    pub next: u32,
    /// The index of the first slot of the record that occupies this slot.
    pub first: u32,
    pub data: [u8; DATA],
}

/// The head of the region. In memory, the slots of the region follow this head.
#[repr(C)]
pub struct Region {
    /// A number that identifies the layout of the region. The value is the constant MAGIC of the
    /// module `startup`.
    pub magic: u64,
    /// The system identifier of the cluster that the region belongs to.
    pub system: u64,
    pub slots: u32,
    /// The index of the first slot in the list of free slots.
    pub free: u32,
    pub slots_used: u32,
    /// 1 if the queue accepts records, and otherwise 0. The launcher opens the queue when it
    /// starts. When the launcher ends and no worker runs, the launcher closes the queue.
    pub open: u32,
    /// The time at which the queue was made. This time distinguishes the queue from earlier queues
    /// of the same cluster.
    pub queue: i64,
    pub next_sequence: u64,
    /// A counter that is incremented when the set of databases with the extension may have changed.
    /// After an increment, sessions check again whether their database has the extension.
    pub generation: AtomicU32,
    pub rescan: AtomicU32,
    pub launcher_latch: usize,
    pub databases: [Database; MAX_DATABASES],
}

thread_local! {
    static REGION: Cell<*mut Region> = const { Cell::new(std::ptr::null_mut()) };
    static LOCK: Cell<*mut pg_sys::LWLock> = const { Cell::new(std::ptr::null_mut()) };
    /// Whether this process holds the region's lock.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Sets the address at which the region is mapped.
pub fn set_region(region: *mut Region) {
    REGION.set(region);
}

/// Returns the address of the region, or null if no region is mapped.
pub fn address() -> *mut Region {
    REGION.get()
}

/// Sets the address of the region's lock.
pub fn set_lock(lock: *mut pg_sys::LWLock) {
    LOCK.set(lock);
}

/// Returns whether the region is mapped. The region is mapped only if the library was preloaded.
pub fn is_there() -> bool {
    !REGION.get().is_null() && !LOCK.get().is_null()
}

/// A value that holds the region's lock. Dropping the value releases the region's lock, even during
/// a panic.
struct Locked;

impl Locked {
    /// Acquires the region's lock, and waits while another process holds the lock. Returns `None`
    /// if no region is mapped. Also returns `None` if this process already holds the lock, because
    /// otherwise the process would wait for itself.
    fn acquire() -> Option<Self> {
        if !is_there() || HELD.replace(true) {
            return None;
        }
        let held = Locked;
        // SAFETY: the lock is in PostgreSQL's shared memory. This process does not hold the lock,
        // so acquiring the lock raises no error.
        unsafe { pg_sys::LWLockAcquire(LOCK.get(), pg_sys::LWLockMode::LW_EXCLUSIVE) };
        Some(held)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        HELD.set(false);
        // SAFETY: `acquire` acquired the lock for this process. An error releases all LWLocks of a
        // process, so the code checks that the process still holds the lock.
        unsafe {
            if pg_sys::LWLockHeldByMe(LOCK.get()) {
                pg_sys::LWLockRelease(LOCK.get());
            }
        }
    }
}

/// Runs `work` with exclusive access to the region. Returns `None` if no region is mapped, or if
/// this call is made within the `work` of an outer call of `locked`. `work` must be quick, because
/// other processes may wait for the region's lock.
pub fn locked<R>(work: impl FnOnce(&mut Region) -> R) -> Option<R> {
    let _held = Locked::acquire()?;
    // SAFETY: the region lives as long as the process. While this process holds the region's lock,
    // other processes access only atomic fields of the region. This process cannot acquire the
    // region's lock a second time.
    Some(work(unsafe { &mut *REGION.get() }))
}

/// Returns the region's counter `generation`, which changes when the set of databases with the
/// extension may have changed. Takes no lock.
pub fn generation() -> u32 {
    let region = REGION.get();
    if region.is_null() {
        return 0;
    }
    // SAFETY: the region lives as long as the process, and the field `generation` is atomic.
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

/// Wakes the launcher. If `rescan` is true, the launcher also looks for databases that were created
/// or dropped.
pub fn wake_launcher(rescan: bool) {
    let latch = locked(|region| {
        if rescan {
            region.rescan.store(1, Ordering::Release);
        }
        region.launcher_latch
    });
    // SAFETY: the launcher stored the address of its own latch in the region.
    unsafe { set_latch(latch.unwrap_or(0)) }
}

/// Returns whether, since the last call, a process has asked the launcher to look for databases
/// that were created or dropped.
pub fn rescan_asked() -> bool {
    locked(|region| region.rescan.swap(0, Ordering::AcqRel) != 0).unwrap_or(false)
}

/// Stores the launcher's latch in the region. Only the launcher calls this function.
pub fn launcher_starts() {
    // SAFETY: the code only reads a variable of this process.
    let latch = unsafe { pg_sys::MyLatch } as usize;
    locked(|region| region.launcher_latch = latch);
}

/// Removes the launcher's latch from the region. The function is called when the launcher ends.
pub fn launcher_stops() {
    locked(|region| region.launcher_latch = 0);
}

/// Sets whether the queue accepts records.
pub fn set_open(open: bool) {
    locked(|region| region.open = u32::from(open));
}
