//! Blocks for calls that come before the real functions are known. They are never given back, but
//! recorded like any other; the hooks of free, realloc and malloc_usable_size recognise them by
//! address.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

type Ptr = *mut c_void;

const SIZE: usize = 1 << 14;
/// Alignment of malloc's blocks on x86_64; each has its size in the 16 bytes in front.
const HEADER: usize = 16;

#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; SIZE]>);

// SAFETY: each byte belongs to the block that `USED` gave it to, and blocks to their owners.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; SIZE]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// Whether a block is one of the arena's.
#[inline(always)]
pub(crate) fn contains(ptr: usize) -> bool {
    ptr.wrapping_sub(MEMORY.0.get() as usize) < SIZE
}

fn allocate(align: usize, size: usize) -> Ptr {
    if !align.is_power_of_two() || align > 4096 || size > SIZE {
        return null_mut();
    }
    let align = align.max(HEADER);
    let room = HEADER + size.next_multiple_of(HEADER) + align;
    let used = USED.fetch_add(room, Ordering::Relaxed);
    if used.saturating_add(room) > SIZE {
        return null_mut();
    }
    let start = (used + HEADER).next_multiple_of(align);
    // SAFETY: `start - HEADER .. start + size` lies in the room that this call took.
    unsafe {
        let block = MEMORY.0.get().cast::<u8>().add(start);
        block.sub(HEADER).cast::<usize>().write(size);
        block.cast()
    }
}

pub(super) unsafe extern "C" fn malloc(size: usize) -> Ptr {
    allocate(HEADER, size)
}

pub(super) unsafe extern "C" fn calloc(count: usize, size: usize) -> Ptr {
    // The memory is zero and never used twice.
    count.checked_mul(size).map_or(null_mut(), |size| allocate(HEADER, size))
}

pub(super) unsafe extern "C" fn memalign(align: usize, size: usize) -> Ptr {
    allocate(align, size)
}

pub(super) unsafe extern "C" fn valloc(size: usize) -> Ptr {
    allocate(4096, size)
}

pub(super) unsafe extern "C" fn posix_memalign(out: *mut Ptr, align: usize, size: usize) -> c_int {
    let block = allocate(align, size);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller of posix_memalign gives a valid place.
    unsafe { *out = block };
    0
}

pub(super) unsafe extern "C" fn free(_: Ptr) {}

/// Moves a block to a new one of the arena.
pub(super) unsafe extern "C" fn realloc(old: Ptr, size: usize) -> Ptr {
    let new = allocate(HEADER, size);
    // SAFETY: `old` is NULL or a block of the arena, the only ones there are before the real
    // functions are known.
    unsafe { copy(old, new, size) }
    new
}

/// Size that was asked for.
///
/// # Safety
/// `ptr` is NULL or a block of the arena.
pub(crate) unsafe extern "C" fn usable_size(ptr: Ptr) -> usize {
    if ptr.is_null() {
        return 0;
    }
    // SAFETY: every block has its size in front.
    unsafe { ptr.cast::<u8>().sub(HEADER).cast::<usize>().read() }
}

/// Copies what fits of a block of the arena to another block of `size` bytes.
///
/// # Safety
/// `old` is NULL or a block of the arena; `new` is NULL or a block of `size` bytes.
pub(crate) unsafe fn copy(old: Ptr, new: Ptr, size: usize) {
    if !old.is_null() && !new.is_null() {
        // SAFETY: both blocks have that many bytes, and no two blocks overlap.
        unsafe {
            let len = usable_size(old).min(size);
            new.cast::<u8>().copy_from_nonoverlapping(old.cast::<u8>(), len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_apart_and_know_their_size() {
        let (a, b) = (allocate(16, 24), allocate(4096, 10));
        assert!(contains(a as usize) && contains(b as usize));
        assert_eq!((a as usize % 16, b as usize % 4096), (0, 0));
        assert!(b as usize - a as usize >= 24 + HEADER);
        // SAFETY: both are blocks of the arena.
        unsafe { assert_eq!((usable_size(a), usable_size(b)), (24, 10)) };
    }

    #[test]
    fn what_does_not_fit_fails() {
        assert!(allocate(16, SIZE + 1).is_null());
        assert!(allocate(24, 8).is_null());
    }
}
