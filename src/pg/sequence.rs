//! Sequences, without the caller's rights.

use pgrx::pg_sys;

mod raw {
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        // commands/sequence.h, which pgrx does not bind.
        pub fn nextval_internal(relid: pg_sys::Oid, check_permissions: bool) -> i64;
    }
}

/// The sequence's next value. The caller of the statement needs no right on it: what takes values is the library.
pub fn next_value(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: nextval_internal raises an error for an oid that is no sequence; the guard turns the error's longjmp into
    // unwinding, so that nothing of Rust's is jumped over.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| raw::nextval_internal(sequence, false)) }
}
