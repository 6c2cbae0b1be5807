//! Records in the server's log, for which the queue has no room or the database no worker.

use super::slots;
use pgrx::{PgLogLevel, pg_sys};
use std::cell::Cell;
use std::ffi::{c_char, c_int};
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;

thread_local! {
    /// Whether a record is being made or written to the server's log: an error or a message of that
    /// is not another failure. An error leaves it set, until the next statement or the end of the
    /// transaction.
    static IS_RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// Begins to make a record, or to write one to the log; false if that is under way already.
pub fn begin_recording() -> bool {
    !IS_RECORDING.replace(true)
}

/// The record is made or written.
pub fn end_recording() {
    IS_RECORDING.set(false);
}

/// Whether a record is being made or written.
pub fn is_recording() -> bool {
    IS_RECORDING.get()
}

/// A buffer that says so where there is no memory for it to grow.
#[derive(Default)]
pub struct Fallible(pub Vec<u8>);

impl io::Write for Fallible {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_reserve(bytes.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A record on its way to the server's log: all in one message, since a DETAIL is left out where
/// log_error_verbosity is terse.
pub struct LogLine(Vec<u8>);

impl LogLine {
    /// `None` where there is no memory for it.
    pub fn new(record: &[u8], why: &str) -> Option<Self> {
        let mut line = Fallible::default();
        write!(line, "lead_audit: an operation that failed has no audit entry: {why}: ").ok()?;
        line.write_all(record).ok()?;
        // Records are JSON, which has no byte 0; one that another process left broken may.
        line.0.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
        line.write_all(&[0]).ok()?;
        Some(LogLine(line.0))
    }

    /// The C string, which lives as long as this.
    pub fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }

    /// Writes it. An error in that ends here.
    pub fn write(&self) {
        let is_outermost = begin_recording();
        // SAFETY: a C string; the guard turns an error's longjmp into unwinding, which the builder
        // ends.
        pgrx::PgTryBuilder::new(AssertUnwindSafe(|| unsafe {
            pg_sys::ffi::pg_guard_ffi_boundary(|| write_to_server_log(self.as_ptr()));
        }))
        .catch_others(|_| ())
        .catch_rust_panic(|_| ())
        .execute();
        if is_outermost {
            end_recording();
        }
    }
}

mod raw {
    use std::ffi::{c_char, c_int};
    unsafe extern "C-unwind" {
        // utils/elog.h, which pgrx does not bind.
        pub fn errstart(level: c_int, domain: *const c_char) -> bool;
        pub fn errmsg_internal(format: *const c_char, ...) -> c_int;
        pub fn errhidestmt(hide: bool) -> c_int;
        pub fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    }
}

/// Writes a message to the server's log alone. May raise an error: that of no memory.
///
/// # Safety
/// `message` must be a C string, and nothing between this and whoever catches an error may have to
/// be dropped.
pub unsafe fn write_to_server_log(message: *const c_char) {
    // SAFETY: the sequence of ereport(). No callback has to add anything to this message. After an
    // error whoever catches it sets the list of callbacks.
    unsafe {
        let callbacks = pg_sys::error_context_stack;
        pg_sys::error_context_stack = std::ptr::null_mut();
        if raw::errstart(PgLogLevel::LOG_SERVER_ONLY as c_int, std::ptr::null()) {
            raw::errmsg_internal(c"%s".as_ptr(), message);
            raw::errhidestmt(true);
            raw::errfinish(c"server_log.rs".as_ptr(), line!() as c_int, c"lead_audit".as_ptr());
        }
        pg_sys::error_context_stack = callbacks;
    }
}

/// Everything that is queued for a database goes to the server's log.
pub fn log_rest(database: pg_sys::Oid) {
    const MOST: usize = 1000;
    loop {
        let records = slots::peek(database, MOST, 1 << 20);
        if records.is_empty() {
            return;
        }
        // Taken off only when it is in the log.
        for (number, record) in records {
            LogLine::new(&record, "there is no worker in its database any more")
                .iter()
                .for_each(LogLine::write);
            slots::pop(database, number, 1, 0);
        }
    }
}
