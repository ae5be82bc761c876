//! Words of the stack, read so that nothing faults.

use core::mem::MaybeUninit;

use crate::sys;

/// Bytes that one system call fetches.
const CHUNK: usize = 256;

/// What may be read: one range directly, anything else through the kernel or not at all.
pub(super) struct Memory {
    /// Readable from here ...
    low: u64,
    /// ... to here; equal to `low` where nothing is known.
    high: u64,
    /// What the kernel copied last, from `copied_from` on.
    copied: [MaybeUninit<u64>; CHUNK / 8],
    copied_from: u64,
    copied_words: usize,
    may_copy: bool,
}

impl Memory {
    /// Words of `low..high`, and no others.
    ///
    /// # Safety
    /// `low..high` stays readable while the value is used.
    pub(super) unsafe fn direct(low: u64, high: u64) -> Self {
        Memory {
            low,
            high: high & !7,
            copied: [MaybeUninit::uninit(); CHUNK / 8],
            copied_from: 0,
            copied_words: 0,
            may_copy: false,
        }
    }

    /// Words of any address, each copied by the kernel.
    pub(super) fn copying() -> Self {
        // SAFETY: nothing is read directly.
        let mut memory = unsafe { Memory::direct(0, 0) };
        memory.may_copy = true;
        memory
    }

    /// From here on copies.
    pub(super) fn distrust(&mut self) {
        *self = Memory::copying();
    }

    /// Where direct reading ends.
    #[inline(always)]
    pub(super) fn high(&self) -> u64 {
        self.high
    }

    /// Whether `address` (a multiple of 8) is a word that is read directly.
    #[inline(always)]
    pub(super) fn holds(&self, address: u64) -> bool {
        address >= self.low && address < self.high && address.is_multiple_of(8)
    }

    /// Reads a word directly.
    ///
    /// # Safety
    /// [`Memory::holds`] is true of `address`.
    #[inline(always)]
    pub(super) unsafe fn word_unchecked(&self, address: u64) -> u64 {
        // SAFETY: a word of `low..high`, which `direct`'s caller keeps readable. Volatile, because
        // it is no Rust object: the program writes there.
        unsafe { (address as *const u64).read_volatile() }
    }

    /// The word at `address`.
    #[inline]
    pub(super) fn word(&mut self, address: u64) -> Option<u64> {
        if self.holds(address) {
            // SAFETY: just checked.
            return Some(unsafe { self.word_unchecked(address) });
        }
        if self.may_copy { self.copied_word(address) } else { None }
    }

    #[cold]
    fn copied_word(&mut self, address: u64) -> Option<u64> {
        if !address.is_multiple_of(8) {
            return None;
        }
        let index = address.wrapping_sub(self.copied_from) / 8;
        if index >= self.copied_words as u64 {
            // Not beyond the page: what follows it may not be mapped.
            let page_left = 4096 - address as usize % 4096;
            let words = self.copied.len().min(page_left / 8);
            self.copied_words = 0;
            let copied = sys::copy_own_memory(address, self.copied.get_mut(..words)?).ok()?;
            self.copied_from = address;
            self.copied_words = copied / 8;
            return self.copied_at(0);
        }
        self.copied_at(index as usize)
    }

    fn copied_at(&self, index: usize) -> Option<u64> {
        if index >= self.copied_words {
            return None;
        }
        // SAFETY: the kernel has written the first `copied_words` words.
        self.copied.get(index).map(|word| unsafe { word.assume_init() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_copied_from_anywhere_and_holes_are_not_read() {
        let words: Vec<u64> = (100..1100).collect();
        let start = words.as_ptr() as u64;
        let mut memory = Memory::copying();
        for index in [0u64, 1, 31, 32, 999, 5] {
            assert_eq!(memory.word(start + 8 * index), Some(100 + index));
        }
        assert_eq!(memory.word(start + 4), None);
        assert_eq!(memory.word(8), None);
        assert_eq!(memory.word(u64::MAX - 7), None);
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
