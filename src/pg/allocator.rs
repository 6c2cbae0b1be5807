//! The library's allocator: the system's, and a reserve for when that has no memory.
//!
//! Where Rust cannot get memory it ends the process, and with it the server. Buffers whose size a
//! user determines ask before they grow (`try_reserve`). All other allocations of this library are
//! small; where the system refuses one, it comes from the reserve, which is enough for what is done
//! until PostgreSQL has raised its own error. The reserve is a static array that nothing touches
//! before, so it takes address space and no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest allocation that the reserve serves, in bytes.
const LARGEST: usize = 128 * 1024;

/// Size of the reserve, in bytes.
const SIZE: usize = 1024 * 1024;

/// Strictest alignment that the reserve serves.
const ALIGNMENT: usize = 16;

#[global_allocator]
static ALLOCATOR: WithReserve<System> = WithReserve::new(System);

/// An allocator, and a reserve for when it has no memory. The reserve is handed out from its
/// beginning to its end, and begins anew when all of it has been given back.
struct WithReserve<A> {
    allocator: A,
    memory: Memory,
    /// The end of what was handed out, and in the lower half how many pieces of it are in use.
    state: AtomicU64,
}

#[repr(C, align(16))]
struct Memory(UnsafeCell<[u8; SIZE]>);

// SAFETY: pieces of the memory are handed out to one owner each, by an atomic exchange of the
// state.
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

    /// A piece of the reserve, or null.
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
        // The closure always gives a value, so this always succeeds.
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, freed);
    }
}

// SAFETY: memory is either the allocator's or a piece of the reserve, of the layout that was asked
// for, and goes back to where it came from.
unsafe impl<A: GlobalAlloc> GlobalAlloc for WithReserve<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is the caller's, who obeys this trait's rules.
        let memory = unsafe { self.allocator.alloc(layout) };
        if memory.is_null() { self.take(layout) } else { memory }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if self.is_from_reserve(memory) {
            self.give_back();
        } else {
            // SAFETY: not from the reserve, so it is the allocator's.
            unsafe { self.allocator.dealloc(memory, layout) }
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.is_from_reserve(memory) {
            // SAFETY: not from the reserve, so it is the allocator's.
            let moved = unsafe { self.allocator.realloc(memory, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises that `size` is right for a layout of this alignment. The old
        // memory is valid for its own size, the new one for its own; they do not overlap, since
        // both are in use.
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

    // SAFETY: it gives out no memory.
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
            // All of it is back, so it begins anew.
            assert_eq!(allocator.alloc(bytes(8)), first);
        }
    }

    #[test]
    fn the_reserve_ends() {
        static ALLOCATOR: WithReserve<Nothing> = WithReserve::new(Nothing);
        let allocator = &ALLOCATOR;
        // SAFETY: what is allocated is not used.
        let pieces =
            (0..).take_while(|_| !unsafe { allocator.alloc(bytes(LARGEST)) }.is_null()).count();
        assert_eq!(pieces, SIZE / LARGEST);
    }
}
