//! Words of the stack, read so that nothing faults.

use crate::sys;

const PAGE: u64 = 4096;

/// What may be read: one range, which grows page by page where the stack's end is not known.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// Readable from here ...
    low: u64,
    /// ... to here; equal to `low` where nothing is known.
    high: u64,
    /// Whether pages outside are tried out.
    may_probe: bool,
}

impl Memory {
    /// Words of `low..high`, and no others.
    ///
    /// # Safety
    /// `low..high` stays readable while the value is used.
    #[inline(always)]
    pub(super) unsafe fn direct(low: u64, high: u64) -> Self {
        Memory { low, high: high & !7, may_probe: false }
    }

    /// Words of any page that the kernel can read. It is asked once for each: a page of the stack
    /// that the thread runs on stays. (Beyond the end of that stack another thread might unmap it
    /// at that moment; a walk goes there only by a wrong rule.)
    pub(super) fn probing() -> Self {
        Memory { low: 0, high: 0, may_probe: true }
    }

    /// As [`Memory::probing`], but the page of `known` needs no question.
    ///
    /// # Safety
    /// The word at `known` is on the stack that the thread runs on.
    pub(super) unsafe fn probing_from(known: u64) -> Self {
        Memory { low: known, high: (known & !(PAGE - 1)).saturating_add(PAGE), may_probe: true }
    }

    /// From here on asks for every page.
    pub(super) fn distrust(&mut self) {
        *self = Memory::probing();
    }

    /// Where the range ends.
    #[inline(always)]
    pub(super) fn high(&self) -> u64 {
        self.high
    }

    /// Whether the end of the stack is known to be that of the range.
    pub(super) fn is_bounded(&self) -> bool {
        !self.may_probe
    }

    /// Whether `address` is that of a word (so a multiple of 8) that can be read at once.
    #[inline(always)]
    pub(super) fn holds(&self, address: u64) -> bool {
        address >= self.low && address < self.high && address.is_multiple_of(8)
    }

    /// Reads a word.
    ///
    /// # Safety
    /// [`Memory::holds`] is true of `address`.
    #[inline(always)]
    pub(super) unsafe fn word_unchecked(&self, address: u64) -> u64 {
        // SAFETY: a word of `low..high`, which `direct`'s caller or the kernel vouched for.
        // Volatile, because it is no Rust object: the program writes there.
        unsafe { (address as *const u64).read_volatile() }
    }

    /// The word at `address`.
    #[inline]
    pub(super) fn word(&mut self, address: u64) -> Option<u64> {
        if !self.holds(address) {
            self.probe(address)?;
        }
        // SAFETY: just checked, or made so by `probe`.
        Some(unsafe { self.word_unchecked(address) })
    }

    /// Makes the page of `address` part of the range, or all of it.
    #[cold]
    fn probe(&mut self, address: u64) -> Option<()> {
        if !self.may_probe || !address.is_multiple_of(8) || !sys::is_readable(address) {
            return None;
        }
        let page = address & !(PAGE - 1);
        if page != self.high {
            self.low = page;
        }
        self.high = page.checked_add(PAGE)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_from_anywhere_but_where_nothing_is() {
        let words: Vec<u64> = (100..3100).collect();
        let start = words.as_ptr() as u64;
        let mut memory = Memory::probing();
        for index in [0u64, 1, 31, 600, 2999, 5, 1000, 999] {
            assert_eq!(memory.word(start + 8 * index), Some(100 + index));
        }
        assert_eq!(memory.word(start + 4), None);
        assert_eq!(memory.word(8), None);
        assert_eq!(memory.word(1 << 60), None);
        assert_eq!(memory.word(u64::MAX - 7), None);
        assert_eq!(memory.word(start), Some(100));
    }

    #[test]
    fn pages_that_are_mapped_but_closed_are_not_read() {
        let len = 3 * PAGE as usize;
        let start = sys::map_anonymous(len).unwrap();
        // SAFETY: the mapping is this test's own.
        unsafe {
            assert_eq!(libc::mprotect(start.add(PAGE as usize).cast(), 4096, libc::PROT_NONE), 0);
            let start = start as u64;
            let mut memory = Memory::probing_from(start + 8);
            assert_eq!(memory.word(start + PAGE - 8), Some(0));
            assert_eq!(memory.word(start + PAGE), None);
            assert_eq!(memory.word(start + 2 * PAGE), Some(0));
            assert_eq!(memory.word(start), Some(0));
        }
        // SAFETY: as above.
        unsafe { sys::unmap(start, len) };
    }

    #[test]
    fn a_direct_range_ends_where_it_says() {
        let words = [1u64, 2, 3];
        let start = words.as_ptr() as u64;
        // SAFETY: the range of `words`.
        let mut memory = unsafe { Memory::direct(start, start + 20) };
        assert_eq!(memory.word(start + 8), Some(2));
        assert_eq!(memory.word(start + 16), None);
        assert_eq!(memory.word(start - 8), None);
    }
}
