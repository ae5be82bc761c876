//! Where the chunks of a trace are: in its file, in its tail, or in memory.

use std::cmp::Reverse;
use std::fs::File;
use std::io;

use mtr_format::compact::chunk::{ALIGN, CHUNK, HEADER, Header, MARK};
use mtr_format::compact::sum;
use mtr_format::text::meta::{Closed, Meta};

use crate::read::front::{behind_hole, chunks_in, read_at};
use crate::read::tail::Slots;

/// Bytes searched at once for the next chunk, a multiple of 64.
const SEARCHED: usize = 256 << 10;

/// Chunks that are asked for the ID of their trace.
const ASKED: usize = 9;

/// What a trace is read from. A file is read, never mapped: one that shrinks meanwhile is damage,
/// not a signal.
#[derive(Debug)]
pub enum Bytes {
    /// A file, read where a chunk is.
    File(File),
    /// What came out of a pipe.
    Memory(Vec<u8>),
}

impl Bytes {
    /// As many bytes from `at` on as there are, or as fit.
    fn read(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Bytes::File(file) => read_at(file, out, at),
            Bytes::Memory(bytes) => {
                let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
                let rest = rest.unwrap_or_default();
                let length = rest.len().min(out.len());
                out[..length].copy_from_slice(&rest[..length]);
                Ok(length)
            }
        }
    }

    /// Where the hole ends that may begin at `at`.
    fn behind_hole(&self, at: u64) -> io::Result<u64> {
        match self {
            Bytes::File(file) => Ok(behind_hole(file, at)? / ALIGN as u64 * ALIGN as u64),
            Bytes::Memory(_) => Ok(at),
        }
    }

    /// How many there are.
    pub fn length(&self) -> io::Result<u64> {
        Ok(match self {
            Bytes::File(file) => file.metadata()?.len(),
            Bytes::Memory(bytes) => bytes.len() as u64,
        })
    }
}

/// What stands between chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strange {
    /// Places where no chunk was and that are no hole.
    pub(super) stretches: u64,
    /// Bytes of these.
    pub(super) bytes: u64,
    /// The last bytes are too few for a chunk.
    pub(super) is_cut: bool,
}

/// How a chunk stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// As it was written.
    Whole,
    /// The file ends behind so many bytes of its records.
    Cut(u32),
    /// It is not as it was written, and what it says means nothing. The next chunk begins so many bytes
    /// behind its beginning.
    Damaged(u64),
}

/// Hands every chunk of trace `id` to `each`: its position, its header and its records, and how it
/// stands there.
pub fn walk(
    bytes: &Bytes,
    id: u64,
    mut each: impl FnMut(u64, Header, &[u8], Found),
) -> io::Result<Strange> {
    let (end, mut at) = (bytes.length()?, 0);
    let mut strange = Strange::default();
    let (mut buffer, mut chunk) = (Vec::new(), vec![0; CHUNK]);
    while at < end {
        let mut read = bytes.read(&mut chunk, at)?;
        let front = &chunk[..read.min(HEADER)];
        let header = Header::parse(front).filter(|header| header.id == id);
        if let Some(header) = header {
            read = read.min(HEADER + header.length as usize);
            let (length, records) = (HEADER + header.length as usize, &chunk[HEADER..read]);
            // Where a chunk begins inside of it, its length is not what it was.
            let is_whole = || chunks_in(&chunk[..read]).skip(1).all(|(_, h)| h.id != id);
            let found = match read == length {
                true if sum::is_right(&chunk[..read]) => Some(Found::Whole),
                false if is_whole() => Some(Found::Cut((read - HEADER) as u32)),
                _ => None,
            };
            if let Some(found) = found {
                each(at, header, records, found);
                at += header.size() as u64;
                continue;
            }
        }
        // Go on at the next chunk, wherever that is.
        let begin = at;
        at += if header.is_some() { ALIGN as u64 } else { 0 };
        let (mut is_strange, mut found) = (false, None);
        while at < end && found.is_none() {
            buffer.resize(SEARCHED + HEADER, 0);
            let read = bytes.read(&mut buffer, at)?;
            found = chunks_in(&buffer[..read]).find(|(_, header)| header.id == id);
            let passed = found.map_or(read.min(SEARCHED), |(place, _)| place);
            let is_empty = buffer[..passed].iter().all(|byte| *byte == 0);
            is_strange |= !is_empty;
            if read == 0 {
                break;
            }
            at += passed as u64;
            if is_empty && found.is_none() {
                at = at.max(bytes.behind_hole(at)?);
            }
        }
        let is_header = chunk[..read].starts_with(&MARK) && read < HEADER;
        strange.is_cut |= is_header;
        match header {
            Some(header) => each(begin, header, &chunk[HEADER..read], Found::Damaged(at - begin)),
            None if is_strange && !is_header => {
                strange.stretches += 1;
                strange.bytes += at - begin;
            }
            None => {}
        }
        if found.is_none() {
            break;
        }
    }
    Ok(strange)
}

/// The ID that most of the first chunks among `front` have; one of them may be damaged.
pub fn id_of(front: &[u8]) -> Option<u64> {
    let ids: Vec<u64> = chunks_in(front).take(ASKED).map(|(_, header)| header.id).collect();
    let count = |id: &u64| ids.iter().filter(|other| *other == id).count();
    // The first of several that are as frequent.
    ids.iter().rev().max_by_key(|id| count(id)).copied()
}

/// Whether it is the first chunk of a trace.
pub(in crate::read) fn is_front(header: &Header) -> bool {
    header.stream == 0 && header.number == 0
}

/// The `# closed` line among those of a first chunk that are overwritten.
fn stated(header: &Header, records: &[u8]) -> Option<Closed> {
    let range = header.stated.range();
    let lines = records.get(range.start.checked_sub(HEADER)?..range.end.checked_sub(HEADER)?)?;
    lines.split(|byte| *byte == b'\n').find_map(|line| match Meta::parse(line) {
        Ok(Meta::Closed(closed)) => Some(closed),
        _ => None,
    })
}

/// One chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) stream: u32,
    pub(super) number: u32,
    /// Stamp at its beginning.
    pub(super) stamp: u64,
    /// Time at its beginning.
    pub(super) time: u64,
    /// Position in the bytes, or index of the slot.
    at: u64,
    /// Bytes of records that are there.
    length: u32,
    is_in_slot: bool,
    /// There should be more records.
    pub(super) is_cut: bool,
}

/// The chunks of a trace.
#[derive(Debug)]
pub struct Chunks {
    bytes: Bytes,
    slots: Vec<Vec<u8>>,
    /// By stream and number.
    places: Vec<Place>,
    /// What has a later stamp is left out.
    pub(super) moment: Option<u64>,
    /// What cannot be read.
    pub(super) loss: Loss,
    /// What the first chunk says of the whole file. `None` where it has no line for that.
    pub(super) closed: Option<Closed>,
    /// Stamps and their times, but for those in the headers of chunks.
    pub(super) readings: Vec<(u64, u64)>,
}

/// What of the chunks cannot be read.
#[derive(Debug, Default)]
pub(super) struct Loss {
    /// Chunks that are not as they were written, and other bytes that are none.
    pub(super) damaged: u64,
    /// About how many bytes these are.
    pub(super) bytes: u64,
    /// Chunks that should stand behind the last of their stream.
    pub(super) missing: u64,
    /// Bytes of the file, and how many it had.
    pub(super) short: Option<(u64, u64)>,
    pub(super) is_cut: bool,
    /// Records of the first chunk if that is damaged: its lines are better than none.
    pub(super) front: Vec<u8>,
}

impl Chunks {
    /// Finds the chunks of trace `id` in `bytes` and in the tail.
    pub fn find(bytes: Bytes, id: u64, tail: Slots) -> io::Result<Chunks> {
        let (moment, expected, reading) = (tail.moment, tail.begun(), tail.reading);
        let slots = tail.into_chunks();
        let mut places = Vec::new();
        let (mut damaged, mut closed, mut has_lines) = (Vec::new(), None, false);
        let mut add = |at, header: Header, length, is_in_slot| {
            let Header { stream, number, stamp, time, .. } = header;
            let is_cut = length < header.length;
            places.push(Place { stream, number, stamp, time, at, length, is_in_slot, is_cut });
        };
        // What was in the tail when it was read and is written out meanwhile is found in the file.
        for (index, chunk) in (0..).zip(&slots) {
            if let Some(header) = Header::parse(chunk) {
                add(index, header, (chunk.len() - HEADER) as u32, true);
            }
        }
        let strange = walk(&bytes, id, |at, header, records, found| {
            if is_front(&header) {
                let stated = stated(&header, records);
                has_lines |= header.stated.length > 0 && found == Found::Whole;
                closed =
                    closed.into_iter().chain(stated).max_by_key(|closed: &Closed| closed.bytes);
            }
            match found {
                Found::Whole => add(at, header, header.length, false),
                Found::Cut(length) => add(at, header, length, false),
                Found::Damaged(bytes) => {
                    let front = if is_front(&header) { records.to_vec() } else { Vec::new() };
                    // That of a running process may be on its way.
                    if moment.is_none_or(|moment| header.stamp <= moment) {
                        damaged.push((header, bytes.min(header.size() as u64), front));
                    }
                }
            }
        })?;
        // Of a chunk that is there twice the longer one counts. Of two as long, a process may have died
        // while it wrote the one in the file, or the first there: that may have a hole.
        places.sort_by_key(|place| {
            let Place { stream, number, length, is_in_slot, at, .. } = *place;
            (stream, number, Reverse((length, is_in_slot, at)))
        });
        places.dedup_by_key(|place| (place.stream, place.number));
        let mut loss = Loss { bytes: strange.bytes, is_cut: strange.is_cut, ..Loss::default() };
        // The sum of a chunk does not count the lines that are overwritten.
        loss.damaged = strange.stretches + u64::from(has_lines && closed.is_none());
        for (header, bytes, front) in damaged {
            let key = (header.stream, header.number);
            let same = places.binary_search_by_key(&key, |place| (place.stream, place.number));
            // One that a process was writing when it died is in its tail. One with another stamp had
            // another key before it was damaged.
            if !same.is_ok_and(|same| places[same].stamp == header.stamp) {
                loss.damaged += 1;
                loss.bytes += bytes;
                loss.front.extend(front);
            }
        }
        let mut readings: Vec<_> = reading.into_iter().collect();
        let mut chunks = Chunks { bytes, slots, places, moment, loss, closed, readings: vec![] };
        if let Some(closed) = closed.filter(|closed| closed.bytes > 0) {
            let length = chunks.bytes.length()?;
            chunks.loss.short = Some((length, closed.bytes)).filter(|_| length < closed.bytes);
            chunks.loss.missing = closed.chunks.saturating_sub(chunks.begun());
            readings.extend((closed.stamp > 0).then_some((closed.stamp, closed.time)));
        }
        let behind = expected.iter().map(|(stream, begun)| {
            let last = chunks.streams().find(|places| places[0].stream == *stream);
            let last = last.and_then(|places| places.last());
            begun.saturating_sub(last.map_or(0, |last| u64::from(last.number) + 1))
        });
        chunks.loss.missing += behind.sum::<u64>();
        // A stream that is not there at all has no gap; of this one it is known that it has begun.
        let has_front = chunks.places.first().is_some_and(|first| first.stream == 0);
        if !has_front && chunks.loss.front.is_empty() && chunks.loss.missing == 0 {
            chunks.loss.missing = 1;
        }
        Ok(Chunks { readings, ..chunks })
    }

    /// For each stream, how many chunks it has begun as far as they are here, added up.
    fn begun(&self) -> u64 {
        self.streams()
            .filter_map(|places| places.last())
            .map(|last| u64::from(last.number) + 1)
            .sum()
    }

    /// Whether the trace would say so if it were whole without its tail, and does not.
    pub(in crate::read) fn is_open(&self) -> bool {
        self.closed.is_some_and(|closed| closed.bytes == 0)
    }

    /// What has this stamp or a later one is left out.
    pub fn end_before(&mut self, stamp: u64) {
        let last = stamp.saturating_sub(1);
        self.moment = Some(self.moment.map_or(last, |moment| moment.min(last)));
    }

    /// The chunks of each stream, by number.
    pub(super) fn streams(&self) -> impl Iterator<Item = &[Place]> {
        self.places.chunk_by(|a, b| a.stream == b.stream)
    }

    /// Every chunk.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Reads a chunk into `buffer`: its header, and its records behind it.
    pub(super) fn load(&self, place: &Place, buffer: &mut Vec<u8>) -> io::Result<Option<Header>> {
        buffer.clear();
        match place.is_in_slot {
            true => buffer.extend_from_slice(&self.slots[place.at as usize]),
            false => {
                buffer.resize(HEADER + place.length as usize, 0);
                let read = self.bytes.read(buffer, place.at)?;
                buffer.truncate(read);
            }
        }
        let is_same = |h: &Header| (h.stream, h.number) == (place.stream, place.number);
        // The file may have been truncated meanwhile.
        Ok(Header::parse(buffer).filter(is_same))
    }

    /// Whether all of a chunk that should be there was loaded.
    pub(super) fn is_whole(place: &Place, buffer: &[u8]) -> bool {
        !place.is_cut && buffer.len() == HEADER + place.length as usize
    }
}

#[cfg(test)]
pub(super) fn places_at(points: &[(u64, u64)]) -> Vec<Place> {
    let (stream, number, at, length) = (0, 0, 0, 0);
    let place = |&(stamp, time)| {
        let (is_in_slot, is_cut) = (false, false);
        Place { stream, number, stamp, time, at, length, is_in_slot, is_cut }
    };
    points.iter().map(place).collect()
}
