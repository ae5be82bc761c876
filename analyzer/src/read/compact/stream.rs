//! The chunks of one stream -> events.

use std::mem;

use mtr_format::compact::chunk::{HEADER, Header};
use mtr_format::compact::decode::{Address, Decoder, Record, Request};
use mtr_format::compact::op::{Family, FreeKind, Outcome};
use mtr_format::text::decode::Op;

use super::chunks::{Chunks, Place};
use super::numbered::Numbered;
use super::{Item, Key, Shared, Stacks};
use crate::error::Error;
use crate::read::StackId;
use crate::read::trace::{By, Event, OpenCall};

/// A longer line is no line of a trace; it is given up so that memory stays bounded.
const LONGEST: usize = 1 << 20;

/// A node of the stream.
#[derive(Debug, Clone, Copy)]
struct Node {
    stack: StackId,
    /// Families that have allocated there: a bit for each; and [`FREES`].
    families: u16,
}

/// Bit of a node that has freed; no family has the number 0.
const FREES: u16 = 1;

/// Why the reading of a stream paused.
enum Pause {
    /// Its next records come after those of another stream.
    Turn,
    /// Its next records are in another chunk.
    ChunkEnd,
    /// Its next records come after the moment that is read.
    Moment,
}

/// A stream that is being read.
pub(super) struct Stream<'a> {
    index: usize,
    /// Chunks that have not been loaded.
    places: &'a [Place],
    /// The chunk that is being read: header and records; empty for none.
    buffer: Vec<u8>,
    decoder: Decoder,
    stamp: u64,
    thread: u32,
    nodes: Numbered<Node>,
    /// The line that is being read.
    line: Vec<u8>,
    /// Reallocs that have ended a block and not begun one.
    reallocs: u64,
    /// Number of the next chunk.
    number: u64,
    /// Nodes up to this number may have been defined in a chunk that could not be written.
    lost_nodes: u32,
    /// How often the stream has forgotten.
    forgets: u32,
    /// Time at the beginning of the chunk.
    time: u64,
    /// All that its header announces was loaded.
    is_whole: bool,
    /// The end of the chunk before could not be read.
    is_damaged: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(index: usize, places: &'a [Place]) -> Stream<'a> {
        Stream {
            index,
            places,
            buffer: Vec::new(),
            decoder: Decoder::new(),
            stamp: 0,
            thread: 0,
            nodes: Numbered::default(),
            line: Vec::new(),
            reallocs: 0,
            number: 0,
            lost_nodes: 0,
            forgets: 0,
            time: 0,
            is_whole: true,
            is_damaged: false,
        }
    }

    /// Where the next chunk stands in the order.
    pub(super) fn key(&self) -> Option<Key> {
        Some((self.places.first()?.stamp, self.index))
    }

    /// Reads on until a stamp that comes behind `limit`; where it goes on, or `None` at its end.
    pub(super) fn run<E: From<Error>>(
        &mut self,
        limit: Key,
        shared: &mut Shared<'_>,
        each: &mut impl FnMut(Item<'_>, &Stacks) -> Result<(), E>,
    ) -> Result<Option<Key>, E> {
        loop {
            if self.buffer.is_empty() {
                match self.key() {
                    Some(key) if key.0 <= shared.moment && key > limit => return Ok(Some(key)),
                    Some(key) if key.0 <= shared.moment => {}
                    _ => return Ok(None),
                }
                if let Some(nanoseconds) = self.load(shared)? {
                    each(Item::Event(Event::Time { nanoseconds }), &shared.stacks)?;
                }
                if mem::take(&mut shared.has_gap) {
                    each(Item::Gap(&shared.so_far()), &shared.stacks)?;
                }
                continue;
            }
            let buffer = mem::take(&mut self.buffer);
            let records = buffer.get(HEADER..).unwrap_or_default();
            let pause = self.records(records, limit, shared, each)?;
            let length = records.len();
            self.buffer = buffer;
            match pause {
                Pause::Turn => return Ok(Some((self.stamp, self.index))),
                Pause::Moment => return Ok(None),
                Pause::ChunkEnd => self.end(length, shared),
            }
        }
    }

    /// Loads the next chunk; the time at its beginning, when that is news.
    #[cold]
    fn load(&mut self, shared: &mut Shared<'_>) -> Result<Option<u64>, Error> {
        let Some((place, rest)) = self.places.split_first() else { return Ok(None) };
        self.places = rest;
        let path = shared.path;
        let unreadable = |source| Error::Read { path: path.into(), position: 0, source };
        let loaded = shared.chunks.load(place, &mut self.buffer).map_err(unreadable)?;
        let Some(header) = loaded else {
            // Truncated meanwhile. What is missing is counted at the next chunk, if there is one.
            self.buffer.clear();
            shared.log.damage.chunk_cut = true;
            return Ok(None);
        };
        self.is_whole = Chunks::is_whole(place, &self.buffer);
        self.decoder = Decoder::new();
        self.go_on_behind_gap(&header, shared);
        self.nodes.go_on_behind(header.nodes);
        (self.stamp, self.thread, self.forgets) = (header.stamp, header.thread, header.forgets);
        (self.time, self.is_damaged) = (header.time, false);
        self.number = u64::from(header.number) + 1;
        Ok(shared.clock.state(header.stamp, header.time))
    }

    /// What a header says of the time before its chunk.
    fn go_on_behind_gap(&mut self, header: &Header, shared: &mut Shared<'_>) {
        let missing = u64::from(header.number).saturating_sub(self.number);
        shared.lost += u64::from(header.lost);
        if missing == 0 && header.lost == 0 && !self.is_damaged {
            return;
        }
        shared.has_gap = true;
        let damage = &mut shared.log.damage;
        // What the process says itself that it could not write is no damage.
        let since = match header.lost {
            0 => {
                damage.missing += missing;
                &mut damage.missing_since
            }
            _ => {
                self.lost_nodes = header.nodes;
                &mut damage.lost_since
            }
        };
        *since = Some(since.map_or(self.time, |since| since.min(self.time)));
        if header.forgets != self.forgets {
            self.nodes.forget();
        }
        self.line.clear();
        self.reallocs = 0;
    }

    /// The chunk is over.
    #[cold]
    fn end(&mut self, length: usize, shared: &mut Shared<'_>) {
        self.is_damaged = !self.is_whole || self.decoder.position() < length;
        match self.is_whole {
            true if self.is_damaged => {
                shared.log.damage.damaged += 1;
                shared.log.damage.damaged_bytes += (length - self.decoder.position()) as u64;
            }
            true => {}
            false => shared.log.damage.chunk_cut = true,
        }
        self.buffer.clear();
    }

    /// Reads the records of the chunk from where it is.
    #[inline]
    fn records<E: From<Error>>(
        &mut self,
        records: &[u8],
        limit: Key,
        shared: &mut Shared<'_>,
        each: &mut impl FnMut(Item<'_>, &Stacks) -> Result<(), E>,
    ) -> Result<Pause, E> {
        let mut decoder = self.decoder;
        if let Some(nanoseconds) = shared.clock.at(self.stamp) {
            each(Item::Event(Event::Time { nanoseconds }), &shared.stacks)?;
        }
        while let Some(record) = decoder.next(records) {
            let event = match record {
                Record::Alloc { node, ptr, size, by } => {
                    let stack = self.stack(node, by, shared);
                    let op = match by.family {
                        Family::Realloc if self.reallocs > 0 => {
                            self.reallocs -= 1;
                            Op::ReallocTo { ptr, size }
                        }
                        _ => Op::Alloc { ptr, size },
                    };
                    self.record(op, stack, By::Alloc(by), shared)
                }
                Record::Free { ptr, kind, node } => {
                    let stack = self.caller(node, shared);
                    self.record(Op::Free { ptr }, stack, By::Free(kind), shared)
                }
                Record::Stamp(ticks) => {
                    self.stamp = self.stamp.saturating_add(ticks);
                    if self.stamp > shared.moment {
                        return Ok(Pause::Moment);
                    }
                    if (self.stamp, self.index) > limit {
                        self.decoder = decoder;
                        return Ok(Pause::Turn);
                    }
                    match shared.clock.at(self.stamp) {
                        Some(nanoseconds) => Event::Time { nanoseconds },
                        None => continue,
                    }
                }
                Record::Text(piece) => {
                    self.text(piece, shared, each)?;
                    continue;
                }
                record => match self.rare(record, shared) {
                    Some(event) => event,
                    None => continue,
                },
            };
            each(Item::Event(event), &shared.stacks)?;
        }
        self.decoder = decoder;
        Ok(Pause::ChunkEnd)
    }

    #[inline(always)]
    fn record(&self, op: Op, site: StackId, by: By, shared: &mut Shared<'_>) -> Event {
        shared.log.records += 1;
        Event::Record { op, site, thread: self.thread, by, line: shared.log.records }
    }

    /// realloc ends a block, or may do so.
    #[cold]
    fn realloc(&mut self, outcome: Outcome, ptr: u64, node: u32, shared: &mut Shared<'_>) -> Event {
        let site = self.caller(node, shared);
        let op = match outcome {
            Outcome::Ended => {
                self.reallocs += 1;
                Op::ReallocFrom { ptr }
            }
            Outcome::Freed => Op::Free { ptr },
            Outcome::Open | Outcome::Unchanged => {
                // It is the next event, and none that is counted.
                let line = shared.log.records + 1;
                return Event::Unpublished {
                    ptr,
                    call: Some(OpenCall { is_realloc: true, site, line }),
                };
            }
        };
        self.record(op, site, By::Free(FreeKind::Free), shared)
    }

    /// The stack that is a node, which frees.
    #[inline(always)]
    fn caller(&mut self, number: u32, shared: &mut Shared<'_>) -> StackId {
        let Some(node) = self.nodes.get_mut(number) else {
            shared.log.damage.meaningless += u64::from(number > self.lost_nodes);
            return Stacks::UNKNOWN;
        };
        if node.families & FREES == 0 {
            node.families |= FREES;
            shared.stacks.mark_free(node.stack);
        }
        node.stack
    }

    /// The stack that is a node, which allocates.
    #[inline(always)]
    fn stack(&mut self, number: u32, by: Request, shared: &mut Shared<'_>) -> StackId {
        let Some(node) = self.nodes.get_mut(number) else {
            shared.log.damage.meaningless += u64::from(number > self.lost_nodes);
            return Stacks::UNKNOWN;
        };
        let family = 1 << by.family as u8;
        if node.families & family == 0 {
            node.families |= family;
            shared.stacks.mark_allocation(node.stack, by.family);
        }
        node.stack
    }

    #[inline(never)]
    fn rare(&mut self, record: Record<'_>, shared: &mut Shared<'_>) -> Option<Event> {
        match record {
            // The FAILED behind it says all.
            Record::Realloc { outcome: Outcome::Unchanged, .. } => {}
            Record::Realloc { outcome, ptr, node } => {
                return Some(self.realloc(outcome, ptr, node, shared));
            }
            Record::Failed { node, ptr, size, by } => {
                let stack = self.stack(node, by, shared);
                // A realloc to 0 bytes does not fail, it frees.
                let op = match ptr == 0 || size == 0 {
                    true => Op::Alloc { ptr: 0, size },
                    false => Op::ReallocFailed { ptr, size },
                };
                return Some(self.record(op, stack, By::Alloc(by), shared));
            }
            Record::Resident(bytes) => return Some(Event::Resident { bytes }),
            Record::Thread(thread) => self.thread = thread,
            Record::Forget => {
                self.forgets = self.forgets.wrapping_add(1);
                self.lost_nodes = 0;
                self.nodes.forget();
            }
            Record::Node { up, address } => self.node(up, address, shared),
            // These are taken in where they are met.
            Record::Alloc { .. } | Record::Free { .. } | Record::Stamp(_) | Record::Text(_) => {}
        }
        None
    }

    fn node(&mut self, up: u64, address: u64, shared: &mut Shared<'_>) {
        let parent = match self.number(self.nodes.count() + 1, up, shared) {
            0 if up > 0 => None,
            parent => Some(self.nodes.get_mut(parent).map_or(Stacks::UNKNOWN, |node| node.stack)),
        };
        let stack = shared.stacks.node(parent, Address::of(address));
        self.nodes.push(Node { stack, families: 0 });
    }

    /// The number that is so many below another; 0 where there is none.
    fn number(&self, from: u64, up: u64, shared: &mut Shared<'_>) -> u32 {
        let number = from.checked_sub(up).and_then(|number| u32::try_from(number).ok());
        shared.log.damage.meaningless += u64::from(number.is_none());
        number.unwrap_or(0)
    }

    /// A piece of text: whole lines of it are taken in.
    #[cold]
    fn text<E: From<Error>>(
        &mut self,
        piece: &[u8],
        shared: &mut Shared<'_>,
        each: &mut impl FnMut(Item<'_>, &Stacks) -> Result<(), E>,
    ) -> Result<(), E> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() < LONGEST {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                let line = mem::take(&mut self.line);
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                shared.line(line)?;
                each(Item::Line(line), &shared.stacks)?;
            }
        }
        Ok(())
    }
}
