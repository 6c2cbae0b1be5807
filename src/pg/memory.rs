//! Memory contexts.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Makes a memory context that is a child of `parent`, and goes with it at the latest.
///
/// # Safety
/// `parent` must be a live memory context.
pub unsafe fn new_context(
    parent: pg_sys::MemoryContext,
    name: &'static CStr,
) -> pg_sys::MemoryContext {
    // SAFETY: as the caller promises; the name is static, as Postgres asks.
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

/// Runs `work` with `context` as the current memory context. After an error whoever catches it sets
/// the context anyway.
///
/// # Safety
/// `context` must be a live memory context.
pub unsafe fn in_context<R>(context: pg_sys::MemoryContext, work: impl FnOnce() -> R) -> R {
    // SAFETY: as the caller promises; the former context is put back before this returns.
    unsafe {
        let former = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = context;
        let result = work();
        pg_sys::CurrentMemoryContext = former;
        result
    }
}

/// Memory for one row at a time: a child of the current context, emptied after each.
pub struct RowMemory(pg_sys::MemoryContext);

impl RowMemory {
    /// Makes it.
    pub fn new(name: &'static CStr) -> Self {
        // SAFETY: the current context is live.
        RowMemory(unsafe { new_context(pg_sys::CurrentMemoryContext, name) })
    }

    /// Runs `work`, then frees all that it allocated.
    pub fn for_row<R>(&mut self, work: impl FnOnce() -> R) -> R {
        // SAFETY: the context lives as long as this, or its parent; what `work` returns is Rust's.
        unsafe {
            let result = in_context(self.0, work);
            pg_sys::MemoryContextReset(self.0);
            result
        }
    }
}

impl Drop for RowMemory {
    fn drop(&mut self) {
        // While an error is on its way the context is left to its parent, which ends with the
        // (sub)transaction.
        if !std::thread::panicking() {
            // SAFETY: made by us and not deleted since.
            unsafe { pg_sys::MemoryContextDelete(self.0) }
        }
    }
}
