//! Room in a file that is mapped already, without a descriptor of it.
//!
//! A page of a hole gets its block from the file system when it is first written to. Where there is none
//! left, a store of ours would be a SIGBUS; but if the kernel writes to the page for us, it says EFAULT.

use crate::sys;

const PAGE: usize = 4096;

/// Makes sure that there are blocks for `len` bytes of a mapped file. False where there are none.
///
/// # Safety
/// They are whole pages of a shared mapping, not beyond the end of the file, hold zeros, and only this
/// thread knows of them.
#[cold]
pub(super) unsafe fn make(at: *mut u8, len: usize) -> bool {
    // SAFETY: the caller's promise.
    match unsafe { touch(at, len) } {
        Ok(_) => true,
        // Kernels before 5.14 do not know of it, and a filter may forbid it.
        // SAFETY: as above.
        Err(_) => unsafe { make_page_by_page(at, len) },
    }
}

/// Makes the kernel write to pages, which changes nothing of what is in them.
///
/// # Safety
/// They are whole pages of a shared mapping of ours.
pub(super) unsafe fn touch(at: *mut u8, len: usize) -> sys::Result<usize> {
    // SAFETY: the caller's promise.
    unsafe { sys::populate(at, len) }
}

/// # Safety
/// As for [`make`].
unsafe fn make_page_by_page(at: *mut u8, len: usize) -> bool {
    (0..len).step_by(PAGE).all(|from| {
        // SAFETY: inside of the pages, aligned, and nobody else knows of them.
        unsafe {
            let word = at.add(from).cast::<u64>();
            let is_there = sys::store_signal_mask(word).is_ok();
            if is_there {
                word.write_volatile(0);
            }
            is_there
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Fd;

    const LEN: usize = 8 * PAGE;

    /// A file with a hole, mapped; so many bytes of it there are.
    fn mapped(name: &core::ffi::CStr, there: usize) -> *mut u8 {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let _ = sys::unlink(name);
        let fd: Fd = sys::openat(name, flags, 0o600).unwrap();
        sys::resize(fd, there as u64).unwrap();
        let at = sys::map_shared(fd, LEN).unwrap();
        sys::close(fd);
        sys::unlink(name).unwrap();
        at
    }

    #[test]
    fn a_hole_gets_blocks_both_ways() {
        for page_by_page in [false, true] {
            let name = if page_by_page { c"hole-pages" } else { c"hole-whole" };
            let at = mapped(name, LEN);
            // SAFETY: a mapping of that many bytes of a file as long, known here alone.
            unsafe {
                let make = if page_by_page { make_page_by_page } else { make };
                assert!(make(at, LEN));
                assert!((0..LEN).all(|index| at.add(index).read() == 0));
                at.add(LEN - 1).write(1);
                sys::unmap(at, LEN);
            }
        }
    }

    #[test]
    fn where_there_is_no_block_it_is_said_and_no_signal() {
        // Behind the end of a file a store is a SIGBUS, as it is in a hole of a full disk.
        let at = mapped(c"hole-short", LEN - PAGE);
        // SAFETY: a mapping of that many bytes, known here alone.
        unsafe {
            assert!(!make(at, LEN));
            assert!(!make_page_by_page(at, LEN));
            assert!(make_page_by_page(at, LEN - PAGE));
            sys::unmap(at, LEN);
        }
    }
}
