//! Wrappers for memory contexts.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Makes a memory context that is a child of `parent`. When PostgreSQL deletes `parent`, PostgreSQL
/// also deletes the child.
///
/// # Safety
/// `parent` must be a live memory context.
pub unsafe fn new_context(
    parent: pg_sys::MemoryContext,
    name: &'static CStr,
) -> pg_sys::MemoryContext {
    // SAFETY: `parent` is live (see # Safety). The name is static, as PostgreSQL requires.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            parent,
            name.as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}

/// Runs `work` with `context` as the current memory context. If `work` raises an error, this
/// function does not restore the former context. The code that catches the error must restore the
/// former context.
///
/// # Safety
/// `context` must be a live memory context.
pub unsafe fn in_context<R>(context: pg_sys::MemoryContext, work: impl FnOnce() -> R) -> R {
    // SAFETY: `context` is live (see # Safety). The former context is restored before the function
    // returns.
    unsafe {
        let former = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = context;
        let result = work();
        pg_sys::CurrentMemoryContext = former;
        result
    }
}

/// The memory context for the processing of one row at a time. PostgreSQL's memory in this context
/// is freed after each row.
pub struct RowMemory(pg_sys::MemoryContext);

impl RowMemory {
    /// Makes the memory context as a child of the current memory context.
    pub fn new(name: &'static CStr) -> Self {
        // SAFETY: the current context is live.
        RowMemory(unsafe { new_context(pg_sys::CurrentMemoryContext, name) })
    }

    /// Runs `work`, and then frees PostgreSQL's memory that `work` has allocated.
    pub fn for_row<R>(&mut self, work: impl FnOnce() -> R) -> R {
        // SAFETY: `self` and the parent of the context are alive, so the context is alive. The
        // result of `work` is in Rust's memory.
        unsafe {
            let result = in_context(self.0, work);
            pg_sys::MemoryContextReset(self.0);
            result
        }
    }
}

impl Drop for RowMemory {
    fn drop(&mut self) {
        // After an error, PostgreSQL deletes the memory context together with its parent context,
        // at the end of the (sub)transaction.
        if !std::thread::panicking() {
            // SAFETY: `new` made the context, and only `drop` deletes it.
            unsafe { pg_sys::MemoryContextDelete(self.0) }
        }
    }
}
