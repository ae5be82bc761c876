//! Completing the log of this process's image before an exec, which left its tail beside it.

use mtr_format::compact::chunk::{self, Header};
use mtr_format::compact::sum;
use mtr_format::tail;

use super::closed::{self, Closed};
use super::tail_file::{open_tail, remove_tail};
use super::{limits, ring, whose};
use crate::global::{Path, Scratch, Text};
use crate::sys::{self, Fd};

/// Writes the tail of `log` into it and removes the tail. Nobody else writes to either: an exec ends
/// all threads. What cannot be done is left to the readers, who lay the tail over the log.
pub(super) fn absorb(log: &Path) {
    let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NOCTTY;
    let Ok(fd) = sys::openat(log.as_c_str(), flags, 0) else { return };
    if let Some(tail_fd) = open_tail(log) {
        if write_out(fd, tail_fd).is_some() {
            remove_tail(log);
        }
        sys::close(tail_fd);
    }
    sys::close(fd);
}

/// `None` when the tail is not one of this log, or not all of it could be written.
fn write_out(log: Fd, tail_fd: Fd) -> Option<()> {
    let len = usize::try_from(sys::fstat(tail_fd).ok()?.st_size).ok()?;
    let mapped = (len >= tail::BLOCKS).then(|| sys::map_private(tail_fd, len).ok()).flatten()?;
    // SAFETY: a private mapping of that many bytes of a file that nobody else knows any more.
    let bytes = unsafe { core::slice::from_raw_parts(mapped, len) };
    let written = write_blocks(log, bytes);
    // SAFETY: `bytes` is not used any more.
    unsafe { sys::unmap(mapped.cast_mut(), len) };
    written
}

fn write_blocks(log: Fd, bytes: &[u8]) -> Option<()> {
    let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let half = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let mut start = Scratch::<512>::new()?;
    let start = start.space();
    // SAFETY: `start` is a slice.
    let read = unsafe { sys::pread(log, start.as_mut_ptr(), start.len(), 0) }.ok()?;
    let (id, is_compact) = whose::id_of(start.get(..read)?)?;
    // A tail that has lost records keeps the count of them.
    let magic = if is_compact { tail::MAGIC2 } else { tail::MAGIC };
    let is_whole = word(tail::LOST)? == 0 && half(tail::UNSAVED)? == 0;
    if bytes.get(..8)? != magic || word(tail::ID)? != id || !is_whole {
        return None;
    }
    if is_compact {
        let used = tail::SLOTS + half(tail::BLOCK_COUNT)? as usize * chunk::CHUNK;
        return write_chunks(log, id, bytes.get(..used).unwrap_or(bytes));
    }
    let (size, count) = (half(tail::BLOCK_SIZE)? as usize, half(tail::BLOCK_COUNT)? as usize);
    let mut all = Some(());
    for index in 0..count.min(tail::MAX_BLOCKS) {
        let number = word(tail::NUMBERS + 8 * index)?;
        if number == tail::UNUSED {
            continue;
        }
        let from = tail::BLOCKS + size * index;
        let position = (number & !tail::BUSY) * size as u64;
        ring::for_each_run(bytes.get(from..from + size)?, |at, run| {
            all = all.and(write(log, run, position + at as u64));
        });
    }
    all
}

/// Appends the chunks in the slots of a tail, and states that the trace is whole without it. A chunk
/// that is in the trace already is there twice then, which readers know.
fn write_chunks(log: Fd, id: u64, bytes: &[u8]) -> Option<()> {
    let ours = |slot: &[u8]| Header::parse(slot).filter(|header| header.id == id);
    let slots = || bytes.get(tail::SLOTS..).unwrap_or(&[]).chunks(chunk::CHUNK);
    let end = u64::try_from(sys::fstat(log).ok()?.st_size).ok()?;
    // The front of the trace is room for one chunk.
    let mut position = end.max(chunk::CHUNK as u64).next_multiple_of(chunk::ALIGN as u64);
    let mut begun = 0;
    for slot in slots() {
        let Some(header) = ours(slot) else { continue };
        // Without system calls, full chunks of a stream stay in slots of their own.
        let is_last =
            |other: Header| other.stream != header.stream || other.number <= header.number;
        if slots().filter_map(ours).all(is_last) {
            begun += u64::from(header.number) + u64::from(header.length > 0);
        }
        if header.length == 0 {
            continue;
        }
        let chunk = slot.get(..chunk::HEADER + header.length as usize)?;
        // The first chunk has its place at the front.
        let is_front = header.stream == 0 && header.number == 0;
        write_chunk(log, chunk, if is_front { 0 } else { position })?;
        position += if is_front { 0 } else { header.size() as u64 };
    }
    let (stamp, time) = last_reading(bytes).unwrap_or((0, 0));
    let bytes = u64::try_from(sys::fstat(log).ok()?.st_size).ok()?;
    state_closed(log, &Closed { bytes, chunks: begun, stamp, time })
}

/// Writes a chunk with its sum.
fn write_chunk(log: Fd, bytes: &[u8], position: u64) -> Option<()> {
    write(log, bytes, position)?;
    write(log, &sum::of(bytes).to_le_bytes(), position + chunk::SUM as u64)
}

/// The last reading of the clock in a tail: a stamp and its time.
fn last_reading(tail: &[u8]) -> Option<(u64, u64)> {
    let word = |at: usize| tail.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let number = word(tail::CLOCK).filter(|number| *number > 0)?;
    let place = tail::CLOCK_READINGS + 16 * (number & 1) as usize;
    Some((word(place)?, word(place + 8)?))
}

/// Writes the `# closed` line where its first chunk has room for it.
fn state_closed(log: Fd, closed: &Closed) -> Option<()> {
    let mut header = [0; chunk::HEADER];
    // SAFETY: `header` is an array.
    let read = unsafe { sys::pread(log, header.as_mut_ptr(), header.len(), 0) };
    let stated = Header::parse(&header).filter(|_| read == Ok(header.len()))?.stated.range();
    let mut line = Text::<128>::EMPTY;
    closed::push_line(closed, &mut line);
    // It is the last of the lines that are overwritten.
    match stated.end.checked_sub(line.as_bytes().len()).filter(|at| *at >= stated.start) {
        Some(at) => write(log, line.as_bytes(), at as u64),
        None => Some(()),
    }
}

fn write(log: Fd, bytes: &[u8], position: u64) -> Option<()> {
    if position + bytes.len() as u64 > limits::largest().0 {
        return None;
    }
    // SAFETY: `bytes` is a slice.
    let written = unsafe { sys::pwrite(log, bytes.as_ptr(), bytes.len(), position) };
    (written == Ok(bytes.len())).then_some(())
}
