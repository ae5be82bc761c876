//! The bytes of a log: the file with its tail laid over it, streamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::tail::{self, Tail};
use crate::error::Error;

/// An open log. It is read by `read`, never mapped: memory does not grow with it, and a log that
/// shrinks is an error, not a signal.
#[derive(Debug)]
pub struct Source {
    file: File,
    /// Laid over the file; empty when there is none.
    tail: Tail,
    /// Why the tail beside the log was not used.
    tail_ignored: Option<String>,
    had_tail: bool,
    /// Next byte to hand out.
    position: u64,
    /// Bytes of the file itself when it was opened.
    length: u64,
    /// Positions behind this one are not read: a process may go on writing meanwhile.
    end: u64,
    /// Bytes that belong together: those of a word in a compact trace, else 1.
    unit: u64,
    /// What was opened is a pipe or the like: no positions, no tail.
    stream: bool,
}

impl Source {
    /// Opens the log at `path` and takes a snapshot of its tail.
    pub fn open(path: &Path) -> Result<Source, Error> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(path)
            .map_err(|source| Error::Open { path: path.into(), source })?;
        let unreadable = |source| Error::Read { path: path.into(), position: 0, source };
        let metadata = file.metadata().map_err(unreadable)?;
        let length = metadata.len();
        let (mut tail, mut tail_ignored, mut had_tail) = (Tail::default(), None, false);
        let mut unit = 1;
        if metadata.is_file() {
            match tail::beside(path, &file).map_err(unreadable)? {
                None => {}
                Some(Ok((found, head))) => {
                    (tail, had_tail) = (found, true);
                    unit = if head.is_compact { tail::WORD as u64 } else { 1 };
                }
                Some(Err(reason)) => tail_ignored = Some(reason),
            }
        }
        let end = length.max(tail.end());
        let stream = !metadata.is_file();
        Ok(Source { file, tail, tail_ignored, had_tail, position: 0, length, end, unit, stream })
    }

    /// Position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Records lost, the first errno and when that was, as the tail states them.
    pub fn lost(&self) -> (u64, i32, Option<u64>) {
        (self.tail.lost, self.tail.lost_errno, self.tail.lost_since)
    }

    /// Why the tail beside the log was not used.
    pub fn tail_ignored(&self) -> Option<&str> {
        self.tail_ignored.as_deref()
    }

    /// Whether a tail lay beside the log: its process runs or did not end normally.
    pub fn had_tail(&self) -> bool {
        self.had_tail
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stream {
            let read = self.file.read(out)?;
            self.position += read as u64;
            return Ok(read);
        }
        let wanted = (self.end - self.position).min(out.len() as u64) as usize;
        let Some(out) = out.get_mut(..wanted).filter(|out| !out.is_empty()) else { return Ok(0) };
        let read = if self.position < self.length {
            let wanted = (self.length - self.position).min(wanted as u64) as usize;
            self.file.read_at(&mut out[..wanted], self.position)?
        } else {
            0
        };
        let count = match read {
            0 => {
                // Behind the end of the file there is nothing but the tail. One NUL, or those of
                // one word, stands for all up to its next block.
                self.length = self.length.min(self.position);
                match self.tail.next(self.position) {
                    None => {
                        self.end = self.position;
                        return Ok(0);
                    }
                    Some(next) if next > self.position => {
                        let rest =
                            (self.unit - self.position % self.unit).min(next - self.position);
                        let count = (rest as usize).min(wanted);
                        out[..count].fill(0);
                        self.position = match count as u64 == rest {
                            true => next,
                            false => self.position + count as u64,
                        };
                        return Ok(count);
                    }
                    Some(_) => {
                        out.fill(0);
                        wanted
                    }
                }
            }
            read => read,
        };
        self.tail.lay_over(self.position, &mut out[..count]);
        self.position += count as u64;
        Ok(count)
    }
}
