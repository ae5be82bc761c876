//! The words of a trace: what a writer stores and a reader takes apart.

/// Highest ID of a node or an info.
pub const MAX_ID: u32 = (1 << 28) - 1;

/// Segments that one-word events can refer to.
pub const SEGMENTS: usize = 4;

/// Bytes of text in a continuation word.
pub const TEXT_BYTES: usize = 7;

/// First line of a trace, which a reader recognises it by.
pub const FIRST_LINE: &[u8] = b"# mtr trace 1\n";

/// Return address of the root of a thread's stacks: the thread's ID, shifted by this.
pub const THREAD_SHIFT: u32 = 16;
/// Return address that stands for frames which were left out.
pub const FRAMES_CUT: u64 = 1;
/// Return address that stands for a walk which did not reach the root.
pub const WALK_ENDED: u64 = 2;
/// Return address that stands for a stack which was not taken.
pub const NOT_TAKEN: u64 = 3;

/// What a word begins; 0 continues a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// Text follows in continuations.
    Text = 1,
    /// A new node of the stack trie.
    Node = 2,
    /// A new info: stack, size and family of an allocation.
    Info = 3,
    /// A segment for one-word events.
    Segment = 4,
    /// An event in two words.
    Long = 5,
    /// The time.
    Time = 6,
    /// Resident memory.
    Rss = 7,
    /// An allocation in segment 0; segments 1 to 3 follow.
    Alloc = 8,
    /// A free in segment 0; segments 1 to 3 follow.
    Free = 12,
}

/// Kind of an event in two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LongKind {
    /// An allocation.
    Alloc = 1,
    /// A free.
    Free = 2,
    /// realloc ends the old block.
    ReallocOld = 3,
    /// A place that came to nothing.
    Nothing = 4,
    /// An allocation that failed.
    Failed = 5,
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

impl Family {
    /// Whether an INFO of this family has an alignment.
    #[inline]
    pub const fn has_alignment(self) -> bool {
        matches!(self, Family::PosixMemalign | Family::AlignedAlloc | Family::Memalign)
    }
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

/// The first word of a record. `a` has 28 bits, `b` 32.
#[inline(always)]
pub const fn first(tag: u8, a: u32, b: u32) -> u64 {
    (b as u64) << 32 | (a as u64) << 4 | tag as u64
}

/// A word that continues a record; `value` is not 0 and has 60 bits.
#[inline(always)]
pub const fn continuation(value: u64) -> u64 {
    value << 4
}

/// The first word of an event in two words.
#[inline(always)]
pub const fn long(kind: LongKind, id: u32) -> u64 {
    first(Tag::Long as u8, kind as u32, id)
}

/// The second word of an event in two words.
#[inline(always)]
pub const fn pointer(ptr: u64) -> u64 {
    continuation(ptr + 1)
}

/// The second word of an INFO.
#[inline(always)]
pub const fn size_and_family(size: u64, family: Family) -> u64 {
    continuation(size << 8 | family as u64)
}

/// The third word of an INFO of a family with an alignment.
#[inline(always)]
pub const fn alignment(align: u64) -> u64 {
    continuation(align + 1)
}

/// Up to [`TEXT_BYTES`] bytes of text, filled up with newlines.
pub fn text(bytes: &[u8]) -> u64 {
    let mut word = [b'\n'; 8];
    word[0] = 0;
    for (place, byte) in word[1..].iter_mut().zip(bytes) {
        *place = *byte;
    }
    u64::from_le_bytes(word)
}
