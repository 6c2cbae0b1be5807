//! Calls functions that are not part of this library. A function that is not part of this library
//! can raise an error with texts of any length.
//!
//! pgrx copies the texts of a caught error into Rust's memory. If the allocation for such a copy
//! fails, Rust aborts the process, and PostgreSQL then restarts all processes of the server. This
//! module shortens the texts of an error before pgrx catches the error, so that the copies are
//! small.

use cee_scape::{SigJmpBufFields, call_with_sigsetjmp};
use pgrx::pg_sys;
use std::ffi::c_int;
use std::mem::MaybeUninit;

mod raw {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        // pgrx also binds this function, but with its guard (`pg_guard_ffi_boundary`), which would
        // catch the error and copy the error's texts.
        pub fn FunctionCall1Coll(
            function: *mut pg_sys::FmgrInfo,
            collation: pg_sys::Oid,
            argument: pg_sys::Datum,
        ) -> pg_sys::Datum;
    }
}

/// The maximum length of each text of an error, in bytes. A text of LONGEST bytes fits into the
/// allocator's reserve.
const LONGEST: usize = 16 * 1024;

/// The end of a text that was cut.
const ELLIPSIS: &[u8] = b"...";

/// Calls a function with one argument. If the function raises an error, cuts each text of the error
/// to 16 kB. Raises the shortened error in the same way as the functions of `pg_sys`.
///
/// # Safety
/// The argument must be of the type that the function takes.
pub unsafe fn call_foreign(function: &pg_sys::FmgrInfo, argument: pg_sys::Datum) -> pg_sys::Datum {
    let function = std::ptr::from_ref(function).cast_mut();
    let mut result = MaybeUninit::uninit();
    // SAFETY: the code does what PG_TRY() and PG_CATCH() do. An error jumps over the stack frames
    // of the called function and of the closure. The closure has nothing to drop.
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
        // If PostgreSQL has no memory for the copy of the error, CopyErrorData() raises an
        // out-of-memory error with short texts.
        let error = pg_sys::CopyErrorData();
        pg_sys::FlushErrorState();
        shorten(&mut *error);
        rethrow(error)
    }
}

/// Raises a copied error.
///
/// # Safety
/// `error` must be a copy that CopyErrorData() has made.
unsafe fn rethrow(error: *mut pg_sys::ErrorData) -> ! {
    // SAFETY: CopyErrorData() made the copy (see # Safety), and ReThrowError() accepts such a copy.
    unsafe { pg_sys::ReThrowError(error) };
    // For PostgreSQL 18, pgrx does not declare that ReThrowError() never returns.
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
        // SAFETY: the texts are writable C strings (see # Safety). The code reads and writes
        // nothing behind the end of a string.
        unsafe {
            let length = libc::strnlen(text, LONGEST + ELLIPSIS.len() + 1);
            if length > LONGEST + ELLIPSIS.len() {
                // pg_mbcliplen() cuts between two characters of the database's encoding.
                let kept = pg_sys::pg_mbcliplen(text, LONGEST as c_int, LONGEST as c_int)
                    .clamp(0, LONGEST as c_int);
                let end = text.add(kept as usize);
                std::ptr::copy_nonoverlapping(ELLIPSIS.as_ptr().cast(), end, ELLIPSIS.len());
                *end.add(ELLIPSIS.len()) = 0;
            }
        }
    }
}
