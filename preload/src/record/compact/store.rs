//! What a thread has defined, in the order of definition, and an index by content.
//!
//! The order matters: a program that does a thing again meets its stacks in the order in which it
//! met them first, so the record behind the one found last is the one to try first. It is in the
//! cache, where a probe of a large index is not.

use core::ptr::null_mut;

use crate::sys;

/// A definition. All zeros is a sound value.
pub(super) trait Record: Copy {
    /// Spreads over all 64 bits; depends on what is defined, not on what it is known by.
    fn hash(&self) -> u64;
}

/// See the module's documentation. All zeros is an empty store. Number 0 is never given.
#[repr(C)]
pub(super) struct Store<R> {
    records: *mut R,
    /// Numbers `1..=len` are given.
    len: u32,
    /// Records that there is room for, number 0 included; the index has two places for each.
    capacity: u32,
    index: *mut u32,
}

const FIRST_CAPACITY: u32 = 1 << 10;
/// A thread that has defined this much forgets it and begins anew.
const LAST_CAPACITY: u32 = 1 << 22;
/// Room for the records that one event may need.
const RESERVE: u32 = 1 << 13;

impl<R: Record> Store<R> {
    /// The record with this number; all zeros where there is none.
    #[inline(always)]
    pub(super) fn get(&self, number: u32) -> Option<&R> {
        // SAFETY: numbers up to `len` have been written.
        (number <= self.len && number != 0).then(|| unsafe { &*self.records.add(number as usize) })
    }

    /// As [`Store::get`].
    #[inline(always)]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut R> {
        // SAFETY: as in `get`; the store belongs to this thread.
        (number <= self.len && number != 0)
            .then(|| unsafe { &mut *self.records.add(number as usize) })
    }

    /// The number of a record with this hash for which `is_wanted` holds; 0 for none.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_wanted: impl Fn(&R) -> bool) -> u32 {
        if self.capacity == 0 {
            return 0;
        }
        let mut place = self.first_place(hash);
        loop {
            // SAFETY: `place` is below the length of the index.
            let number = unsafe { *self.index.add(place) };
            if number == 0 || self.get(number).is_some_and(&is_wanted) {
                return number;
            }
            place = (place + 1) & self.place_mask();
        }
    }

    /// Adds a record and returns its number; 0 when there is no memory.
    #[cold]
    #[inline(never)]
    pub(super) fn push(&mut self, record: R) -> u32 {
        if self.len + 1 >= self.capacity && !self.grow() {
            return 0;
        }
        self.len += 1;
        let number = self.len;
        // SAFETY: below the capacity.
        unsafe { self.records.add(number as usize).write(record) };
        self.enter(number, record.hash());
        number
    }

    /// Whether there may be no room for the records of one more event.
    pub(super) fn is_full(&self) -> bool {
        self.len >= LAST_CAPACITY - RESERVE
    }

    #[inline(always)]
    fn place_mask(&self) -> usize {
        self.capacity as usize * 2 - 1
    }

    #[inline(always)]
    fn first_place(&self, hash: u64) -> usize {
        (hash >> 32) as usize & self.place_mask()
    }

    fn enter(&mut self, number: u32, hash: u64) {
        let mut place = self.first_place(hash);
        // SAFETY: places are below the length of the index, half of which are free.
        unsafe {
            while *self.index.add(place) != 0 {
                place = (place + 1) & self.place_mask();
            }
            *self.index.add(place) = number;
        }
    }

    fn bytes(capacity: u32) -> (usize, usize) {
        (capacity as usize * size_of::<R>(), capacity as usize * 2 * size_of::<u32>())
    }

    fn grow(&mut self) -> bool {
        let capacity = if self.capacity == 0 { FIRST_CAPACITY } else { self.capacity * 4 };
        let (records_len, index_len) = Self::bytes(capacity);
        if capacity > LAST_CAPACITY {
            return false;
        }
        let Ok(records) = sys::map_anonymous(records_len) else { return false };
        let Ok(index) = sys::map_anonymous(index_len) else {
            // SAFETY: just made, nobody knows it.
            unsafe { sys::unmap(records, records_len) };
            return false;
        };
        let old = Store { ..*self };
        *self = Store { records: records.cast(), len: old.len, capacity, index: index.cast() };
        if old.capacity > 0 {
            // SAFETY: both have room for the old records.
            unsafe { self.records.copy_from_nonoverlapping(old.records, old.len as usize + 1) };
            for number in 1..=self.len {
                if let Some(record) = self.get(number).copied() {
                    self.enter(number, record.hash());
                }
            }
            old.unmap();
        }
        true
    }

    /// Forgets all. A small store keeps its memory: short threads come and go.
    pub(super) fn clear(&mut self) {
        if self.capacity == FIRST_CAPACITY {
            self.len = 0;
            // SAFETY: the whole index.
            unsafe { self.index.write_bytes(0, self.place_mask() + 1) };
            return;
        }
        self.release();
    }

    /// Forgets all and keeps no memory.
    fn release(&mut self) {
        let old = Store { ..*self };
        *self = Store { records: null_mut(), len: 0, capacity: 0, index: null_mut() };
        if old.capacity > 0 {
            old.unmap();
        }
    }

    fn unmap(self) {
        let (records_len, index_len) = Self::bytes(self.capacity);
        // SAFETY: the store's own memory, which nothing refers to any more.
        unsafe {
            sys::unmap(self.records.cast(), records_len);
            sys::unmap(self.index.cast(), index_len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Square(u64);

    impl Record for Square {
        fn hash(&self) -> u64 {
            self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }
    }

    #[test]
    fn what_was_added_is_found_by_number_and_by_content() {
        let mut store = Store { records: null_mut(), len: 0, capacity: 0, index: null_mut() };
        let find = |store: &Store<Square>, x: u64| store.find(Square(x).hash(), |r| r.0 == x);
        assert_eq!(find(&store, 1), 0);
        assert_eq!(store.get(1), None);
        for x in 0..100_000 {
            assert_eq!(find(&store, x), 0);
            assert_eq!(store.push(Square(x)), x as u32 + 1);
        }
        for x in 0..100_000 {
            assert_eq!(find(&store, x), x as u32 + 1);
            assert_eq!(store.get(x as u32 + 1), Some(&Square(x)));
        }
        store.clear();
        assert_eq!(find(&store, 5), 0);
    }
}
