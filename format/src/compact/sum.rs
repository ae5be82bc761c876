//! The sum of a chunk, by which a reader knows that it is as it was written: a flipped bit would be
//! another record else, and a correct program blamed for what that one says.
//!
//! Four lanes, because one would wait for its multiplications: 32 bytes take about as long as one
//! multiplication and a rotation. Each step is one-to-one in the word and in the lane, so a change
//! within one word is never lost in its lane.

use super::chunk::{HEADER, STATED, SUM, Stated};

/// Bytes that are taken in at once.
const BLOCK: usize = 32;

type Lanes = [u64; 4];

/// An odd number with as many ones as zeros, about.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
const fn step(lane: u64, word: u64) -> u64 {
    (lane ^ word).wrapping_mul(FACTOR).rotate_left(29)
}

#[inline(always)]
fn take_in(lanes: &mut Lanes, block: &[u8; BLOCK]) {
    let (words, _) = block.as_chunks::<8>();
    for (lane, word) in lanes.iter_mut().zip(words) {
        *lane = step(*lane, u64::from_le_bytes(*word));
    }
}

/// The sum of a chunk, header and records. The field for it and what is overwritten in the file count
/// as zeros.
pub fn of(chunk: &[u8]) -> u32 {
    let stated = match chunk.get(STATED..HEADER).and_then(|bytes| bytes.first_chunk()) {
        Some(word) => Stated::of(u32::from_le_bytes(*word)).range(),
        None => 0..0,
    };
    let is_blank = |at: usize| (SUM..SUM + 4).contains(&at) || stated.contains(&at);
    let take_in_rest = |lanes: &mut Lanes, at: usize, bytes: &[u8]| {
        let mut block = [0; BLOCK];
        for (index, (place, byte)) in block.iter_mut().zip(bytes).enumerate() {
            *place = if is_blank(at + index) { 0 } else { *byte };
        }
        take_in(lanes, &block);
    };
    let (blocks, rest) = chunk.as_chunks::<BLOCK>();
    let front = stated.end.max(HEADER).div_ceil(BLOCK).min(blocks.len());
    let (front, others) = blocks.split_at_checked(front).unwrap_or((blocks, &[]));
    let mut lanes = [1, 2, 3, 4];
    for (index, block) in front.iter().enumerate() {
        take_in_rest(&mut lanes, index * BLOCK, block);
    }
    for block in others {
        take_in(&mut lanes, block);
    }
    if !rest.is_empty() {
        take_in_rest(&mut lanes, blocks.len() * BLOCK, rest);
    }
    let sum = lanes.into_iter().fold(0, step);
    (sum ^ sum >> 32) as u32
}

/// Whether a chunk is as it was written.
pub fn is_right(chunk: &[u8]) -> bool {
    chunk.get(SUM..SUM + 4) == Some(&of(chunk).to_le_bytes())
}

/// Stores the sum of a chunk in its header.
pub fn seal(chunk: &mut [u8]) {
    let sum = of(chunk).to_le_bytes();
    if let Some(place) = chunk.get_mut(SUM..SUM + 4) {
        place.copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::Header;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn chunk_of(records: &[u8], stated: Stated) -> Vec<u8> {
        let header = Header { length: records.len() as u32, id: 7, stated, ..Header::default() };
        let mut chunk = [&header.encode()[..], records].concat();
        seal(&mut chunk);
        chunk
    }

    #[test]
    fn the_sum_of_a_chunk_stays_what_it_is() {
        let chunk = chunk_of(b"\x02\xe7\x24", Stated::default());
        assert_eq!(of(&chunk), 0x5852_528c);
    }

    proptest! {
        #[test]
        fn any_change_is_seen_but_for_what_is_overwritten(
            records in prop::collection::vec(any::<u8>(), 1..300),
            (at, length) in (0..200u16, 0..150u16),
            (place, flip) in (any::<usize>(), 1..=255u8),
            (from, wiped, value) in (any::<usize>(), 1..400usize, any::<u8>()),
        ) {
            let stated = Stated { at: HEADER as u16 + at, length };
            let chunk = chunk_of(&records, stated);
            prop_assert!(is_right(&chunk));
            let is_overwritten = |at: &usize| stated.range().contains(at);

            let mut flipped = chunk.clone();
            let place = place % chunk.len();
            flipped[place] ^= flip;
            prop_assert_eq!(is_right(&flipped), is_overwritten(&place));

            let mut other = chunk.clone();
            let from = from % chunk.len();
            other[from..].iter_mut().take(wiped).for_each(|byte| *byte = value);
            let mut places = (0..chunk.len()).filter(|at| other[*at] != chunk[*at]);
            prop_assert_eq!(is_right(&other), places.all(|at| is_overwritten(&at)));
        }
    }
}
