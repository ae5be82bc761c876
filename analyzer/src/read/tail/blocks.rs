//! The tail of a log: blocks that its process had not written out (docs/log-format.md).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mtr_format::tail as layout;
use mtr_format::text::decode::begins_line;

use super::{Fields, Loss, damaged, settled, u64_at};
use crate::error::Error;

/// The tail of a log as it was at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks {
    /// ID of the log that it belongs to.
    pub id: u64,
    /// What is missing.
    pub loss: Loss,
    /// Position in the log and bytes of every block in use, by position; NULs at the end of a
    /// block are left out.
    blocks: Vec<(u64, Vec<u8>)>,
}

impl Blocks {
    /// Reads the tail in `file`, which its process may be writing to, and whose log has `log_length` bytes
    /// in its own file.
    pub(super) fn read(file: &File, path: &Path, log_length: u64) -> Result<Blocks, Error> {
        let (fields, mut tail) = settled(file, path, |fields| Self::read_by(fields, file, path))?;
        tail.loss = fields.loss;
        if let Some(end) = fields.end {
            // An end before that of the file was about to be put off when the process died, or what lies
            // behind it about to be cut off.
            tail.end_at(end.max(log_length));
        }
        Ok(tail)
    }

    fn read_by(fields: &Fields, file: &File, path: &Path) -> Result<Blocks, Error> {
        let at = |position| move |source| Error::Read { path: path.into(), position, source };
        let Fields { id, size, count, .. } = *fields;
        if !size.is_power_of_two() {
            return Err(damaged(path, "a power of two as block size", size.to_string()));
        }
        if count > layout::MAX_BLOCKS {
            return Err(damaged(path, "as many blocks as can be numbered", count.to_string()));
        }
        let mut head = vec![0; layout::BLOCKS];
        file.read_exact_at(&mut head, 0).map_err(at(0))?;
        let mut tail = Blocks { id, ..Blocks::default() };
        for index in 0..count {
            let number_at = layout::NUMBERS + 8 * index;
            let mut number = u64_at(&head, number_at);
            // The process may put another block here while we read: then the number changes, and
            // the one that stood here before is in the log by now.
            for _ in 0..8 {
                if number == layout::UNUSED {
                    break;
                }
                let place = layout::BLOCKS as u64 + size * index as u64;
                let mut bytes = vec![0; size as usize];
                file.read_exact_at(&mut bytes, place).map_err(at(place))?;
                let mut again = [0; 8];
                file.read_exact_at(&mut again, number_at as u64).map_err(at(number_at as u64))?;
                let again = u64::from_le_bytes(again);
                if (again ^ number) & !layout::BUSY == 0 {
                    tail.add(number & !layout::BUSY, size, bytes);
                    break;
                }
                number = again;
            }
        }
        tail.blocks.sort_unstable_by_key(|(position, _)| *position);
        Ok(tail)
    }

    /// Drops what lies behind the end of a log that was not written any further. Its process would have
    /// counted it as lost when it wrote the block out.
    fn end_at(&mut self, end: u64) {
        // Where the block before it in the tail ends, and whether in a line that is no record.
        let mut before = None;
        for (position, bytes) in &mut self.blocks {
            let kept = bytes.len().min(end.saturating_sub(*position) as usize);
            let goes_on = before.filter(|(at, _)| at == position);
            let mut is_comment = goes_on.is_some_and(|(_, is_comment)| is_comment);
            // A line that began in a block which could not be written was counted with that.
            let mut is_counted = *position > end && goes_on.is_none() && !begins_line(bytes);
            for line in bytes[kept..].split_inclusive(|byte| *byte == b'\n') {
                is_comment |= matches!(line[0], b'#' | b'=');
                let is_whole = line.ends_with(b"\n");
                self.loss.records += u64::from(is_whole && !is_comment && !is_counted);
                is_comment &= !is_whole;
                is_counted = false;
            }
            before = Some((*position + bytes.len() as u64, is_comment));
            bytes.truncate(kept);
        }
        self.blocks.retain(|(_, bytes)| !bytes.is_empty());
    }

    fn add(&mut self, number: u64, size: u64, mut bytes: Vec<u8>) {
        let filled = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        bytes.truncate(filled);
        bytes.shrink_to_fit();
        // A position that no file can have is damage.
        if let Some(position) = number.checked_mul(size).filter(|p| *p < 1 << 62)
            && filled > 0
        {
            self.blocks.push((position, bytes));
        }
    }

    /// Position and bytes of every block.
    pub(super) fn blocks(&self) -> &[(u64, Vec<u8>)] {
        &self.blocks
    }

    /// First position behind all that the tail holds.
    pub fn end(&self) -> u64 {
        self.blocks.iter().map(|(position, bytes)| position + bytes.len() as u64).max().unwrap_or(0)
    }

    /// First position not before `position` at which the tail holds something.
    pub fn next(&self, position: u64) -> Option<u64> {
        self.blocks
            .iter()
            .filter(|(at, bytes)| at + bytes.len() as u64 > position)
            .map(|(at, _)| (*at).max(position))
            .min()
    }

    /// Lays the tail over `bytes`, which begin at `position` of the log.
    pub fn lay_over(&self, position: u64, bytes: &mut [u8]) {
        let end = position + bytes.len() as u64;
        for (at, block) in &self.blocks {
            let (from, to) = ((*at).max(position), (at + block.len() as u64).min(end));
            if from >= to {
                continue;
            }
            let below = &mut bytes[(from - position) as usize..(to - position) as usize];
            let above = &block[(from - at) as usize..(to - at) as usize];
            for (below, above) in below.iter_mut().zip(above) {
                if *above != 0 {
                    *below = *above;
                }
            }
        }
    }
}
