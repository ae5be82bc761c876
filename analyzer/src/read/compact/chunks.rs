//! Where the chunks of a trace are: in its file, in its tail, or in memory.

use std::cmp::Reverse;
use std::fs::File;
use std::io;

use mtr_format::compact::chunk::{ALIGN, HEADER, Header, MARK};

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
    /// The last bytes are too few for a chunk.
    pub(super) is_cut: bool,
}

/// Hands every chunk of trace `id` to `each`: its position, its header and how many bytes of its
/// records are there.
pub fn walk(bytes: &Bytes, id: u64, mut each: impl FnMut(u64, Header, u32)) -> io::Result<Strange> {
    let (end, mut at) = (bytes.length()?, 0);
    let mut strange = Strange::default();
    let mut buffer = Vec::new();
    let mut front = [0; HEADER];
    while at < end {
        let read = bytes.read(&mut front, at)?;
        if let Some(header) = Header::parse(&front[..read]).filter(|header| header.id == id) {
            let rest = end.saturating_sub(at + HEADER as u64);
            each(at, header, rest.min(header.length.into()) as u32);
            at += header.size() as u64;
            continue;
        }
        // Go on at the next chunk, wherever that is.
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
        let is_header = front[..read].starts_with(&MARK) && read < HEADER;
        strange.is_cut |= is_header;
        strange.stretches += u64::from(is_strange && !is_header);
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
    pub(super) strange: Strange,
}

impl Chunks {
    /// Finds the chunks of trace `id` in `bytes` and in the tail.
    pub fn find(bytes: Bytes, id: u64, tail: Slots) -> io::Result<Chunks> {
        let moment = tail.moment;
        let slots = tail.into_chunks();
        let mut places = Vec::new();
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
        let strange = walk(&bytes, id, |at, header, length| add(at, header, length, false))?;
        // Of a chunk that is there twice the longer one counts. Of two as long, a process may have died
        // while it wrote the one in the file, or the first there: that may have a hole.
        places.sort_by_key(|place| {
            let Place { stream, number, length, is_in_slot, at, .. } = *place;
            (stream, number, Reverse((length, is_in_slot, at)))
        });
        places.dedup_by_key(|place| (place.stream, place.number));
        Ok(Chunks { bytes, slots, places, moment, strange })
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
