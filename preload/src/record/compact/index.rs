//! Numbers by a hash of what they stand for.

use core::ptr::null_mut;

use crate::sys;

/// Open addressing. All zeros is an empty index. Number 0 is never in it.
#[repr(C)]
pub(super) struct Index {
    /// The upper half of the hash, and the number.
    places: *mut u64,
    /// A power of two, or 0.
    capacity: usize,
    len: usize,
}

const FIRST_CAPACITY: usize = 1 << 10;

impl Index {
    /// The number with this hash for which `is_wanted` holds; 0 for none.
    pub(super) fn find(&self, hash: u64, is_wanted: impl Fn(u32) -> bool) -> u32 {
        if self.capacity == 0 {
            return 0;
        }
        let mut place = self.first_place(hash);
        loop {
            // SAFETY: below the capacity.
            let entry = unsafe { *self.places.add(place) };
            let number = entry as u32;
            if entry == 0 || (entry >> 32 == hash >> 32 && is_wanted(number)) {
                return number;
            }
            place = (place + 1) & (self.capacity - 1);
        }
    }

    /// Adds a number that is not in it. False when there is no memory.
    pub(super) fn insert(&mut self, hash: u64, number: u32) -> bool {
        if self.len * 2 >= self.capacity && !self.grow() {
            return false;
        }
        self.enter(hash >> 32 << 32 | u64::from(number));
        self.len += 1;
        true
    }

    /// Of the upper half, because that is what an entry knows.
    fn first_place(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.capacity - 1)
    }

    fn enter(&mut self, entry: u64) {
        let mut place = self.first_place(entry);
        // SAFETY: places are below the capacity, half of which are free.
        unsafe {
            while *self.places.add(place) != 0 {
                place = (place + 1) & (self.capacity - 1);
            }
            *self.places.add(place) = entry;
        }
    }

    fn grow(&mut self) -> bool {
        let capacity = if self.capacity == 0 { FIRST_CAPACITY } else { self.capacity * 4 };
        let Ok(places) = sys::map_anonymous(capacity * size_of::<u64>()) else { return false };
        let old = Index { ..*self };
        *self = Index { places: places.cast(), capacity, len: old.len };
        for place in 0..old.capacity {
            // SAFETY: below the old capacity.
            let entry = unsafe { *old.places.add(place) };
            if entry != 0 {
                self.enter(entry);
            }
        }
        old.unmap();
        true
    }

    /// Forgets all and keeps no memory.
    pub(super) fn clear(&mut self) {
        let old = Index { ..*self };
        *self = Index { places: null_mut(), capacity: 0, len: 0 };
        old.unmap();
    }

    fn unmap(self) {
        if self.capacity > 0 {
            // SAFETY: the index's own memory, which nothing refers to any more.
            unsafe { sys::unmap(self.places.cast(), self.capacity * size_of::<u64>()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_what_they_stand_for() {
        let mut index = Index { places: null_mut(), capacity: 0, len: 0 };
        // Few different hashes, so that only `is_wanted` tells the numbers apart.
        let hash = |x: u32| u64::from(x % 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let find = |index: &Index, x: u32| index.find(hash(x), |number| number == x);
        assert_eq!(find(&index, 1), 0);
        for x in 1..5_000 {
            assert_eq!(find(&index, x), 0);
            assert!(index.insert(hash(x), x));
        }
        for x in 1..5_000 {
            assert_eq!(find(&index, x), x);
        }
        assert_eq!(find(&index, 5_000), 0);
        index.clear();
        assert_eq!(find(&index, 5), 0);
    }
}
