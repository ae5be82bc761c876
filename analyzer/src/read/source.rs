//! The bytes of a log: the file with its tail laid over it, streamed.

use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::unix::fs::FileExt;

use super::front;
use super::lines::Holed;
use super::tail::Blocks;

/// An open log. It is read by `read`, never mapped: memory does not grow with it, and a log that
/// shrinks is an error, not a signal.
#[derive(Debug)]
pub struct Source {
    file: File,
    /// Laid over the file; empty when there is none.
    tail: Blocks,
    /// Next byte to hand out.
    position: u64,
    /// Bytes of the file itself when it was opened.
    length: u64,
    /// Positions behind this one are not read: a process may go on writing meanwhile.
    end: u64,
    /// What was opened is a pipe or the like: no positions, no tail.
    is_pipe: bool,
    /// Bytes that NULs which were handed out stood for, apart from themselves.
    left_out: u64,
}

impl Source {
    /// The log in a file, with this tail.
    pub(super) fn of_file(file: File, tail: Blocks) -> io::Result<Source> {
        let length = file.metadata()?.len();
        let end = length.max(tail.end());
        Ok(Source { file, tail, position: 0, length, end, is_pipe: false, left_out: 0 })
    }

    /// What comes out of a pipe.
    pub(super) fn of_pipe(file: File) -> Source {
        let (position, length, end, left_out) = (0, 0, 0, 0);
        Source { file, tail: Blocks::default(), position, length, end, is_pipe: true, left_out }
    }

    /// Where its tail begins; where there is none, its end.
    pub(super) fn tail_begins(&self) -> u64 {
        self.tail.next(0).unwrap_or(self.end)
    }

    /// One NUL for all up to `end`.
    fn pass_over(&mut self, end: u64) -> usize {
        self.left_out += end - self.position - 1;
        self.position = end;
        1
    }
}

/// What has been read of a pipe to tell what comes out of it.
#[derive(Debug, Default)]
pub struct Front {
    pub(super) bytes: Vec<u8>,
    /// Bytes that the NUL at its beginning stands for, apart from itself.
    pub(super) left_out: u64,
}

/// The bytes of a log, from its beginning on. Those of a compact trace are none.
#[derive(Debug)]
pub struct Input<'a> {
    front: &'a [u8],
    left_out: u64,
    source: Option<&'a mut Source>,
}

impl<'a> Input<'a> {
    pub(super) fn new(front: &'a Front, source: &'a mut Source) -> Input<'a> {
        let left_out = front.left_out;
        Input { front: &front.bytes, left_out, source: Some(source) }
    }

    pub(super) fn none() -> Input<'a> {
        Input { front: &[], left_out: 0, source: None }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(source) = &mut self.source else { return Ok(0) };
        if self.front.is_empty() {
            return source.read(out);
        }
        source.left_out += mem::take(&mut self.left_out);
        self.front.read(out)
    }
}

impl Holed for Input<'_> {
    fn left_out(&self) -> u64 {
        self.source.as_ref().map_or(0, |source| source.left_out)
    }
}

impl Source {
    /// How far there is nothing but a hole: neither in the file nor in the tail.
    fn end_of_hole(&self) -> io::Result<u64> {
        let in_file = front::behind_hole(&self.file, self.position)?.min(self.length);
        Ok(self.tail.next(self.position).map_or(in_file, |in_tail| in_tail.min(in_file)))
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.is_pipe {
            return self.file.read(out);
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
                // Behind the end of the file there is nothing but the tail. One NUL stands for all
                // up to its next block.
                self.length = self.length.min(self.position);
                match self.tail.next(self.position) {
                    None => {
                        self.end = self.position;
                        return Ok(0);
                    }
                    Some(next) if next > self.position => {
                        out[0] = 0;
                        return Ok(self.pass_over(next));
                    }
                    Some(_) => {
                        out.fill(0);
                        wanted
                    }
                }
            }
            // One NUL stands for a hole in the file, too.
            read if out[..read].iter().all(|byte| *byte == 0) => {
                let end = self.end_of_hole()?;
                if end > self.position + read as u64 {
                    return Ok(self.pass_over(end));
                }
                read
            }
            read => read,
        };
        self.tail.lay_over(self.position, &mut out[..count]);
        self.position += count as u64;
        Ok(count)
    }
}
