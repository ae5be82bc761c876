//! Chunks: where one begins, and how it gets into the file.

#[cfg(test)]
mod tests;

use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use mtr_format::compact::chunk;
use mtr_format::compact::decode::{Decoder, Record};
use mtr_format::compact::op::{MAX_TEXT, TEXT};
use mtr_format::compact::sum;

use super::super::clock;
use super::order::{LONGEST_PERIOD, publish};
use super::{CAPACITY, Stream, streams};
use crate::global::{Scratch, Text};
use crate::lifecycle;
use crate::log::{self, chunks, file};
use crate::sys::{self, Errno};

impl Stream {
    /// Room for `len` bytes at the end of a chunk, of the next one if need be. False without a slot.
    #[cold]
    #[inline(never)]
    pub(super) fn make_room(&mut self, len: u32) -> bool {
        if !self.has_slot() {
            return false;
        }
        if sys::silence::is_silent() {
            return self.make_room_in_memory(len);
        }
        if chunks::is_closed() {
            return self.make_room_after_end(len);
        }
        if self.len + len > CAPACITY {
            self.next_chunk();
            self.sample();
        }
        self.has_slot()
    }

    /// Writes the chunk out and begins the next one.
    pub(super) fn next_chunk(&mut self) {
        // No signal handler runs meanwhile: one that forks would leave the child here, to go on with
        // its parent's chunk.
        let signals = sys::block_signals();
        if self.has_slot() {
            if self.write_out(false) == Outcome::Lost {
                self.demand_forgetting();
            }
            self.begin(self.number + 1);
        }
        sys::restore_signals(signals);
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
    pub(super) fn begin(&mut self, number: u32) {
        // Of a chunk that was lost the slot is empty, and says how much there was (see `lose`).
        let follows_loss = self.header_u32(chunk::LENGTH).load(Ordering::Relaxed) == 0;
        // First, so that nobody takes old records for the new chunk's.
        self.publish_len(0);
        self.number = number;
        self.stamp = clock::now_after_all().max(self.stamp);
        publish(self.stamp);
        (self.previous, self.address) = (0, 0);
        // What a process does at first is rare as often as not.
        self.period = if number == 0 { 1 } else { LONGEST_PERIOD };
        self.until_stamp = self.period;
        self.header_u64(chunk::ID).store(log::id(), Ordering::Relaxed);
        self.header_u32(chunk::STREAM).store(self.index, Ordering::Relaxed);
        self.header_u32(chunk::NUMBER).store(number, Ordering::Relaxed);
        self.header_u64(chunk::STAMP).store(self.stamp, Ordering::Relaxed);
        self.header_u64(chunk::TIME).store(lifecycle::time(), Ordering::Relaxed);
        self.header_u32(chunk::THREAD).store(self.thread, Ordering::Relaxed);
        self.header_u32(chunk::NODES).store(self.nodes, Ordering::Relaxed);
        if !follows_loss {
            self.header_u32(chunk::LOST).store(0, Ordering::Relaxed);
        }
        self.header_u32(chunk::FORGETS).store(self.forgets, Ordering::Relaxed);
        self.header_u32(chunk::STATED).store(0, Ordering::Relaxed);
        let mark = u32::from_le_bytes(chunk::MARK);
        self.header_u32(0).store(mark, Ordering::Release);
        self.limit.store(CAPACITY, Ordering::Relaxed);
        // Either `close` finds that limit, or its mark is seen here.
        fence(Ordering::SeqCst);
        if chunks::is_closed() {
            self.limit.store(0, Ordering::Relaxed);
        }
    }

    /// See the function.
    pub(super) fn write_out(&self, may_stay: bool) -> Outcome {
        match self.has_slot() {
            // SAFETY: the stream's own slot.
            true => unsafe { write_out(self.records(), may_stay) },
            false => Outcome::Written,
        }
    }
}

/// What has become of a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the file, or has no records.
    Written,
    /// It could not be written, but readers find it in the tail, as long as its slot is left as it is.
    Stays,
    /// It could not be written, and its events are counted.
    Lost,
}

/// A chunk as it is now, with its sum.
///
/// # Safety
/// `records` are those of a slot.
unsafe fn sealed_chunk_of<'a>(records: *mut u8) -> &'a [u8] {
    // SAFETY: the caller's promise; the sum has its place in the header, at its natural alignment.
    unsafe {
        let sum = sum::of(chunk_of(records));
        (*records.sub(chunk::HEADER).add(chunk::SUM).cast::<AtomicU32>())
            .store(sum, Ordering::Relaxed);
        chunk_of(records)
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

/// Writes a chunk out as it is now. The first of a trace has its place at the front.
///
/// # Safety
/// `records` are those of a slot.
unsafe fn write(records: *mut u8) -> sys::Result<()> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { sealed_chunk_of(records) };
    if bytes.len() == chunk::HEADER {
        return Ok(());
    }
    let is_front = bytes.get(chunk::STREAM..chunk::NUMBER + 4) == Some(&[0; 8]);
    let position = if is_front { 0 } else { chunks::place(bytes.len()) };
    file::write_chunk_at(position, bytes)
}

/// Writes a chunk out as it is now. When the process ends it `may_stay` in the tail.
///
/// # Safety
/// `records` are those of a slot, whose stream stores nothing meanwhile.
pub(super) unsafe fn write_out(records: *mut u8, may_stay: bool) -> Outcome {
    // SAFETY: the caller's promise.
    let Err(errno) = (unsafe { write(records) }) else { return Outcome::Written };
    if may_stay && chunks::is_in_file(records) && file::stays_in_tail(errno) {
        return Outcome::Stays;
    }
    // SAFETY: the caller's promise.
    unsafe { lose(records, errno) };
    Outcome::Lost
}

/// Counts the events of a chunk as lost, and takes them out of the slot: readers of the tail would take
/// them for recorded. A kill in between leaves them there and counted; in the other order they would be
/// neither. The next chunk's header says how many were lost before it.
///
/// # Safety
/// `records` are those of a slot.
#[cold]
unsafe fn lose(records: *mut u8, errno: Errno) {
    // SAFETY: the caller's promise.
    let lost = events_in(unsafe { chunk_of(records) }.get(chunk::HEADER..).unwrap_or(&[]));
    // SAFETY: a slot's header, its fields at their natural alignment.
    let field = |at: usize| unsafe { &*records.sub(chunk::HEADER).add(at).cast::<AtomicU32>() };
    file::lose(lost.into(), errno);
    field(chunk::LENGTH).store(0, Ordering::Release);
    // Behind that: as long as there are records, it speaks of what was lost before them.
    field(chunk::LOST).fetch_add(lost, Ordering::AcqRel);
    file::state_loss();
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
        write(unsafe { sealed_chunk_of(front.records()) });
    }
}

/// Appends a first chunk that holds these lines, of a trace without a stream as yet.
#[cold]
pub(crate) fn push_first_chunk<const N: usize>(id: u64, lines: &[u8], out: &mut Text<N>) {
    let length = lines.chunks(MAX_TEXT).map(|piece| 2 + piece.len() as u32).sum();
    let header = chunk::Header { id, length, ..chunk::Header::default() }.encode();
    let Some(mut chunk) = Scratch::<4096>::new() else { return };
    chunk.push(&header);
    for piece in lines.chunks(MAX_TEXT) {
        chunk.push(&[TEXT, piece.len() as u8]);
        chunk.push(piece);
    }
    let (behind, sum) = (chunk::SUM + 4, sum::of(chunk.as_bytes()).to_le_bytes());
    out.push(header.get(..chunk::SUM).unwrap_or(&[]));
    out.push(&sum);
    out.push(chunk.as_bytes().get(behind..).unwrap_or(&[]));
}
