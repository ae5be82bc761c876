//! Lines that cannot be written: each is counted, and once.
//!
//! A line may begin in one block and end in the next. It is missing when either is, so it is counted by
//! the first of the two that fails.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use mtr_format::text::decode::begins_line;

use super::{BLOCK, byte_of, len_of, memory_at};
use crate::log::{file, limits};
use crate::sys::Errno;

/// Boundaries of blocks whose line has been counted, each at the number of the block behind it. A block
/// may keep its slot for long because of one line, while later ones come and go.
static COUNTED: Boundaries<512> = Boundaries::none();
/// Boundaries inside of a line that is no record. There are few such lines.
static IN_COMMENTS: Boundaries<64> = Boundaries::none();

/// Some of the boundaries between blocks.
struct Boundaries<const N: usize>([AtomicU64; N]);

impl<const N: usize> Boundaries<N> {
    const fn none() -> Self {
        Boundaries([const { AtomicU64::new(0) }; N])
    }

    fn clear(&self) {
        self.0.iter().for_each(|boundary| boundary.store(0, Ordering::Relaxed));
    }

    fn at(&self, block: u64) -> &AtomicU64 {
        // SAFETY: the remainder is in bounds.
        unsafe { self.0.get_unchecked(block as usize % N) }
    }

    /// Whether it was not among them before. None is in front of block 0.
    fn add(&self, block: u64) -> bool {
        self.at(block).swap(block, Ordering::AcqRel) != block
    }

    fn has(&self, block: u64) -> bool {
        self.at(block).load(Ordering::Acquire) == block
    }
}

/// For a new log.
pub(super) fn forget() {
    COUNTED.clear();
    IN_COMMENTS.clear();
}

/// Whether a line is one that is no record.
pub(super) fn is_comment(line: &[u8]) -> bool {
    matches!(line, [b'#' | b'=', ..])
}

/// To be called for a line that may be no record, at its place.
pub(super) fn note_line(position: u64, parts: &[&[u8]]) {
    if is_comment(&[byte_of(parts, 0)])
        && let Some(boundary) = boundary_in(position, len_of(parts))
    {
        IN_COMMENTS.add(boundary / BLOCK as u64);
    }
}

/// The position at which a line of `len` bytes goes on in the next block.
fn boundary_in(position: u64, len: usize) -> Option<u64> {
    let next = (position / BLOCK as u64 + 1) * BLOCK as u64;
    (next < position + len as u64).then_some(next)
}

/// Writes a block; what cannot be written is counted.
pub(super) fn write_block(block: u64, bytes: &[u8]) {
    let position = block * BLOCK as u64;
    if let (written, Some(errno)) = file::write_at(position, bytes) {
        file::lose(records_behind(position, written, bytes, false, errno), errno);
        file::state_loss();
    }
}

/// Writes whole lines of a block that is in its slot as well, when the process ends; `bytes` may begin or
/// end with a part of a line where the block does, and with the end of a comment elsewhere. False where
/// they stay in the tail; what can be in neither is counted.
pub(super) fn write_from_slot(position: u64, bytes: &[u8], begins_in_comment: bool) -> bool {
    if let (written, Some(errno)) = file::write_at(position, bytes) {
        if file::stays_in_tail(errno) {
            return false;
        }
        file::lose(records_behind(position, written, bytes, begins_in_comment, errno), errno);
        file::state_loss();
    }
    true
}

/// Counts the line at `position` of which the bytes `from..to` could not be written.
pub(super) fn lose_part(position: u64, parts: &[&[u8]], from: usize, to: usize, errno: Errno) {
    let is_missing = match boundary_in(position, len_of(parts)) {
        _ if is_comment(&[byte_of(parts, 0)]) => false,
        Some(_) if from == 0 && begins_line(&[byte_of(parts, to), byte_of(parts, to + 1)]) => false,
        Some(boundary) => count_shared(boundary / BLOCK as u64, errno),
        None => true,
    };
    file::lose(is_missing.into(), errno);
    file::state_loss();
}

/// Counts the line that goes on in a block at `position`, and of which what was written before is about to
/// be cut off.
pub(in crate::log) fn count_cut(position: u64, errno: Errno) {
    let block = position / BLOCK as u64;
    if position.is_multiple_of(BLOCK as u64)
        && !IN_COMMENTS.has(block)
        && !begins_line(&front_of(position))
    {
        count_shared(block, errno);
    }
}

/// Counts the line that a block shares with the one before it, unless it was counted before. First it is
/// counted, then that is said: whoever gives its other part up because this is said finds it counted. False:
/// there is nothing left to count.
fn count_shared(block: u64, errno: Errno) -> bool {
    file::lose(1, errno);
    if !COUNTED.add(block) {
        file::take_back(1);
    }
    false
}

/// Records among `bytes`, which are for `position`, that are not in the file with the first `written` of
/// them and not counted yet. They may begin or end with a part of a line where their block does.
fn records_behind(
    position: u64,
    written: usize,
    bytes: &[u8],
    begins_in_comment: bool,
    errno: Errno,
) -> u64 {
    let mut records = 0;
    // A line of which a part was written is missing, and its beginning says whether it is a record.
    let whole_lines = bytes.get(..written).unwrap_or(bytes).iter().rposition(|byte| *byte == b'\n');
    let from = whole_lines.map_or(0, |newline| newline + 1);
    let (mut at, mut is_inside) = (position + from as u64, begins_in_comment && from == 0);
    let mut rest = bytes.get(from..).unwrap_or(&[]);
    // Not by `split_inclusive`, which could panic as far as the compiler knows.
    while let Some(last) = rest.len().checked_sub(1) {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(last);
        let Some((line, behind)) = rest.split_at_checked(end + 1) else { break };
        records += u64::from(!is_inside && is_record_to_count(at, line, errno));
        at += line.len() as u64;
        (is_inside, rest) = (false, behind);
    }
    records
}

/// Whether a line that could not be written, or the part of it that stands in this block, is a record,
/// and has yet to be counted.
fn is_record_to_count(position: u64, line: &[u8], errno: Errno) -> bool {
    let end = position + line.len() as u64;
    let block_at = |at: u64| at.is_multiple_of(BLOCK as u64).then_some(at / BLOCK as u64);
    let is_inside_comment = block_at(position).is_some_and(|block| IN_COMMENTS.has(block));
    if is_inside_comment || is_comment(line) || is_in_file(end, line) {
        return false;
    }
    match (line.ends_with(b"\n"), block_at(position), block_at(end)) {
        (true, None, _) => true,
        (true, Some(block), _) => count_shared(block, errno),
        // What reads like a line by itself in the next block is one to readers.
        (false, _, Some(block)) => !begins_line(&front_of(end)) && count_shared(block, errno),
        (false, ..) => false,
    }
}

/// Whether the file has this line, which ends before `end`: it may have been written beside its block.
fn is_in_file(end: u64, line: &[u8]) -> bool {
    let (mut there, last) = ([0; 64], line.len().saturating_sub(64));
    let (Some(line), true) = (line.get(last..), end <= limits::highest()) else { return false };
    let there = there.get_mut(..line.len()).unwrap_or(&mut []);
    file::read_at(end - line.len() as u64, there) == Ok(line.len()) && there == line
}

/// What the log has at the beginning of a block: in its slot, or in the file by now.
fn front_of(position: u64) -> [u8; 2] {
    let mut front = [0; 2];
    if let Some(memory) = memory_at(position) {
        // SAFETY: a slot is longer. Volatile, because others may be storing there.
        front = unsafe { [memory.read_volatile(), memory.add(1).read_volatile()] };
        // The slot may have been wiped and given to another block meanwhile.
        fence(Ordering::Acquire);
    }
    // Also where the block got its slot after this line had been written beside it.
    if front.contains(&0) || memory_at(position).is_none() {
        let _ = file::read_at(position, &mut front);
    }
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stepping::at_each_instruction;
    use crate::sys;

    const SHARED: u64 = 7;
    static NEITHER: AtomicU64 = AtomicU64::new(0);

    fn look() {
        let is_missing = COUNTED.has(SHARED) && file::lost().0 == 0;
        NEITHER.fetch_add(is_missing.into(), Ordering::Relaxed);
    }

    #[test]
    fn a_line_that_is_said_to_be_counted_is_and_once() {
        let front = sys::map_anonymous(mtr_format::tail::BLOCKS).unwrap();
        let both_blocks = || {
            count_shared(SHARED, libc::EIO);
            count_shared(SHARED, libc::EIO);
        };
        let prepare = || {
            file::count_in(front);
            COUNTED.clear();
        };
        let steps = at_each_instruction(prepare, both_blocks, look);
        assert!(steps > 30, "{steps}");
        assert_eq!((NEITHER.load(Ordering::Relaxed), file::lost()), (0, (1, libc::EIO)));
    }

    #[test]
    fn a_comment_of_which_a_part_was_written_is_no_record() {
        let first = b"@ p [0x1] + 0x10 0x1\n";
        let lines = [first, &b"# module 0x1 0x2 0x1 - p p\n"[..], b"@ p [0x1] - 0x10\n"].concat();
        let comment_end = first.len() + 27;
        let count =
            |written| records_behind(700 * BLOCK as u64 + 100, written, &lines, false, libc::EIO);
        assert!((0..first.len()).all(|written| count(written) == 2));
        assert!((first.len()..lines.len()).all(|written| count(written) == 1));
        assert_eq!((lines[comment_end - 1], count(comment_end), count(lines.len())), (b'\n', 1, 0));
    }
}
