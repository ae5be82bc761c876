//! The state that every hook touches: one page, wiped by the kernel in a fork's child.
//!
//! The wipe is how a child is told from its parent without a system call per event and without
//! pthread_atfork, which `_Fork` and raw clone pass by: the child finds [`State::New`] and opens a
//! log of its own before it writes anywhere. A vfork child shares its parent's memory and is, for
//! the heap, its parent.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::record::compact::users::Table;
use crate::sites;

/// What a hook does with an event. Stored as `u32` in [`Hot::state`].
///
/// ```text
/// New --start--> Text, Compact or Guarded <--mtrace/muntrace--> Off
///   \--cannot trace, or not wanted--> Off for good (see lifecycle.rs)
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// Not started in this process. Zero, because that is what the kernel wipes with.
    New = 0,
    /// Events are passed on only.
    Off = 1,
    /// Events become lines of the log.
    Text = 2,
    /// Events become records of a compact trace.
    Compact = 3,
    /// One of the two, but for what an allocator calls of itself (operators.rs).
    Guarded = 4,
}

/// Entries of the window of blocks. A line that is stored so late that the log has grown by this
/// many blocks meanwhile makes one block in as many go straight to the file.
pub(crate) const WINDOW: usize = 256;

/// See the module's documentation. Page-aligned and page-sized, so that wiping it wipes nothing
/// else.
#[repr(C, align(4096))]
pub(crate) struct Hot {
    /// A [`State`]. First, because a hook reads it by the address of the whole.
    pub(crate) state: AtomicU32,
    /// The ring is closed: what is stored in it now has to be written to the file too.
    pub(crate) is_ring_closed: AtomicBool,
    /// The blocks of the ring (log/ring.rs).
    pub(crate) blocks: AtomicPtr<u8>,
    /// The block numbers of the ring, in the tail's first page.
    pub(crate) numbers: AtomicPtr<AtomicU64>,
    /// Call sites (sites.rs).
    pub(crate) sites: AtomicPtr<sites::Table>,
    /// Mixed into the keys of call sites; another value makes all that are cached stale.
    pub(crate) generation: AtomicU64,
    /// Who used which address last (record/compact/users.rs); NULL in a process with one stream.
    pub(crate) users: AtomicPtr<Table>,
    /// Streams of the compact trace.
    pub(crate) streams: AtomicU32,
    /// Which slot of the ring holds which block of the log (log/ring.rs).
    pub(crate) window: [AtomicU64; WINDOW],
    /// Length of the log: where the next line (or chunk of a compact trace) goes. On a cache line of
    /// its own, because threads take turns at it.
    pub(crate) cursor: CacheLine<AtomicU64>,
    /// About the newest stamp of any stream.
    pub(crate) latest: CacheLine<AtomicU64>,
}

/// A value that shares its cache line with nothing.
#[repr(C, align(64))]
pub(crate) struct CacheLine<T>(pub(crate) T);

/// The one instance. In .bss, whose pages are anonymous memory as madvise(2) asks.
pub(crate) static HOT: Hot = Hot {
    state: AtomicU32::new(State::New as u32),
    is_ring_closed: AtomicBool::new(false),
    blocks: AtomicPtr::new(core::ptr::null_mut()),
    numbers: AtomicPtr::new(core::ptr::null_mut()),
    sites: AtomicPtr::new(core::ptr::null_mut()),
    generation: AtomicU64::new(0),
    users: AtomicPtr::new(core::ptr::null_mut()),
    streams: AtomicU32::new(0),
    window: [const { AtomicU64::new(0) }; WINDOW],
    cursor: CacheLine(AtomicU64::new(0)),
    latest: CacheLine(AtomicU64::new(0)),
};

impl Hot {
    /// What to do with an event. Acquire, because it is what makes the other fields valid.
    #[inline(always)]
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            2 => State::Text,
            3 => State::Compact,
            4 => State::Guarded,
            0 => State::New,
            _ => State::Off,
        }
    }

    /// Whether each event becomes a line of the log. Acquire, as in [`Hot::state`].
    #[inline(always)]
    pub(crate) fn is_text(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Text as u32
    }

    /// Whether each event becomes a record of a compact trace. Acquire, as in [`Hot::state`].
    #[inline(always)]
    pub(crate) fn is_compact(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Compact as u32
    }

    /// Whether events are recorded.
    pub(crate) fn is_on(&self) -> bool {
        matches!(self.state(), State::Text | State::Compact | State::Guarded)
    }

    /// Whether this process has neither started nor refused.
    pub(crate) fn is_new(&self) -> bool {
        self.state() == State::New
    }

    /// Publishes a state, after all that it relies on.
    pub(crate) fn set(&self, state: State) {
        self.state.store(state as u32, Ordering::Release);
    }
}

unsafe extern "C" {
    /// glibc's promise that no other thread exists; its own malloc relies on it.
    static __libc_single_threaded: core::ffi::c_char;
}

/// Whether this is the only thread of the process.
#[inline(always)]
pub(crate) fn single_threaded() -> bool {
    // SAFETY: a byte that only this thread can change from true to false, in pthread_create.
    unsafe { (&raw const __libc_single_threaded).read_volatile() != 0 }
}
