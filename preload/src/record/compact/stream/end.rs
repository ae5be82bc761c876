//! The end of the process: what is in the chunks is written out, by the thread that ends it or by the
//! streams' own, and what comes later at once. What cannot be written stays in its slot. (tests.rs has
//! all interleavings.)

#[cfg(test)]
mod tests;

use core::sync::atomic::{Ordering, fence};

use mtr_format::compact::chunk;

use super::room::{Outcome, write_out};
use super::{CAPACITY, Stream, streams};
use crate::log::chunks;

// Values of `Stream::end`, from `close` on.

/// The chunk has yet to be written out.
const OPEN: u32 = 0;
/// The thread that ends the process is writing it out.
const WRITING: u32 = 1;
/// The stream's own thread is writing it out.
const WRITING_ITSELF: u32 = 2;
/// It is in the file; the stream's own thread writes out what it stores from here on.
const WRITTEN: u32 = 3;
/// As [`WRITTEN`], but what is in the slot now could not be written: it stays there.
const STAYS: u32 = 4;

/// What follows from an attempt to write a chunk out.
fn state_after(outcome: Outcome) -> u32 {
    if outcome == Outcome::Stays { STAYS } else { WRITTEN }
}

impl Stream {
    /// As [`Stream::make_room`], after [`close`]: a chunk for each record, as long as they can be
    /// written.
    pub(super) fn make_room_after_end(&mut self, len: u32) -> bool {
        self.limit.store(0, Ordering::Relaxed);
        // Also where the chunk has no records yet: who ends the process would claim it while some are
        // stored.
        let state = self.write_out_if_open().unwrap_or_else(|state| state);
        match state {
            // What stays grows, and is tried again as a whole.
            STAYS if self.len + len <= CAPACITY => return true,
            // The slot has to stay as it is.
            STAYS | WRITING => {
                let Some(slot) = chunks::take() else { return false };
                chunks::note_saved(slot);
                self.set_slot(slot);
                self.end.store(WRITTEN, Ordering::Release);
            }
            _ if self.len == 0 => return true,
            _ => {}
        }
        self.begin(self.number + u32::from(self.len > 0));
        true
    }

    /// Writes the chunk out unless it was claimed before. The state after, or that in which it was.
    fn write_out_if_open(&self) -> Result<u32, u32> {
        let (order, otherwise) = (Ordering::AcqRel, Ordering::Acquire);
        self.end.compare_exchange(OPEN, WRITING_ITSELF, order, otherwise)?;
        let state = state_after(self.write_out(true));
        chunks::note_saved(self.records());
        self.end.store(state, Ordering::Release);
        Ok(state)
    }

    /// To be called behind each record from [`close`] on.
    #[cold]
    #[inline(never)]
    pub(super) fn write_out_at_once(&self) {
        // Of a fork's child that goes on with its parent's record.
        if !self.has_slot() {
            return;
        }
        // Not without a claim: it would be written again, and counted as lost should that fail.
        if self.write_out_if_open().is_ok() {
            return;
        }
        let state = state_after(self.write_out(true));
        let before = if state == STAYS { WRITTEN } else { STAYS };
        let (order, otherwise) = (Ordering::AcqRel, Ordering::Relaxed);
        let _ = self.end.compare_exchange(before, state, order, otherwise);
    }
}

/// Makes every stream write what comes from here on at once.
pub(in crate::record::compact) fn close() {
    chunks::close();
    fence(Ordering::SeqCst); // see `begin`
    for stream in streams() {
        // SAFETY: a stream that was opened stays for good. `limit` is an atomic; other threads go on
        // to use the rest.
        if let Some(limit) = unsafe { stream.as_ref() }.map(|stream| &stream.limit) {
            limit.store(0, Ordering::Relaxed);
        }
    }
}

/// Chunks with records that the streams have begun. Of a stream that goes on meanwhile, no more than
/// it has.
pub(crate) fn chunks_begun() -> u64 {
    let begun = |stream: &Stream| {
        // In this order: a number is stored behind the length 0.
        let number = stream.header_u32(chunk::NUMBER).load(Ordering::Acquire);
        let len = stream.header_u32(chunk::LENGTH).load(Ordering::Acquire);
        u64::from(number) + u64::from(len > 0)
    };
    // SAFETY: as above. A slot stays mapped, and what is read of it is atomic.
    let streams = streams().filter_map(|stream| unsafe { stream.as_ref() });
    streams.filter(|stream| stream.has_slot()).map(begun).sum()
}

/// Writes out what is in the chunks, after [`close`], but for those of streams that `is_busy`: their
/// threads are storing in them. Whether all are in the file now.
pub(in crate::record::compact) fn write_all(is_busy: impl Fn(*mut Stream) -> bool) -> bool {
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
            false => stream.end.compare_exchange(OPEN, WRITING, order, otherwise),
            true => Err(stream.end.load(otherwise)),
        };
        if claimed.is_ok() {
            // SAFETY: the stream's slot, which its thread leaves alone from now on.
            let state = state_after(unsafe { write_out(records, true) });
            chunks::note_saved(records);
            // Its thread may have taken another slot meanwhile.
            let _ = stream.end.compare_exchange(WRITING, state, order, otherwise);
        }
        is_all &= claimed.is_ok() || matches!(claimed, Err(WRITTEN | STAYS));
    }
    is_all
}
