//! The stream of a thread: where its records go (docs/trace-format.md, "Chunks").
//!
//! One thread at a time stores into a stream, so nothing here is shared but the length of the chunk,
//! which whoever reads the slot sees. A record is stored first, then the length.

mod end;
mod order;
mod records;
mod room;

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use mtr_format::compact::chunk;
use mtr_format::compact::encode::{self, Buffer, Short};

use super::users;
use crate::hot::HOT;
use crate::log::{chunks, file};
use crate::sys;

pub(crate) use end::chunks_begun;
pub(super) use end::{close, write_all};
pub(crate) use room::{push_first_chunk, with_front};

/// Bytes of records in a chunk.
const CAPACITY: u32 = (chunk::CHUNK - chunk::HEADER) as u32;

/// Room for an event: a stamp and a record, each stored in units of eight bytes.
const EVENT: u32 = 40;
/// Room for a definition.
const DEFINITION: u32 = encode::MAX_RECORD as u32;

/// Takes the place of a slot that there is not: a fork's child that was made in the middle of a
/// record goes on with it, but finds its stream wiped.
#[repr(C, align(64))]
struct Nowhere(UnsafeCell<[u8; chunk::CHUNK]>);

// SAFETY: nobody reads what is stored in it.
unsafe impl Sync for Nowhere {}

static NOWHERE: Nowhere = Nowhere(UnsafeCell::new([0; chunk::CHUNK]));

/// See the module's documentation. All zeros is a stream without a slot, which stores nothing; the
/// kernel makes it that in a fork's child. Page-sized for that.
#[repr(C, align(4096))]
pub(super) struct Stream {
    /// Keeps the rest out of the cache set of a page's first line. Each event stores to the header of a
    /// slot as well, which is such a line, and where a processor guesses the way of a set by a hash of
    /// the address (AMD's do), two lines of one hash throw each other out: 10 ns an event.
    _apart: [u64; 8],
    /// Records are stored up to here as a matter of course. 0: everything is a rare case.
    limit: AtomicU32,
    /// Bytes of records in the chunk.
    len: u32,
    /// The slot, as its distance from [`NOWHERE`]; 0: none.
    slot: AtomicUsize,
    /// What the next address is a difference to.
    previous: u64,
    /// Events until the next stamp; not 0.
    until_stamp: u32,
    /// See [`users::mark`].
    mark: u32,
    /// The last stamp.
    stamp: u64,
    /// Nodes defined.
    nodes: u32,
    /// The return address of the node that was defined last in this chunk.
    address: u64,
    /// Events from one stamp to the next.
    period: u32,
    /// Number of this stream.
    index: u32,
    /// Number of the chunk.
    number: u32,
    /// TID of the thread that the stream belongs to.
    thread: u32,
    /// How often [`Stream::forget`] was called.
    forgets: u32,
    /// See end.rs.
    end: AtomicU32,
    /// What definitions are valid for (thread.rs); 0: nothing.
    pub(super) epoch: u64,
}

/// All streams of this process, by number.
static STREAMS: [AtomicPtr<Stream>; chunks::MOST] =
    [const { AtomicPtr::new(null_mut()) }; chunks::MOST];

/// The streams that there are.
pub(super) fn streams() -> impl Iterator<Item = *mut Stream> {
    let count = HOT.streams.load(Ordering::Acquire) as usize;
    STREAMS.iter().take(count).map(|stream| stream.load(Ordering::Acquire))
}

impl Stream {
    /// Whether there is a slot to store into.
    #[inline(always)]
    pub(super) fn has_slot(&self) -> bool {
        self.slot.load(Ordering::Relaxed) != 0
    }

    /// The records of the chunk; its header stands before them.
    #[inline(always)]
    fn records(&self) -> *mut u8 {
        let slot = NOWHERE.0.get().cast::<u8>().wrapping_add(self.slot.load(Ordering::Relaxed));
        slot.wrapping_add(chunk::HEADER)
    }

    fn set_slot(&self, slot: *mut u8) {
        let distance = slot.addr().wrapping_sub(NOWHERE.0.get().addr());
        self.slot.store(distance, Ordering::Release);
    }

    /// There is no room for more definitions, or some are lost: they begin anew with the next event.
    #[cold]
    pub(super) fn demand_forgetting(&mut self) {
        self.epoch = 0;
    }

    /// Takes a slot and begins the first chunk. Without one, events are lost (and counted).
    #[cold]
    pub(super) fn open(&mut self) {
        let index = HOT.streams.fetch_add(1, Ordering::AcqRel);
        let slot = STREAMS.get(index as usize).and_then(|place| {
            let slot = chunks::take()?;
            place.store(self, Ordering::Release);
            Some(slot)
        });
        let Some(slot) = slot else { return };
        // Before this stream stores an event.
        if index > 0 {
            users::start();
        }
        self.set_slot(slot);
        (self.index, self.number, self.mark) = (index, 0, users::mark(index));
        (self.nodes, self.forgets) = (0, 0);
        self.thread = sys::gettid() as u32;
        self.begin(0);
        if index > 0 {
            // Its first records would make a chunk of their own otherwise.
            self.sample();
        }
    }

    /// The stream belongs to another thread from here on.
    #[cold]
    pub(super) fn hand_over(&mut self) {
        let thread = sys::gettid() as u32;
        self.store_stamp();
        self.put(DEFINITION, &encode::thread(thread));
        // Not before: a chunk that was begun for that record is still the last thread's.
        self.thread = thread;
    }

    /// To be called when a thread was stopped for good in the middle of something (by a jump out of
    /// a signal handler, or by its cancellation): what it had not finished is left out, and what
    /// the next record would be a difference to is said anew.
    #[cold]
    pub(super) fn mend(&mut self) {
        self.epoch = 0;
        if self.has_slot() {
            self.len = self.header_u32(chunk::LENGTH).load(Ordering::Relaxed).min(CAPACITY);
            match self.len {
                0 => self.begin(self.number),
                // It may have been written out already.
                _ if chunks::is_closed() => drop(self.make_room_after_end(CAPACITY)),
                _ => self.next_chunk(),
            }
        }
    }

    /// Forgets what was defined: return addresses mean something else from here on.
    #[cold]
    pub(super) fn forget(&mut self) {
        self.store_stamp();
        self.put(DEFINITION, &encode::forget());
        self.forgets += 1;
        self.nodes = 0;
    }

    // ---- storing

    /// Makes room for `len` bytes, runs `record`, and ends it. False where there is no room.
    #[inline]
    fn store(&mut self, len: u32, record: impl FnOnce(&mut Self)) -> bool {
        let has_room = self.begin_record(len);
        if has_room {
            record(self);
            self.end_record();
        }
        has_room
    }

    /// As [`Stream::store`], of an event: without room it is lost.
    #[inline]
    fn store_event(&mut self, len: u32, record: impl FnOnce(&mut Self)) {
        if !self.store(len, record) {
            lose();
        }
    }

    #[inline(always)]
    fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Makes room for `len` bytes. False where there is none.
    #[inline(always)]
    fn begin_record(&mut self, len: u32) -> bool {
        self.len + len <= self.limit() || self.make_room(len)
    }

    /// To be called when a record has been stored.
    #[inline(always)]
    pub(super) fn end_record(&self) {
        if self.limit() == 0 {
            self.write_out_at_once();
        }
    }

    fn put(&mut self, room: u32, record: &Buffer) {
        self.store(room, |stream| stream.append_bytes(record.bytes()));
    }

    /// Appends a record in pieces; there is room for eight bytes behind each.
    #[inline(always)]
    fn append<const N: usize>(&mut self, pieces: [Short; N]) {
        let mut len = self.len;
        for piece in pieces {
            // Where the slot is, is asked anew each time: see `Nowhere`.
            // SAFETY: the room was made, so this is inside of the slot.
            unsafe {
                self.records().add(len as usize).cast::<u64>().write_unaligned(piece.bytes);
            }
            len += piece.len;
        }
        self.publish_len(len);
    }

    #[cold]
    fn append_bytes(&mut self, bytes: &[u8]) {
        self.append_parts(&[bytes]);
    }

    /// Appends one record; there is room for it.
    fn append_parts(&mut self, parts: &[&[u8]]) {
        let mut len = self.len;
        for byte in parts.iter().copied().flatten() {
            // SAFETY: as in `append`.
            unsafe { self.records().add(len as usize).write(*byte) };
            len += 1;
        }
        self.publish_len(len);
    }

    #[inline(always)]
    fn publish_len(&mut self, len: u32) {
        self.len = len;
        // Release: who sees this length sees the record.
        self.header_u32(chunk::LENGTH).store(len, Ordering::Release);
    }

    #[inline(always)]
    fn header_u32(&self, at: usize) -> &AtomicU32 {
        // SAFETY: the header stands before the records, its fields at their natural alignment.
        unsafe { &*self.records().sub(chunk::HEADER).add(at).cast() }
    }

    fn header_u64(&self, at: usize) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { &*self.records().sub(chunk::HEADER).add(at).cast() }
    }
}

/// Counts an event for which there is no slot. Not in a fork's child that has not begun its trace: it
/// would be its parent's loss.
#[cold]
#[inline(never)]
fn lose() {
    if !HOT.is_new() {
        file::lose(1, if sys::silence::is_silent() { libc::EPERM } else { libc::ENOMEM });
    }
}
