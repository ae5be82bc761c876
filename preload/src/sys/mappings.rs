//! Single mappings of this process, asked for by address: several times cheaper than reading
//! /proc/self/maps, whose descriptor it takes all the same.

use super::{Fd, close, openat};

/// `_IOWR('f', 17, struct procmap_query)`.
pub(crate) const PROCMAP_QUERY: usize = 3 << 30 | 104 << 16 | (b'f' as usize) << 8 | 17;

/// What the kernel says of one mapping.
pub(crate) struct MappingInfo {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) is_readable: bool,
}

/// A descriptor of /proc/self/maps.
pub(crate) struct Mappings {
    fd: Fd,
}

impl Mappings {
    pub(crate) fn open() -> Option<Mappings> {
        let fd = openat(c"/proc/self/maps", libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
        Some(Mappings { fd })
    }

    /// The mapping that holds `address`. `None` when there is none, or where the kernel cannot be
    /// asked (before 6.11).
    pub(crate) fn query(&self, address: u64) -> Option<MappingInfo> {
        /// `struct procmap_query` (linux/fs.h).
        #[repr(C)]
        struct Query {
            size: u64,
            flags: u64,
            address: u64,
            vma_start: u64,
            vma_end: u64,
            vma_flags: u64,
            rest: [u64; 7],
        }
        const { assert!(PROCMAP_QUERY >> 16 & 0x3fff == size_of::<Query>()) };
        const READABLE: u64 = 1;
        let (size, flags, rest) = (size_of::<Query>() as u64, 0, [0; 7]);
        let mut query =
            Query { size, flags, address, vma_start: 0, vma_end: 0, vma_flags: 0, rest };
        call!(SYS_ioctl, self.fd, PROCMAP_QUERY, &raw mut query).ok()?;
        let (start, end) = (query.vma_start, query.vma_end);
        Some(MappingInfo { start, end, is_readable: query.vma_flags & READABLE != 0 })
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        close(self.fd);
    }
}
