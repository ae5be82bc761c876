//! Stamps: when an event of one thread comes before an event of another (ARCHITECTURE.md, "Why the
//! order of streams is right").

use core::sync::atomic::Ordering;

use mtr_format::compact::encode;

use super::super::{clock, users};
use super::{CAPACITY, EVENT, Stream};
use crate::hot::HOT;

/// Most events between two stamps.
pub(super) const LONGEST_PERIOD: u32 = 64;
/// Ticks per event from which on events are rare: reading the clock costs some 25.
const RARE: u64 = 1 << 12;
/// Ticks by which another thread's stamp may be ahead of one's own.
const MOST_AHEAD: u64 = 1 << 18;

impl Stream {
    /// Takes a stamp where the event at `ptr` needs one.
    #[inline(always)]
    pub(super) fn order(&mut self, ptr: usize) {
        let table = HOT.users.load(Ordering::Relaxed);
        self.until_stamp -= 1;
        let is_due = self.until_stamp == 0;
        // SAFETY: not NULL, and what HOT has.
        if is_due || (!table.is_null() && unsafe { self.is_overtaken(table, ptr) }) {
            self.stamp_for(table, ptr);
        }
    }

    /// Whether an event at `ptr` needs no stamp.
    #[inline(always)]
    pub(super) fn goes_on_in_order(&self, ptr: usize) -> bool {
        let table = HOT.users.load(Ordering::Relaxed);
        // SAFETY: not NULL, and what HOT has.
        let was_last = || unsafe { users::was_last(table, ptr, self.mark) };
        self.until_stamp > 1 && (table.is_null() || was_last() && !self.is_behind())
    }

    /// Whether another stream has a stamp that is much newer than the last one here.
    #[inline(always)]
    fn is_behind(&self) -> bool {
        HOT.latest.0.load(Ordering::Relaxed).saturating_sub(self.stamp) > MOST_AHEAD
    }

    /// # Safety
    /// As [`users::take_over`].
    #[inline(always)]
    unsafe fn is_overtaken(&self, table: *const users::Table, ptr: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { users::take_over(table, ptr, self.mark) || self.is_behind() }
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

    /// As [`Stream::stamp_now`], where it is no part of a record: who ends the process may be writing the
    /// chunk out.
    #[cold]
    pub(in crate::record::compact) fn store_stamp(&mut self) {
        self.store(EVENT, Stream::stamp_now);
    }

    /// The last stamp; `None` without a slot.
    pub(in crate::record::compact) fn stamp(&self) -> Option<u64> {
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
}

/// Tells the other streams of a stamp, unless they know one that is about as new.
#[inline(always)]
pub(super) fn publish(stamp: u64) {
    let latest = &HOT.latest.0;
    if stamp.saturating_sub(latest.load(Ordering::Relaxed)) > MOST_AHEAD / 2 {
        latest.store(stamp, Ordering::Relaxed);
        clock::note_time(stamp);
    }
}
