//! Chunks of a compact trace -> events and call stacks.

mod chunks; // where they are
mod clock; // stamps -> time
mod numbered; // what the numbers of a stream stand for
mod stacks; // nodes -> distinct call stacks
mod stream; // the chunks of one stream -> events

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use mtr_format::compact::chunk;
use mtr_format::compact::decode::{Decoder, Record};
use mtr_format::text::decode::Line;
use mtr_format::text::meta::Meta;

use super::trace::{Event, Log};
use super::{CallSites, Damage};
use crate::error::Error;
pub(in crate::read) use chunks::is_front;
pub use chunks::{Bytes, Chunks, Found, Strange, id_of, walk};
use clock::Clock;
pub use stacks::Stacks;
use stream::Stream;

/// What a trace holds, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// Something happened.
    Event(Event),
    /// A `#` or `=` line, without its newline.
    Line(&'a [u8]),
    /// Something is missing here: all that is known to be missing by now.
    Gap(&'a Damage),
}

/// Reads a trace and hands every event to `each`; `path` is for messages.
pub fn read_from(chunks: &Chunks, path: &Path, mut each: impl FnMut(Event)) -> Result<Log, Error> {
    read_items(chunks, path, |item, _| {
        if let Item::Event(event) = item {
            each(event);
        }
        Ok::<(), Error>(())
    })
}

/// As [`read_from`], with the lines in between and the stacks that are known by then. Stops at the
/// first error of `each`.
///
/// Memory is that of one chunk of each stream and of what the trace defines.
pub fn read_items<E: From<Error>>(
    chunks: &Chunks,
    path: &Path,
    mut each: impl FnMut(Item<'_>, &Stacks) -> Result<(), E>,
) -> Result<Log, E> {
    let mut shared = Shared {
        chunks,
        path,
        log: Log { is_compact: true, ..Log::default() },
        stacks: Stacks::default(),
        clock: Clock::new(chunks.places(), &chunks.readings),
        moment: chunks.moment.unwrap_or(u64::MAX),
        lost: 0,
        has_gap: false,
    };
    let mut streams: Vec<Stream<'_>> =
        chunks.streams().enumerate().map(|(index, places)| Stream::new(index, places)).collect();
    shared.log.streams = streams.len() as u64;
    for line in lines_of(&chunks.loss.front) {
        // One that is damaged means nothing.
        if shared.line(&line).is_ok() {
            each(Item::Line(&line), &shared.stacks)?;
        }
    }
    // The streams by the stamp at which each goes on. One of them has the floor until its stamps
    // pass that of the next, so that this costs nothing for each event.
    let mut order: BinaryHeap<Reverse<Key>> =
        streams.iter().filter_map(|stream| Some(Reverse(stream.key()?))).collect();
    while let Some(Reverse((_, index))) = order.pop() {
        let limit = order.peek().map_or((u64::MAX, usize::MAX), |Reverse(next)| *next);
        match streams[index].run(limit, &mut shared, &mut each)? {
            Some(key) => order.push(Reverse(key)),
            // Its chunk and its definitions are not needed any more.
            None => streams[index] = Stream::new(index, &[]),
        }
    }
    if let Some(nanoseconds) = shared.clock.end() {
        each(Item::Event(Event::Time { nanoseconds }), &shared.stacks)?;
    }
    Ok(shared.finish())
}

/// The lines among the records of a chunk, as far as these can be read.
fn lines_of(records: &[u8]) -> Vec<Vec<u8>> {
    let (mut decoder, mut text) = (Decoder::new(), Vec::new());
    while let Some(record) = decoder.next(records) {
        if let Record::Text(piece) = record {
            text.extend_from_slice(piece);
        }
    }
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.filter_map(|line| line.strip_suffix(b"\n")).map(<[u8]>::to_vec).collect()
}

/// The order of runs: by stamp, then by stream.
type Key = (u64, usize);

/// What all streams have a part in.
struct Shared<'a> {
    chunks: &'a Chunks,
    path: &'a Path,
    log: Log,
    stacks: Stacks,
    clock: Clock,
    /// What has a later stamp is left out.
    moment: u64,
    /// Events that could not be written, as headers of chunks state them.
    lost: u64,
    /// Something is missing at this place.
    has_gap: bool,
}

impl Shared<'_> {
    /// A `#` or `=` line.
    fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        match Line::parse(line) {
            Line::Start => self.log.switch(true),
            Line::End => self.log.switch(false),
            Line::Blank => {}
            Line::Meta(meta) => {
                let newest = chunk::VERSION.into();
                if let Meta::TraceVersion(found) = meta
                    && found > newest
                {
                    let path = self.path.into();
                    return Err(Error::NewerVersion { path, line: None, found, newest });
                }
                self.stacks.state(meta);
                // What a log says of the trace that it was made from is nothing to a trace.
                if !matches!(meta, Meta::Source(_)) {
                    self.log.state(meta, (0, 0));
                }
            }
            _ => self.log.damage.meaningless += 1,
        }
        Ok(())
    }

    /// What is known to be missing, with so many chunks behind the last ones of their streams.
    fn damage(&self, behind: u64) -> Damage {
        let (mut damage, loss) = (self.log.damage.clone(), &self.chunks.loss);
        damage.lost = damage.lost.max(self.lost);
        // Chunks that could not be written are among what was lost.
        let behind = if damage.lost > 0 { 0 } else { behind };
        // What is damaged leaves a gap in the numbers of its stream.
        damage.missing = (damage.missing + behind).saturating_sub(loss.damaged);
        damage.missing = if loss.short.is_some() { 0 } else { damage.missing };
        damage.damaged += loss.damaged;
        damage.damaged_bytes += loss.bytes;
        damage.short = loss.short;
        damage.chunk_cut |= loss.is_cut;
        damage
    }

    /// What is known to be missing at a gap. The first chunk says how much could not be written up to the
    /// end; up to here, the headers do.
    fn so_far(&self) -> Damage {
        Damage { lost: self.lost, ..self.damage(0) }
    }

    fn finish(self) -> Log {
        let damage = self.damage(self.chunks.loss.missing);
        let mut log = Log { damage, ..self.log };
        // The line that says so may be among what is missing.
        log.header.version.get_or_insert(chunk::VERSION.into());
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
