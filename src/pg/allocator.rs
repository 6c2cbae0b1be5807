//! Defines the allocator of the library. The allocator takes memory from the system or, if the
//! system has no memory, from a reserve.
//!
//! If an allocation fails, Rust aborts the process, and PostgreSQL then restarts all processes of
//! the server. A buffer whose size depends on users' data is allocated with `try_reserve`, which
//! returns an error if memory is exhausted. All other allocations of this library are small. If the
//! system refuses a small allocation, the memory comes from the reserve. The reserve suffices until
//! PostgreSQL raises an out-of-memory error of its own. The reserve is a static array. Before its
//! first use, the reserve takes address space, but no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The size of the largest allocation that the reserve serves, in bytes.
const LARGEST: usize = 128 * 1024;

/// The size of the reserve, in bytes.
const SIZE: usize = 1024 * 1024;

/// The largest alignment that an allocation from the reserve can have, in bytes.
const ALIGNMENT: usize = 16;

#[global_allocator]
static ALLOCATOR: WithReserve<System> = WithReserve::new(System);

/// An allocator with a reserve. The allocator hands out pieces of the reserve from the beginning to
/// the end of the reserve. When all pieces have been freed, the allocator starts again at the
/// beginning of the reserve.
struct WithReserve<A> {
    allocator: A,
    memory: Memory,
    /// The upper 32 bits are the offset at which the free part of the reserve begins. The lower 32
    /// bits are the number of pieces that are in use.
    state: AtomicU64,
}

#[repr(C, align(16))]
struct Memory(UnsafeCell<[u8; SIZE]>);

// SAFETY: an atomic update of `state` gives each piece of the memory to only one owner.
unsafe impl Sync for Memory {}

const fn pack(end: usize, pieces: u32) -> u64 {
    (end as u64) << 32 | pieces as u64
}

fn unpack(state: u64) -> (usize, u32) {
    ((state >> 32) as usize, state as u32)
}

impl<A> WithReserve<A> {
    const fn new(allocator: A) -> Self {
        WithReserve {
            allocator,
            memory: Memory(UnsafeCell::new([0; SIZE])),
            state: AtomicU64::new(0),
        }
    }

    /// Takes a piece of the reserve. Returns null if the reserve cannot serve the allocation.
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST || layout.align() > ALIGNMENT {
            return std::ptr::null_mut();
        }
        let mut start = 0;
        let taken = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            let (end, pieces) = unpack(state);
            start = end.next_multiple_of(layout.align());
            let end = start + layout.size();
            (end <= SIZE).then(|| pack(end, pieces + 1))
        });
        match taken {
            // SAFETY: the piece lies within the reserve.
            Ok(_) => unsafe { self.memory.0.get().cast::<u8>().add(start) },
            Err(_) => std::ptr::null_mut(),
        }
    }

    fn is_from_reserve(&self, memory: *const u8) -> bool {
        let reserve = self.memory.0.get().cast::<u8>().cast_const();
        (reserve..reserve.wrapping_add(SIZE)).contains(&memory)
    }

    fn give_back(&self) {
        let freed = |state| {
            let (end, pieces) = unpack(state);
            Some(if pieces <= 1 { 0 } else { pack(end, pieces - 1) })
        };
        // The closure always returns a value, so the update always succeeds.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, freed);
    }
}

// SAFETY: each allocation comes from the inner allocator or from the reserve, has the requested
// layout, and is returned to its source.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WithReserve<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller obeys the rules of the trait, so the layout is valid.
        let memory = unsafe { self.allocator.alloc(layout) };
        if memory.is_null() { self.take(layout) } else { memory }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if self.is_from_reserve(memory) {
            self.give_back();
        } else {
            // SAFETY: the memory is not from the reserve, so it is from the inner allocator.
            unsafe { self.allocator.dealloc(memory, layout) }
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.is_from_reserve(memory) {
            // SAFETY: the memory is not from the reserve, so it is from the inner allocator.
            let moved = unsafe { self.allocator.realloc(memory, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller guarantees that `size` is valid for a layout of this alignment. The
        // old and the new memory are each valid for their own size. The old and the new memory are
        // both in use, so they do not overlap.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(memory, moved, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An allocator that has no memory.
    struct Nothing;

    // SAFETY: the allocator gives out no memory.
    unsafe impl GlobalAlloc for Nothing {
        unsafe fn alloc(&self, _layout: Layout) -> *mut u8 {
            std::ptr::null_mut()
        }

        unsafe fn dealloc(&self, _memory: *mut u8, _layout: Layout) {
            unreachable!("nothing was given out")
        }
    }

    fn bytes(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    #[test]
    fn small_allocations_come_from_the_reserve() {
        static ALLOCATOR: WithReserve<Nothing> = WithReserve::new(Nothing);
        let allocator = &ALLOCATOR;
        // SAFETY: each piece is used within its size, and given back once with its layout.
        unsafe {
            assert!(allocator.alloc(bytes(LARGEST + 1)).is_null());
            let first = allocator.alloc(bytes(3));
            first.write_bytes(7, 3);
            let second = allocator.alloc(bytes(100));
            second.write_bytes(8, 100);
            assert!(second.addr().is_multiple_of(8) && second > first);
            let moved = allocator.realloc(first, bytes(3), 50);
            assert_eq!(std::slice::from_raw_parts(moved, 3), [7; 3]);
            assert_eq!(std::slice::from_raw_parts(second, 100), [8; 100]);
            allocator.dealloc(second, bytes(100));
            allocator.dealloc(moved, bytes(50));
            // All pieces are freed, so the allocator starts again at the beginning of the reserve.
            assert_eq!(allocator.alloc(bytes(8)), first);
        }
    }

    #[test]
    fn the_reserve_ends() {
        static ALLOCATOR: WithReserve<Nothing> = WithReserve::new(Nothing);
        let allocator = &ALLOCATOR;
        // SAFETY: the allocated memory is not accessed.
        let pieces =
            (0..).take_while(|_| !unsafe { allocator.alloc(bytes(LARGEST)) }.is_null()).count();
        assert_eq!(pieces, SIZE / LARGEST);
    }
}
