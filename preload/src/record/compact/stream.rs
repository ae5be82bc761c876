//! The stream of a thread: where its records go (docs/trace-format.md, "Chunks").
//!
//! One thread at a time stores into a stream, so nothing here is shared but the length of the chunk,
//! which whoever reads the slot sees. A record is stored first, then the length.

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use mtr_format::compact::chunk;
use mtr_format::compact::decode::{Decoder, Record};
use mtr_format::compact::encode::{self, Address, Buffer, Short};
use mtr_format::compact::op::{Family, FreeKind, MAX_TEXT, Outcome, TEXT};

use super::{clock, users};
use crate::hot::HOT;
use crate::log::{self, chunks, file};
use crate::{lifecycle, sys};

/// Bytes of records in a chunk.
const CAPACITY: u32 = (chunk::CHUNK - chunk::HEADER) as u32;

/// Room for an event: a stamp and a record, each stored in units of eight bytes.
const EVENT: u32 = 40;
/// Room for a definition.
const DEFINITION: u32 = encode::MAX_RECORD as u32;

/// Most events between two stamps.
const LONGEST_PERIOD: u32 = 64;
/// Ticks per event from which on events are rare: reading the clock costs some 25.
const RARE: u64 = 1 << 12;
/// Ticks by which another thread's stamp may be ahead of one's own.
const MOST_AHEAD: u64 = 1 << 18;

/// Takes the place of a slot that there is not: a fork's child that was made in the middle of a
/// record goes on with it, but finds its stream wiped.
#[repr(C, align(64))]
struct Nowhere(UnsafeCell<[u8; chunk::CHUNK]>);

// SAFETY: nobody reads what is stored in it.
unsafe impl Sync for Nowhere {}

static NOWHERE: Nowhere = Nowhere(UnsafeCell::new([0; chunk::CHUNK]));

/// Values of [`Stream::end`], from [`close`] on.
mod end {
    /// The chunk has yet to be written out.
    pub(super) const OPEN: u32 = 0;
    /// The thread that ends the process is writing it out.
    pub(super) const WRITING: u32 = 1;
    /// The stream's own thread is writing it out.
    pub(super) const WRITING_ITSELF: u32 = 2;
    /// It is in the file; the stream's own thread writes out what it stores from here on.
    pub(super) const WRITTEN: u32 = 3;
}

/// See the module's documentation. All zeros is a stream without a slot, which stores nothing; the
/// kernel makes it that in a fork's child. Page-sized for that.
#[repr(C, align(4096))]
pub(super) struct Stream {
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
    /// See [`end`].
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
        self.stamp_now();
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
                _ => self.next_chunk(),
            }
        }
    }

    /// Forgets what was defined: return addresses mean something else from here on.
    #[cold]
    pub(super) fn forget(&mut self) {
        self.stamp_now();
        self.put(DEFINITION, &encode::forget());
        self.forgets += 1;
        self.nodes = 0;
    }

    // ---- records

    /// Stores an allocation.
    #[inline(always)]
    pub(super) fn alloc(&mut self, node: u32, size: usize, ptr: usize) {
        if !self.begin_record(EVENT) {
            return lose();
        }
        self.order(ptr);
        let address = Address::behind(&mut self.previous, ptr as u64);
        match encode::short_alloc(node, address, size as u64) {
            Some(pieces) => self.append(pieces),
            None => self.append_long_alloc(node, address, size),
        }
        self.end_record();
    }

    #[cold]
    #[inline(never)]
    fn append_long_alloc(&mut self, node: u32, address: Address, size: usize) {
        self.append_bytes(encode::alloc(node, address, size as u64).bytes());
    }

    #[cold]
    #[inline(never)]
    fn append_long_free(&mut self, node: u32, address: Address, kind: FreeKind) {
        self.append_bytes(encode::free(address, kind, node).bytes());
    }

    /// As [`Stream::alloc`], of another function than malloc.
    #[inline]
    pub(super) fn alloc_by(
        &mut self,
        family: Family,
        alignment: usize,
        node: u32,
        size: usize,
        ptr: usize,
    ) {
        self.store_event(EVENT + DEFINITION, |stream| {
            stream.order(ptr);
            let address = Address::behind(&mut stream.previous, ptr as u64);
            let family = encode::family(family, alignment as u64);
            let alloc = encode::alloc(node, address, size as u64);
            stream.append_parts(&[family.bytes(), alloc.bytes()]);
        });
    }

    /// Stores a free, called at `node`.
    #[inline(always)]
    pub(super) fn free(&mut self, node: u32, ptr: usize, kind: FreeKind) {
        if !self.begin_record(EVENT) {
            return lose();
        }
        self.order(ptr);
        let address = Address::behind(&mut self.previous, ptr as u64);
        match encode::short_free(address, kind, node) {
            Some(pieces) => self.append(pieces),
            None => self.append_long_free(node, address, kind),
        }
        self.end_record();
    }

    /// Stores a realloc. The place of its outcome, if it has one.
    #[inline]
    pub(super) fn realloc(&mut self, ptr: usize, outcome: Outcome) -> Option<*mut u8> {
        let mut place = None;
        self.store_event(EVENT, |stream| {
            stream.order(ptr);
            let address = Address::behind(&mut stream.previous, ptr as u64);
            let at = stream.len as usize + encode::OUTCOME_AT;
            stream.append_bytes(encode::realloc(address, outcome).bytes());
            // SAFETY: inside the record, which is inside the chunk.
            place = Some(unsafe { stream.records().add(at) });
        });
        place
    }

    /// Stores the outcome of the realloc that was stored last.
    pub(super) fn set_outcome(&self, place: *mut u8, outcome: Outcome) {
        if self.has_slot() {
            // SAFETY: what `realloc` returned; the chunk is the same, because nothing else was
            // stored in this stream meanwhile.
            unsafe { place.write_volatile(outcome as u8) };
        }
    }

    /// Stores an allocation that failed; `ptr` is the block that lives on.
    #[cold]
    pub(super) fn failed(
        &mut self,
        family: Family,
        alignment: usize,
        node: u32,
        size: usize,
        ptr: usize,
    ) {
        self.store_event(2 * DEFINITION, |stream| {
            let failed = encode::failed(node, size as u64, ptr as u64);
            match family {
                Family::Malloc => stream.append_bytes(failed.bytes()),
                _ => {
                    let family = encode::family(family, alignment as u64);
                    stream.append_parts(&[family.bytes(), failed.bytes()]);
                }
            }
        });
    }

    /// Defines a node; its number.
    pub(super) fn node(&mut self, parent: u32, address: u64) -> u32 {
        let mut number = 0;
        self.store(DEFINITION, |stream| {
            number = stream.nodes + 1;
            let record = encode::node(number, parent, address, stream.address);
            (stream.nodes, stream.address) = (number, address);
            stream.append_bytes(record.bytes());
        });
        number
    }

    /// Stores lines that are not records.
    #[cold]
    pub(super) fn text(&mut self, parts: &[&[u8]]) {
        // The records of other threads that rely on them come after.
        if self.len > 0 {
            self.stamp_now();
        }
        let mut bytes = parts.iter().copied().flatten().copied();
        loop {
            let mut piece = [0; MAX_TEXT];
            let len = piece.iter_mut().zip(&mut bytes).map(|(place, byte)| *place = byte).count();
            if len == 0 {
                return;
            }
            let piece = piece.get(..len).unwrap_or(&[]);
            let head = [TEXT, len as u8];
            self.store(2 + MAX_TEXT as u32, |stream| {
                stream.append_parts(&[&head, piece]);
            });
        }
    }

    /// Stores a line in one record; where its bytes are in the file if this is the front of the trace,
    /// else 0.
    #[cold]
    pub(super) fn text_in_front(&mut self, line: &[u8]) -> u64 {
        let mut at = 0;
        let head = [TEXT, line.len() as u8];
        self.store(2 + MAX_TEXT as u32, |stream| {
            if stream.index == 0 && stream.number == 0 {
                at = chunk::HEADER as u64 + u64::from(stream.len) + head.len() as u64;
            }
            stream.append_parts(&[&head, line]);
        });
        at
    }

    /// Notes the memory that the process has, now and then.
    #[cold]
    fn sample(&mut self) {
        if let Some(bytes) = lifecycle::resident_memory_now_and_then() {
            self.put(DEFINITION, &encode::resident(bytes));
        }
    }

    // ---- order

    /// Takes a stamp where the event at `ptr` needs one.
    #[inline(always)]
    fn order(&mut self, ptr: usize) {
        let table = HOT.users.load(Ordering::Relaxed);
        self.until_stamp -= 1;
        let is_due = self.until_stamp == 0;
        // SAFETY: not NULL, and what HOT has.
        if is_due || (!table.is_null() && unsafe { self.is_overtaken(table, ptr) }) {
            self.stamp_for(table, ptr);
        }
    }

    /// # Safety
    /// As [`users::take_over`].
    #[inline(always)]
    unsafe fn is_overtaken(&self, table: *const users::Table, ptr: usize) -> bool {
        let ahead = HOT.latest.0.load(Ordering::Relaxed).saturating_sub(self.stamp);
        // SAFETY: the caller's promise.
        unsafe { users::take_over(table, ptr, self.mark) || ahead > MOST_AHEAD }
    }

    #[cold]
    #[inline(never)]
    fn stamp_for(&mut self, table: *const users::Table, ptr: usize) {
        if self.until_stamp == 0 {
            // SAFETY: not NULL, and what HOT has.
            let is_anothers =
                !table.is_null() && unsafe { users::take_over(table, ptr, self.mark) };
            let before = self.stamp;
            self.stamp_at(if is_anothers { clock::now_after_all() } else { clock::now() });
            self.period = match self.stamp - before > u64::from(self.period) * RARE {
                true => (self.period / 4).max(1),
                false => (self.period * 2).min(LONGEST_PERIOD),
            };
            self.until_stamp = self.period;
        } else {
            self.stamp_now();
        }
    }

    /// Takes a stamp that is newer than those of all events that this thread can know of.
    pub(super) fn stamp_now(&mut self) {
        self.stamp_at(clock::now_after_all());
    }

    /// The last stamp; `None` without a slot.
    pub(super) fn stamp(&self) -> Option<u64> {
        self.has_slot().then_some(self.stamp)
    }

    /// Room for it is made here, unless the caller has made it.
    fn stamp_at(&mut self, stamp: u64) {
        if self.len + EVENT > CAPACITY && !self.make_room(EVENT) || !self.has_slot() {
            return;
        }
        let stamp = stamp.max(self.stamp);
        let since = stamp - self.stamp;
        self.stamp = stamp;
        self.until_stamp = self.period;
        match encode::short_stamp(since) {
            Some(short) => self.append([short]),
            None => self.append_bytes(encode::stamp(since).bytes()),
        }
        publish(stamp);
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

    /// Makes room for `len` bytes. False where there is none.
    #[inline(always)]
    fn begin_record(&mut self, len: u32) -> bool {
        self.len + len <= self.limit.load(Ordering::Relaxed) || self.make_room(len)
    }

    /// To be called when a record has been stored.
    #[inline(always)]
    fn end_record(&self) {
        if self.limit.load(Ordering::Relaxed) == 0 {
            self.write_out_at_once();
        }
    }

    #[cold]
    #[inline(never)]
    fn write_out_at_once(&self) {
        self.write_out();
    }

    fn put(&mut self, room: u32, record: &Buffer) {
        self.store(room, |stream| stream.append_bytes(record.bytes()));
    }

    /// Appends a record in pieces; there is room for eight bytes behind each.
    #[inline(always)]
    fn append<const N: usize>(&mut self, pieces: [Short; N]) {
        let mut len = self.len;
        for piece in pieces {
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

    /// Room for `len` bytes at the end of a chunk, of the next one if need be. False without a slot.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, len: u32) -> bool {
        if !self.has_slot() {
            return false;
        }
        if sys::silence::is_silent() {
            return self.make_room_in_memory(len);
        }
        if chunks::is_closed() {
            return self.make_room_after_end();
        }
        if self.len + len > CAPACITY {
            self.next_chunk();
            self.sample();
        }
        self.has_slot()
    }

    /// Writes the chunk out and begins the next one.
    fn next_chunk(&mut self) {
        // No signal handler runs meanwhile: one that forks would leave the child here, to go on with
        // its parent's chunk.
        let signals = sys::block_signals();
        if self.has_slot() {
            let lost = self.write_out();
            if lost > 0 {
                self.demand_forgetting();
            }
            self.begin(self.number + 1);
            self.header_u32(chunk::LOST).store(lost, Ordering::Relaxed);
        }
        sys::restore_signals(signals);
    }

    /// As [`Stream::make_room`], after [`close`]: a chunk for each record.
    fn make_room_after_end(&mut self) -> bool {
        self.limit.store(0, Ordering::Relaxed);
        if self.len == 0 {
            return true;
        }
        let (order, otherwise) = (Ordering::AcqRel, Ordering::Acquire);
        match self.end.compare_exchange(end::OPEN, end::WRITING_ITSELF, order, otherwise) {
            Ok(_) => {
                self.write_out();
                self.end.store(end::WRITTEN, Ordering::Release);
            }
            Err(end::WRITING) => {
                // Its slot has to stay as it is.
                let Some(slot) = chunks::take() else { return false };
                self.set_slot(slot);
                self.end.store(end::WRITTEN, Ordering::Release);
            }
            Err(_) => {}
        }
        self.begin(self.number + 1);
        true
    }

    /// As [`Stream::make_room`] when nothing can be written out: a full chunk stays where it is, and
    /// the next one gets another slot. When there is none left, all that comes is lost.
    #[cold]
    fn make_room_in_memory(&mut self, len: u32) -> bool {
        if self.len + len <= CAPACITY {
            self.limit.store(CAPACITY, Ordering::Relaxed);
            return true;
        }
        match chunks::take() {
            Some(slot) => {
                self.set_slot(slot);
                self.begin(self.number + 1);
            }
            None => {
                self.limit.store(0, Ordering::Relaxed);
                self.slot.store(0, Ordering::Relaxed);
            }
        }
        self.has_slot()
    }

    /// Begins a chunk in the slot.
    fn begin(&mut self, number: u32) {
        // First, so that nobody takes old records for the new chunk's.
        self.publish_len(0);
        self.number = number;
        self.stamp = clock::now_after_all().max(self.stamp);
        publish(self.stamp);
        (self.previous, self.address) = (0, 0);
        (self.period, self.until_stamp) = (LONGEST_PERIOD, LONGEST_PERIOD);
        self.header_u64(chunk::ID).store(log::id(), Ordering::Relaxed);
        self.header_u32(chunk::STREAM).store(self.index, Ordering::Relaxed);
        self.header_u32(chunk::NUMBER).store(number, Ordering::Relaxed);
        self.header_u64(chunk::STAMP).store(self.stamp, Ordering::Relaxed);
        self.header_u64(chunk::TIME).store(lifecycle::time(), Ordering::Relaxed);
        self.header_u32(chunk::THREAD).store(self.thread, Ordering::Relaxed);
        self.header_u32(chunk::NODES).store(self.nodes, Ordering::Relaxed);
        self.header_u32(chunk::LOST).store(0, Ordering::Relaxed);
        self.header_u32(chunk::FORGETS).store(self.forgets, Ordering::Relaxed);
        let mark = u32::from_le_bytes(chunk::MARK);
        self.header_u32(0).store(mark, Ordering::Release);
        self.limit.store(CAPACITY, Ordering::Relaxed);
        // Either `close` finds that limit, or its mark is seen here.
        fence(Ordering::SeqCst);
        if chunks::is_closed() {
            self.limit.store(0, Ordering::Relaxed);
        }
    }

    /// Writes the chunk out as it is now; the number of events that could not be.
    fn write_out(&self) -> u32 {
        match self.has_slot() {
            // SAFETY: the stream's own slot.
            true => unsafe { write_out(self.records()) },
            false => 0,
        }
    }
}

/// A chunk as it is now.
///
/// # Safety
/// `records` are those of a slot.
unsafe fn chunk_of<'a>(records: *mut u8) -> &'a [u8] {
    // SAFETY: the header stands before the records, its fields at their natural alignment; both are
    // inside of the slot. Another thread may be storing behind `len`.
    unsafe {
        let slot = records.sub(chunk::HEADER);
        let len = (*slot.add(chunk::LENGTH).cast::<AtomicU32>()).load(Ordering::Acquire);
        core::slice::from_raw_parts(slot, chunk::HEADER + len.min(CAPACITY) as usize)
    }
}

/// Writes a chunk out as it is now; the number of events that could not be. The first of a trace has
/// its place at the front.
///
/// # Safety
/// `records` are those of a slot.
unsafe fn write_out(records: *mut u8) -> u32 {
    // SAFETY: the caller's promise.
    let bytes = unsafe { chunk_of(records) };
    if bytes.len() == chunk::HEADER {
        return 0;
    }
    let is_front = bytes.get(chunk::STREAM..chunk::NUMBER + 4) == Some(&[0; 8]);
    let position = if is_front { 0 } else { chunks::place(bytes.len()) };
    let Err(errno) = file::write_chunk_at(position, bytes) else { return 0 };
    let lost = events_in(bytes.get(chunk::HEADER..).unwrap_or(&[]));
    file::lose(lost.into(), errno);
    file::state_loss();
    lost
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

/// Number of events among some records.
#[cold]
fn events_in(records: &[u8]) -> u32 {
    let mut decoder = Decoder::new();
    let is_event = |record: &Record<'_>| {
        use Record::{Alloc, Failed, Free, Realloc};
        matches!(record, Alloc { .. } | Free { .. } | Realloc { .. } | Failed { .. })
    };
    core::iter::from_fn(|| decoder.next(records)).filter(is_event).count() as u32
}

/// Hands the front of the trace, as it is now, to `write`.
#[cold]
pub(crate) fn with_front(write: impl FnOnce(&[u8])) {
    let front = streams().next().unwrap_or(null_mut());
    // SAFETY: a stream that was opened stays for good.
    if let Some(front) = unsafe { front.as_ref() }
        && front.has_slot()
    {
        // SAFETY: the stream's own slot.
        write(unsafe { chunk_of(front.records()) });
    }
}

/// Hands the pieces of a first chunk to `push` that holds these lines, of a trace without a stream as
/// yet.
#[cold]
pub(crate) fn first_chunk(id: u64, lines: &[u8], mut push: impl FnMut(&[u8])) {
    let length = lines.chunks(MAX_TEXT).map(|piece| 2 + piece.len() as u32).sum();
    push(&chunk::Header { id, length, ..chunk::Header::default() }.encode());
    for piece in lines.chunks(MAX_TEXT) {
        push(&[TEXT, piece.len() as u8]);
        push(piece);
    }
}

/// Makes every stream write what comes from here on at once.
pub(super) fn close() {
    chunks::close();
    fence(Ordering::SeqCst); // see `begin`
    for stream in streams() {
        // SAFETY: as above. `limit` is an atomic; other threads go on to use the rest.
        if let Some(limit) = unsafe { stream.as_ref() }.map(|stream| &stream.limit) {
            limit.store(0, Ordering::Relaxed);
        }
    }
}

/// Writes out what is in the chunks, after [`close`], but for those of streams that `is_busy`: their
/// threads are storing in them. Whether all are in the file now.
pub(super) fn write_all(is_busy: impl Fn(*mut Stream) -> bool) -> bool {
    let mut is_all = true;
    for at in streams() {
        // SAFETY: as above. What is used of other threads' streams is atomic.
        let Some(stream) = (unsafe { at.as_ref() }).filter(|stream| stream.has_slot()) else {
            continue;
        };
        // Before it is claimed: then its thread may take another one.
        let records = stream.records();
        let (order, otherwise) = (Ordering::AcqRel, Ordering::Acquire);
        let claimed = match is_busy(at) {
            false => stream.end.compare_exchange(end::OPEN, end::WRITING, order, otherwise),
            true => Err(stream.end.load(otherwise)),
        };
        if claimed.is_ok() {
            // SAFETY: the stream's slot, which its thread leaves alone from now on.
            unsafe { write_out(records) };
            stream.end.store(end::WRITTEN, Ordering::Release);
        }
        is_all &= claimed.is_ok() || claimed == Err(end::WRITTEN);
    }
    is_all
}

/// Tells the other streams of a stamp, unless they know one that is about as new.
#[inline(always)]
fn publish(stamp: u64) {
    let latest = &HOT.latest.0;
    if stamp.saturating_sub(latest.load(Ordering::Relaxed)) > MOST_AHEAD / 2 {
        latest.store(stamp, Ordering::Relaxed);
    }
}
