//! What a thread has defined, by number.

use core::ptr::null_mut;

use crate::sys;

/// Records with the numbers from 0 on. All zeros is an empty store.
#[repr(C)]
pub(super) struct Store<R> {
    records: *mut R,
    /// Numbers below this one are given.
    len: u32,
    /// Records that there is room for.
    capacity: u32,
}

const FIRST_CAPACITY: u32 = 1 << 10;
/// A thread that has defined this much forgets it and begins anew.
const LAST_CAPACITY: u32 = 1 << 22;
/// Room for the records that one event may need.
const RESERVE: u32 = 1 << 13;

impl<R: Copy> Store<R> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The record with this number.
    #[inline(always)]
    pub(super) fn get(&self, number: u32) -> Option<&R> {
        // SAFETY: numbers below `len` have been written.
        (number < self.len).then(|| unsafe { &*self.records.add(number as usize) })
    }

    /// Changes the record with this number, if there is one.
    #[inline(always)]
    pub(super) fn update(&mut self, number: u32, change: impl FnOnce(&mut R)) {
        if number < self.len {
            // SAFETY: as in `get`; the store belongs to this thread.
            change(unsafe { &mut *self.records.add(number as usize) });
        }
    }

    /// Adds a record and returns its number; 0 (as for the first one) when there is no memory.
    pub(super) fn push(&mut self, record: R) -> u32 {
        if self.len >= self.capacity && !self.grow() {
            return 0;
        }
        let number = self.len;
        // SAFETY: below the capacity.
        unsafe { self.records.add(number as usize).write(record) };
        self.len += 1;
        number
    }

    /// Whether there may be no room for the records of one more event.
    pub(super) fn is_full(&self) -> bool {
        self.len >= LAST_CAPACITY - RESERVE
    }

    fn grow(&mut self) -> bool {
        let capacity = if self.capacity == 0 { FIRST_CAPACITY } else { self.capacity * 4 };
        if capacity > LAST_CAPACITY {
            return false;
        }
        let Ok(records) = sys::map_anonymous(Self::bytes(capacity)) else { return false };
        let old = Store { ..*self };
        *self = Store { records: records.cast(), len: old.len, capacity };
        if old.capacity > 0 {
            // SAFETY: both have room for the old records.
            unsafe { self.records.copy_from_nonoverlapping(old.records, old.len as usize) };
            old.unmap();
        }
        true
    }

    fn bytes(capacity: u32) -> usize {
        capacity as usize * size_of::<R>()
    }

    /// Forgets all. A small store keeps its memory: short threads come and go.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        if self.capacity > FIRST_CAPACITY {
            let old = Store { ..*self };
            *self = Store { records: null_mut(), len: 0, capacity: 0 };
            old.unmap();
        }
    }

    fn unmap(self) {
        // SAFETY: the store's own memory, which nothing refers to any more.
        unsafe { sys::unmap(self.records.cast(), Self::bytes(self.capacity)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_found_by_its_number() {
        let mut store = Store { records: null_mut(), len: 0, capacity: 0 };
        assert!(store.is_empty());
        assert_eq!(store.get(0), None);
        for x in 0..100_000u64 {
            assert_eq!(store.push(x), x as u32);
        }
        store.update(7, |record| *record = 8);
        store.update(100_000, |_| panic!("there is no such record"));
        for x in (0..100_000u64).filter(|x| *x != 7) {
            assert_eq!(store.get(x as u32), Some(&x));
        }
        assert_eq!((store.get(7), store.get(100_000)), (Some(&8), None));
        store.clear();
        assert_eq!(store.get(5), None);
    }
}
