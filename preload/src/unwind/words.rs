//! The words of the stack that the last call stack was recovered from: are they still the same?

use crate::arch;

/// Words that are kept.
pub(super) const MAX_WORDS: usize = 1 << 13;

/// Addresses and values, those of the outermost frame first. Apart, so that several are compared
/// without waiting for one another. All zeros is none.
#[repr(C)]
pub(super) struct Words {
    addresses: [u64; MAX_WORDS],
    values: [u64; MAX_WORDS],
    len: usize,
}

/// # Safety
/// A word at `address` can be read.
#[inline(always)]
unsafe fn read(address: u64) -> u64 {
    // SAFETY: the caller's promise. Volatile, because it is no Rust object: the program writes there.
    unsafe { (address as *const u64).read_volatile() }
}

impl Words {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes the first `len` words, which have all been set, those that there are.
    #[inline(always)]
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// Adds a word. False if there is no room.
    #[inline(always)]
    pub(super) fn push(&mut self, address: u64, value: u64) -> bool {
        let has_room = self.len < MAX_WORDS;
        if has_room {
            // SAFETY: just checked.
            unsafe { self.set(self.len, address, value) };
            self.len += 1;
        }
        has_room
    }

    /// Sets a word that has been added or will be, by [`Words::set_len`].
    ///
    /// # Safety
    /// `index` is below `MAX_WORDS`.
    #[inline(always)]
    pub(super) unsafe fn set(&mut self, index: usize, address: u64, value: u64) {
        // SAFETY: the caller's promise.
        unsafe {
            *self.addresses.get_unchecked_mut(index) = address;
            *self.values.get_unchecked_mut(index) = value;
        }
    }

    /// A word that has been set.
    pub(super) fn get(&self, index: usize) -> Option<(u64, u64)> {
        Some((*self.addresses.get(index)?, *self.values.get(index)?))
    }

    /// As [`Words::set`], of the first `N` of several words.
    ///
    /// # Safety
    /// `index + N` is at most `MAX_WORDS`, and `N` at most `M`.
    #[inline(always)]
    pub(super) unsafe fn set_some<const N: usize, const M: usize>(
        &mut self,
        index: usize,
        addresses: &[u64; M],
        values: &[u64; M],
    ) {
        // SAFETY: the caller's promise; theirs is other memory than ours.
        unsafe {
            let ours = (self.addresses.as_mut_ptr(), self.values.as_mut_ptr());
            ours.0.add(index).copy_from_nonoverlapping(addresses.as_ptr(), N);
            ours.1.add(index).copy_from_nonoverlapping(values.as_ptr(), N);
        }
    }

    /// Whether the first `len` words are what they were. Calls nothing.
    ///
    /// # Safety
    /// As for [`Words::unchanged`].
    #[inline(always)]
    pub(super) unsafe fn all_unchanged(&self, len: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            if len >= 4 {
                return self.are_unchanged(0, len);
            }
            let mut differing = 0;
            for index in 0..len {
                let address = *self.addresses.get_unchecked(index);
                differing |= read(address) ^ *self.values.get_unchecked(index);
            }
            differing == 0
        }
    }

    /// How many of the first `len` words are what they were: all, or those before the first that is
    /// not.
    ///
    /// # Safety
    /// There are that many, and at their addresses words can be read.
    #[inline(always)]
    pub(super) unsafe fn unchanged(&self, len: usize) -> usize {
        // SAFETY: there are that many; the caller's promise.
        if len >= 4 && unsafe { self.are_unchanged(0, len) } {
            return len;
        }
        // SAFETY: as above.
        unsafe { self.first_changed(len) }
    }

    /// Whether `count` words from `start` on are what they were.
    ///
    /// # Safety
    /// `count` is 4 at least; there are that many, and words can be read at their addresses.
    #[inline(always)]
    unsafe fn are_unchanged(&self, start: usize, count: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            let (addresses, values) = (self.addresses.as_ptr(), self.values.as_ptr());
            arch::words_are(addresses.add(start), values.add(start), count)
        }
    }

    /// The index of the first word that is not what it was; `len` if there is none among the first
    /// `len`.
    ///
    /// # Safety
    /// As for [`Words::unchanged`]; there are `len` words.
    #[inline(never)]
    unsafe fn first_changed(&self, len: usize) -> usize {
        let mut index = 0;
        // SAFETY: `index` is below `len`, which is at most MAX_WORDS; the caller's promise.
        unsafe {
            while index + 4 <= len && self.are_unchanged(index, 4) {
                index += 4;
            }
            while index < len
                && read(*self.addresses.get_unchecked(index)) == *self.values.get_unchecked(index)
            {
                index += 1;
            }
        }
        index
    }

    /// As [`Words::unchanged`], without the registers of its caller.
    ///
    /// # Safety
    /// As there.
    #[inline(never)]
    pub(super) unsafe fn unchanged_apart(&self, len: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.unchanged(len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_that_differs_is_found() {
        let mut stack: Vec<u64> = (0..23).collect();
        let memory = crate::sys::map_anonymous(size_of::<Words>()).unwrap().cast::<Words>();
        // SAFETY: zeroed memory of this test.
        let words = unsafe { &mut *memory };
        for word in &stack {
            assert!(words.push(word as *const u64 as u64, *word));
        }
        for len in 0..=stack.len() {
            for (changed, word) in stack.iter_mut().enumerate() {
                *word ^= 1 << 40;
                // SAFETY: the words of `stack`.
                assert_eq!(unsafe { words.unchanged(len) }, len.min(changed));
                // SAFETY: as above.
                assert_eq!(unsafe { words.all_unchanged(len) }, len <= changed);
                *word ^= 1 << 40;
            }
            // SAFETY: as above.
            assert_eq!(unsafe { words.unchanged(len) }, len);
        }
        words.set_len(3);
        assert!(words.push(7, 7));
        assert_eq!(words.len(), 4);
        while words.push(8, 8) {}
        assert_eq!(words.len(), MAX_WORDS);
        // SAFETY: not used any more.
        unsafe { crate::sys::unmap(memory.cast(), size_of::<Words>()) };
    }
}
