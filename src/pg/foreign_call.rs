//! Calls code that is not this library's and may raise an error of any length.
//!
//! pgrx copies the texts of a caught error into Rust's memory. If that allocation fails, Rust ends
//! the process, and with it the server. So this module shortens the texts first.

use cee_scape::{SigJmpBufFields, call_with_sigsetjmp};
use pgrx::pg_sys;
use std::ffi::c_int;
use std::mem::MaybeUninit;

mod raw {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        // The function that pgrx binds, without pgrx's guard.
        pub fn FunctionCall1Coll(
            function: *mut pg_sys::FmgrInfo,
            collation: pg_sys::Oid,
            argument: pg_sys::Datum,
        ) -> pg_sys::Datum;
    }
}

/// Longest text of an error that is kept, in bytes. Fits into the allocator's reserve.
const LONGEST: usize = 16 * 1024;

/// Appended to a text that was cut.
const ELLIPSIS: &[u8] = b"...";

/// Calls a function with one argument. Its error is raised like that of any `pg_sys` function, with
/// each text cut to 16 kB.
///
/// # Safety
/// The argument must be of the type that the function takes.
pub unsafe fn call_foreign(function: &pg_sys::FmgrInfo, argument: pg_sys::Datum) -> pg_sys::Datum {
    let function = std::ptr::from_ref(function).cast_mut();
    let mut result = MaybeUninit::uninit();
    // SAFETY: this is what PG_TRY() and PG_CATCH() do. An error jumps over the closure, which has
    // nothing to drop, and over the frames of the called function.
    unsafe {
        let memory = pg_sys::CurrentMemoryContext;
        let (handler, callbacks) = (pg_sys::PG_exception_stack, pg_sys::error_context_stack);
        let jumped = call_with_sigsetjmp(false, |buffer| {
            pg_sys::PG_exception_stack =
                std::ptr::from_ref::<SigJmpBufFields>(buffer).cast_mut().cast();
            result.write(raw::FunctionCall1Coll(function, pg_sys::InvalidOid, argument));
            0
        });
        pg_sys::PG_exception_stack = handler;
        pg_sys::error_context_stack = callbacks;
        if jumped == 0 {
            return result.assume_init();
        }
        pg_sys::CurrentMemoryContext = memory;
        // Raises a short error if PostgreSQL has no memory for the copy.
        let error = pg_sys::CopyErrorData();
        pg_sys::FlushErrorState();
        shorten(&mut *error);
        rethrow(error)
    }
}

/// Raises a copied error.
///
/// # Safety
/// The error must be a copy by CopyErrorData().
unsafe fn rethrow(error: *mut pg_sys::ErrorData) -> ! {
    // SAFETY: the error is a copy by CopyErrorData() (see # Safety), which ReThrowError() takes.
    unsafe { pg_sys::ReThrowError(error) };
    // pgrx does not declare that the function of PostgreSQL 18 never returns.
    #[cfg(feature = "pg18")]
    unreachable!("ReThrowError() does not return")
}

/// Cuts the texts of a copied error.
///
/// # Safety
/// The texts must be writable C strings or null.
unsafe fn shorten(error: &mut pg_sys::ErrorData) {
    for text in [
        error.message,
        error.detail,
        error.detail_log,
        error.hint,
        error.context,
        error.internalquery,
    ] {
        if text.is_null() {
            continue;
        }
        // SAFETY: the texts are writable C strings (see # Safety). Nothing behind a string's end is
        // read or written, and the cut text ends with a whole character of the database's encoding.
        unsafe {
            let length = libc::strnlen(text, LONGEST + ELLIPSIS.len() + 1);
            if length > LONGEST + ELLIPSIS.len() {
                let kept = pg_sys::pg_mbcliplen(text, LONGEST as c_int, LONGEST as c_int)
                    .clamp(0, LONGEST as c_int);
                let end = text.add(kept as usize);
                std::ptr::copy_nonoverlapping(ELLIPSIS.as_ptr().cast(), end, ELLIPSIS.len());
                *end.add(ELLIPSIS.len()) = 0;
            }
        }
    }
}
