//! Writes a record to the server's log if the record cannot become an entry, for example because
//! the queue is full.

use super::slots;
use pgrx::{PgLogLevel, pg_sys};
use std::cell::Cell;
use std::ffi::{c_char, c_int};
use std::io::{self, Write};
use std::panic::AssertUnwindSafe;

thread_local! {
    /// Whether this process is making a record, or is writing a record to the server's log. An
    /// error that is raised while the flag is set comes from lead_audit's own code and not from the
    /// statement, so it gets no record. After an error in lead_audit's own code, the flag stays set
    /// until the next statement begins or the transaction ends.
    static IS_RECORDING: Cell<bool> = const { Cell::new(false) };
}

/// Notes that this process begins to make a record, or to write a record to the server's log.
/// Returns false if this process was already making or writing a record.
pub fn begin_recording() -> bool {
    !IS_RECORDING.replace(true)
}

/// Notes that this process has made the record, or has written the record to the server's log.
pub fn end_recording() {
    IS_RECORDING.set(false);
}

/// Returns whether this process is making a record or writing a record to the server's log.
pub fn is_recording() -> bool {
    IS_RECORDING.get()
}

/// A buffer whose writes return an error if memory is exhausted.
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

/// A line for the server's log that contains a record. The record is part of the primary message,
/// because PostgreSQL omits DETAIL if `log_error_verbosity` is `terse`.
pub struct LogLine(Vec<u8>);

impl LogLine {
    /// Makes the line for a record. The line contains `why`, which is the reason why the record
    /// gets no entry. Returns `None` if memory is exhausted.
    pub fn new(record: &[u8], why: &str) -> Option<Self> {
        let mut line = Fallible::default();
        write!(line, "lead_audit: an operation that failed has no audit entry: {why}: ").ok()?;
        line.write_all(record).ok()?;
        // A zero byte would end the C string. JSON contains no zero byte, but another process may
        // have damaged the record in shared memory.
        line.0.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
        line.write_all(&[0]).ok()?;
        Some(LogLine(line.0))
    }

    /// Returns the line as a C string, which is valid while `self` is alive.
    pub fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }

    /// Writes the line to the server's log. Ignores an error that the writing raises.
    pub fn write(&self) {
        let is_outermost = begin_recording();
        // SAFETY: the line is a C string. pgrx's guard turns the longjmp of an error into a panic,
        // and PgTryBuilder catches the panic.
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
        // The macro ereport() calls these functions, which utils/elog.h declares. pgrx has no
        // bindings for these functions.
        pub fn errstart(level: c_int, domain: *const c_char) -> bool;
        pub fn errmsg_internal(format: *const c_char, ...) -> c_int;
        pub fn errhidestmt(hide: bool) -> c_int;
        pub fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
    }
}

/// Writes a message to the server's log, and does not send the message to the client. Can raise an
/// out-of-memory error.
///
/// # Safety
/// `message` must be a C string. An error jumps over the stack frames up to the code that catches
/// the error, so these frames must have nothing to drop.
pub unsafe fn write_to_server_log(message: *const c_char) {
    // SAFETY: the calls are those of the macro ereport(). During these calls the list of error
    // callbacks is empty, so that no callback adds CONTEXT to the message. If a call raises an
    // error, the code that catches the error restores the list of error callbacks.
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

/// Writes all queued records of a database to the server's log.
pub fn log_rest(database: pg_sys::Oid) {
    const MOST: usize = 1000;
    loop {
        let records = slots::peek(database, MOST, 1 << 20);
        if records.is_empty() {
            return;
        }
        // Each record is removed from the queue only after the record was written to the server's
        // log.
        for (number, record) in records {
            LogLine::new(&record, "there is no worker in its database any more")
                .iter()
                .for_each(LogLine::write);
            slots::drop_logged(database, &[number]);
        }
    }
}
