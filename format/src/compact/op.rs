//! First bytes of the records, and the vocabulary that writer and reader share.

/// First line of a trace.
pub const FIRST_LINE: &[u8] = b"# mtr trace 2\n";

/// Text: its length (1 byte, not 0), then the bytes.
pub const TEXT: u8 = 0x01;
/// The thread that the stream belongs to from here on: its TID as a varint.
pub const THREAD: u8 = 0x02;
/// Numbers of nodes start again at 1.
pub const FORGET: u8 = 0x03;
/// The next node: varint of its number minus that of its parent, zigzag of its return address
/// minus that of the node before it in the chunk.
pub const NODE: u8 = 0x04;
/// Varint of the ticks since the stamp before.
pub const STAMP: u8 = 0x06;
/// Varint of the resident bytes of the process.
pub const RESIDENT: u8 = 0x07;
/// realloc of a block: outcome, length of the address, address. A varint follows: the node of its
/// caller, 0 for none.
pub const REALLOC: u8 = 0x08;
/// An allocation failed: varint of its node, varint of its size, varint of the address of the block that lives on.
pub const FAILED: u8 = 0x09;
/// A free; plus its kind (shifted by 3) and the length of its address. A varint follows the address:
/// the node of its caller, 0 for none.
pub const FREE: u8 = 0x40;
/// The family of the allocation that follows; plus its number. For a family with an alignment that
/// follows as a varint.
pub const FAMILY: u8 = 0x60;
/// An allocation; plus a code for the length of its size (shifted by 5), the length of its address
/// (shifted by 2), and that of its node minus 1.
pub const ALLOC: u8 = 0x80;

/// Most bytes of a TEXT.
pub const MAX_TEXT: usize = 255;
/// Most bytes of an address as a difference.
pub const MAX_DIFFERENCE: usize = 6;
/// Length of an address that stands for itself, in 8 bytes.
pub const WHOLE_ADDRESS: usize = 7;
/// Addresses are differences in units of so many bits.
pub const ADDRESS_SHIFT: u32 = 4;

/// Return address that stands for frames which were left out.
pub const FRAMES_CUT: u64 = 1;
/// Return address that stands for a walk which did not reach the root.
pub const WALK_ENDED: u64 = 2;

/// What came of a realloc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It has not returned.
    Open = 0,
    /// The old block has ended, and an ALLOC follows.
    Ended = 1,
    /// Nothing has changed, and a FAILED follows.
    Unchanged = 2,
    /// The block was freed.
    Freed = 3,
}

impl Outcome {
    /// The outcome with this number.
    #[inline]
    pub const fn of(number: u8) -> Option<Outcome> {
        Some(match number {
            0 => Outcome::Open,
            1 => Outcome::Ended,
            2 => Outcome::Unchanged,
            3 => Outcome::Freed,
            _ => return None,
        })
    }
}

/// Function that allocated a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the functions of the C library
pub enum Family {
    Malloc = 1,
    Calloc = 2,
    Realloc = 3,
    PosixMemalign = 4,
    AlignedAlloc = 5,
    Memalign = 6,
    Valloc = 7,
    Pvalloc = 8,
    /// operator new of an allocator that does not call malloc for it; so the three below.
    New = 9,
    NewArray = 10,
    AlignedNew = 11,
    AlignedNewArray = 12,
}

/// Function that a free was asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FreeKind {
    /// free, or a function of the C library that is one.
    Free = 0,
    /// operator delete.
    Delete = 1,
    /// operator delete[].
    DeleteArray = 2,
    /// The trace does not say.
    Unknown = 3,
}

impl FreeKind {
    /// The kind with this number, of which the lowest two bits count.
    #[inline]
    pub const fn of(number: u8) -> FreeKind {
        match number & 3 {
            0 => FreeKind::Free,
            1 => FreeKind::Delete,
            2 => FreeKind::DeleteArray,
            _ => FreeKind::Unknown,
        }
    }
}

impl Family {
    /// Whether a FAMILY of this family has an alignment.
    #[inline]
    pub const fn has_alignment(self) -> bool {
        matches!(self, Family::PosixMemalign | Family::AlignedAlloc | Family::Memalign)
    }

    /// The family with this number.
    #[inline]
    pub const fn of(number: u8) -> Option<Family> {
        Some(match number {
            1 => Family::Malloc,
            2 => Family::Calloc,
            3 => Family::Realloc,
            4 => Family::PosixMemalign,
            5 => Family::AlignedAlloc,
            6 => Family::Memalign,
            7 => Family::Valloc,
            8 => Family::Pvalloc,
            9 => Family::New,
            10 => Family::NewArray,
            11 => Family::AlignedNew,
            12 => Family::AlignedNewArray,
            _ => return None,
        })
    }
}
