//! Words of a compact trace -> events and call stacks.

mod ids; // what the trace's IDs stand for
mod stacks; // its nodes -> distinct call stacks

use std::io::{self, Read};
use std::path::Path;

use mtr_format::compact::decode::{Address, Decoder, Piece, Record, words};
use mtr_format::compact::word::Family;
use mtr_format::text::decode::{Line, Op};
use mtr_format::text::meta::Meta;

use super::trace::{By, Event, Holes, Log};
use super::{CallSites, StackId};
use crate::error::Error;
use ids::Ids;
pub use stacks::Stacks;

/// Newest version of our traces that is understood.
const NEWEST: u64 = 1;

/// A longer line is no line of a trace; it is given up so that memory stays bounded.
const LONGEST: usize = 1 << 20;

/// What a trace holds, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// Something happened.
    Event(Event),
    /// A `#` or `=` line, without its newline.
    Line(&'a [u8]),
}

/// Reads a trace from `input` and hands every event to `each`; `path` is for messages.
pub fn read_from(
    input: impl Read,
    path: &Path,
    chunk: usize,
    holes: Holes,
    mut each: impl FnMut(Event),
) -> Result<Log, Error> {
    read_items(input, path, chunk, holes, |item, _| {
        if let Item::Event(event) = item {
            each(event);
        }
        Ok::<(), Error>(())
    })
}

/// As [`read_from`], with the lines in between and the stacks that are known by then. Stops at the
/// first error of `each`.
pub fn read_items<E: From<Error>>(
    mut input: impl Read,
    path: &Path,
    chunk: usize,
    holes: Holes,
    mut each: impl FnMut(Item<'_>, &Stacks) -> Result<(), E>,
) -> Result<Log, E> {
    let mut buffer = vec![0; chunk.max(8)];
    let mut reader = Reader::default();
    let mut carried = 0; // bytes of an unfinished word at the front of the buffer
    let mut position = 0;
    let cut = 'read: loop {
        let read = match input.read(&mut buffer[carried..]) {
            Ok(0) => break carried > 0 || reader.decoder.is_inside_record(),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(Error::Read { path: path.into(), position, source }.into());
            }
        };
        position += read as u64;
        let filled = carried + read;
        for word in words(&buffer[..filled]) {
            if word == 0 && holes == Holes::AreTheEnd {
                break 'read false;
            }
            reader.words += 1;
            let Some(record) = reader.decoder.push(word) else {
                reader.behind_hole |= word == 0;
                continue;
            };
            match record {
                Record::Text(piece) => reader.text(piece, path, &mut each)?,
                record => {
                    if let Some(event) = reader.event(record) {
                        each(Item::Event(event), &reader.stacks)?;
                    }
                }
            }
            reader.behind_hole = false;
        }
        carried = filled % 8;
        buffer.copy_within(filled - carried..filled, 0);
    };
    Ok(reader.finish(cut && holes == Holes::AreLosses))
}

/// What an info says.
#[derive(Debug, Clone, Copy)]
struct Info {
    stack: StackId,
    family: Family,
    size: u64,
}

/// All that is known of a trace up to a word.
#[derive(Default)]
struct Reader {
    decoder: Decoder,
    log: Log,
    stacks: Stacks,
    nodes: Ids<StackId>,
    infos: Ids<Info>,
    /// The line that is being read.
    line: Vec<u8>,
    words: u64,
    /// Reallocs that have ended a block and not begun one.
    reallocs: u64,
    /// Events that refer to nothing.
    undefined: u64,
    /// The word before was one that was not stored.
    behind_hole: bool,
}

impl Reader {
    /// What a record means; definitions are kept.
    #[inline(always)]
    fn event(&mut self, record: Record) -> Option<Event> {
        match record {
            Record::Alloc { info, ptr } => {
                let Info { stack, family, size } = self.info(info)?;
                if family == Family::Realloc && self.reallocs > 0 {
                    self.reallocs -= 1;
                    return Some(self.number(
                        Op::ReallocTo { ptr, size },
                        stack,
                        By::Alloc(family),
                    ));
                }
                Some(self.number(Op::Alloc { ptr, size }, stack, By::Alloc(family)))
            }
            Record::Free { node, ptr } => {
                let stack = self.stack(node);
                self.stacks.mark_free(stack);
                Some(self.number(Op::Free { ptr }, stack, By::Unknown))
            }
            record => self.rare(record),
        }
    }

    #[inline(always)]
    fn number(&mut self, op: Op, site: StackId, by: By) -> Event {
        self.log.records += 1;
        Event::Record { op, site, line: self.log.records, by }
    }

    #[inline(never)]
    fn rare(&mut self, record: Record) -> Option<Event> {
        match record {
            Record::ReallocOld { node, ptr } => {
                self.reallocs += 1;
                let stack = self.stack(node);
                Some(self.number(Op::ReallocFrom { ptr }, stack, By::Unknown))
            }
            Record::Failed { info, ptr } => {
                let Info { stack, size, .. } = self.info(info)?;
                // A realloc to 0 bytes does not fail, it frees.
                let op = match ptr == 0 || size == 0 {
                    true => Op::Alloc { ptr: 0, size },
                    false => Op::ReallocFailed { ptr, size },
                };
                Some(self.number(op, stack, By::Unknown))
            }
            Record::Time(nanoseconds) => Some(Event::Time { nanoseconds }),
            Record::Rss(bytes) => Some(Event::Resident { bytes }),
            Record::Orphan(value) => self.orphan(value),
            definition => {
                self.define(definition);
                None
            }
        }
    }

    #[inline]
    fn info(&mut self, id: u32) -> Option<Info> {
        let info = self.infos.get(id);
        self.undefined += u64::from(info.is_none());
        info
    }

    #[inline]
    fn stack(&mut self, node: u32) -> StackId {
        match self.nodes.get(node) {
            Some(stack) => stack,
            None => {
                self.undefined += u64::from(node != 0);
                Stacks::UNKNOWN
            }
        }
    }

    /// A realloc that was going on when the process died may have left its second word, which
    /// names the block that may be free from here on.
    #[cold]
    fn orphan(&mut self, value: u64) -> Option<Event> {
        let ptr = value - 1;
        let is_block = ptr != 0 && ptr.is_multiple_of(8) && ptr < 1 << 47;
        (self.behind_hole && is_block).then_some(Event::Unpublished { ptr })
    }

    #[cold]
    fn define(&mut self, record: Record) {
        match record {
            Record::Node { id, parent, address } => {
                let stack = match (Address::of(parent, address), parent) {
                    (meaning, 0) => self.stacks.root(meaning),
                    (meaning, parent) => {
                        let parent = self.stack(parent);
                        self.stacks.node(parent, meaning)
                    }
                };
                self.nodes.set(id, stack);
            }
            Record::Info { id, node, size, family, .. } => {
                let stack = self.stack(node);
                self.stacks.mark_allocation(stack, family);
                self.infos.set(id, Info { stack, family, size });
            }
            _ => {}
        }
    }

    /// A piece of text: whole lines of it are taken in.
    #[cold]
    fn text<E: From<Error>>(
        &mut self,
        piece: Piece,
        path: &Path,
        each: &mut impl FnMut(Item<'_>, &Stacks) -> Result<(), E>,
    ) -> Result<(), E> {
        if piece.is_first {
            self.line.clear();
        }
        for byte in piece.bytes() {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_in(&line, path)?;
                    each(Item::Line(&line), &self.stacks)?;
                }
                _ if self.line.len() == LONGEST => {}
                byte => self.line.push(*byte),
            }
        }
        Ok(())
    }

    fn take_in(&mut self, line: &[u8], path: &Path) -> Result<(), Error> {
        match Line::parse(line) {
            Line::Start => self.log.switch(true),
            Line::End => self.log.switch(false),
            Line::Blank => {}
            Line::Meta(meta) => {
                if let Meta::TraceVersion(found) = meta
                    && found > NEWEST
                {
                    let path = path.into();
                    return Err(Error::NewerVersion { path, line: 1, found, newest: NEWEST });
                }
                self.stacks.modules.state(meta);
                self.log.state(meta);
            }
            _ => self.undefined += 1,
        }
        Ok(())
    }

    fn finish(self, cut: bool) -> Log {
        let mut log = self.log;
        log.is_compact = true;
        log.lines = self.words;
        log.damage.cut = cut;
        log.damage.torn = self.decoder.torn();
        log.damage.malformed = self.decoder.malformed() + self.undefined;
        log.sites = CallSites {
            program: log.header.program.clone(),
            directory: log.header.directory.clone(),
            ..self.stacks.finish()
        };
        log
    }
}

#[cfg(test)]
pub(crate) mod writer; // traces made by hand

#[cfg(test)]
mod tests;
