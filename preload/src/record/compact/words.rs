//! Storing records: their place is taken first, their first word is stored last.

use core::sync::atomic::{AtomicU64, Ordering};

use mtr_format::compact::word::{self, Tag};

use crate::log::ring;

/// Bytes of a word.
const WORD: usize = 8;

/// Stores an event of one word.
#[inline(always)]
pub(super) fn event(word: u64) {
    let position = ring::reserve(WORD);
    match ring::place(position, WORD) {
        // SAFETY: a reserved place of one word, aligned because all places are whole words.
        Some(place) => unsafe { store(place, 0, word) },
        None => ring::put_words(position, &[word]),
    }
}

/// Stores a record.
#[inline(always)]
pub(super) fn record(words: &[u64]) {
    let place = hold(words.len());
    fill(place, words);
}

/// A place of a record that is not stored yet.
#[derive(Clone, Copy)]
pub(super) struct Place {
    position: u64,
    memory: Option<*mut u8>,
}

/// Takes the place of a record of `count` words.
#[inline(always)]
pub(super) fn hold(count: usize) -> Place {
    let position = ring::reserve(count * WORD);
    Place { position, memory: ring::place(position, count * WORD) }
}

/// Stores a record in its place, which has as many words.
#[inline(always)]
pub(super) fn fill(place: Place, words: &[u64]) {
    let Some(memory) = place.memory else { return ring::put_words(place.position, words) };
    for (index, word) in words.iter().enumerate().rev() {
        // SAFETY: a reserved place of that many words; its slot is not used again before the first
        // of them is stored, which is here the last.
        unsafe { store(memory, index, *word) };
    }
}

/// # Safety
/// `memory` is a reserved place of more than `index` words.
#[inline(always)]
unsafe fn store(memory: *mut u8, index: usize, word: u64) {
    // SAFETY: the caller's promise; Release keeps the order of stores.
    unsafe { (*memory.cast::<AtomicU64>().add(index)).store(word, Ordering::Release) }
}

/// Stores lines that are not records, as TEXT.
#[cold]
pub(crate) fn text(parts: &[&[u8]]) {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let count = 1 + len.div_ceil(word::TEXT_BYTES);
    let position = ring::reserve(count * WORD);
    ring::put_each_word(position, count, |index| text_word(parts, len, index));
}

/// Word `index` of the TEXT record of `parts`.
pub(crate) fn text_word(parts: &[&[u8]], len: usize, index: usize) -> u64 {
    if index == 0 {
        return word::first(Tag::Text as u8, len as u32, 0);
    }
    let mut bytes = [b'\n'; word::TEXT_BYTES];
    let from = (index - 1) * word::TEXT_BYTES;
    let text = parts.iter().copied().flatten().skip(from);
    bytes.iter_mut().zip(text).for_each(|(place, byte)| *place = *byte);
    word::text(&bytes)
}

/// Stores the time since the trace began, in nanoseconds.
#[cold]
pub(crate) fn time(nanoseconds: u64) {
    event(nanoseconds << 4 | Tag::Time as u64);
}

/// Stores the memory that the process has, in bytes.
#[cold]
pub(crate) fn resident_memory(bytes: u64) {
    event(bytes << 4 | Tag::Rss as u64);
}
