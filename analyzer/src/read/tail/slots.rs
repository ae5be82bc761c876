//! The tail of a compact trace: chunks that its process had not written out
//! (docs/trace-format.md).

use std::fs::File;
use std::path::Path;

use mtr_format::compact::chunk::{ALIGN, CHUNK, HEADER, Header};
use mtr_format::compact::decode::{Decoder, Record};
use mtr_format::tail as layout;

use super::{Fields, Loss, damaged, settled, u64_at};
use crate::error::Error;
use crate::read::front::read_at;

/// The tail of a compact trace as it was at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// ID of the trace that it belongs to.
    pub id: u64,
    /// What is missing.
    pub loss: Loss,
    /// What has a later stamp comes after the moment that was read: of a running process only what
    /// precedes it is known of every thread.
    pub moment: Option<u64>,
    /// A stamp, and its time in nanoseconds since the trace began.
    pub reading: Option<(u64, u64)>,
    /// Headers and records.
    chunks: Vec<Vec<u8>>,
    /// Streams whose chunk is empty, and its number: so many are in the file.
    empty: Vec<(u32, u64)>,
}

impl Slots {
    /// Reads the tail in `file`, which its process may be writing to: then what is there is only
    /// known to be complete up to a moment.
    pub(super) fn read(file: &File, path: &Path, is_running: bool) -> Result<Slots, Error> {
        let (fields, slots) =
            settled(file, path, |fields| Self::read_by(fields, file, path, is_running))?;
        Ok(Slots { loss: fields.loss, ..slots })
    }

    fn read_by(
        fields: &Fields,
        file: &File,
        path: &Path,
        is_running: bool,
    ) -> Result<Slots, Error> {
        let Fields { id, size, count, .. } = *fields;
        if size < CHUNK as u64 || !size.is_multiple_of(ALIGN as u64) {
            return Err(damaged(path, "slots of 32,768 bytes", size.to_string()));
        }
        let mut slots = Slots { id, ..Slots::default() };
        let read = || -> Result<Vec<Vec<u8>>, Error> {
            let mut chunks: Vec<Vec<u8>> = Vec::new();
            for index in 0..count as u64 {
                let place = layout::SLOTS as u64 + size * index;
                let at = |source| Error::Read { path: path.into(), position: place, source };
                chunks.extend(slot(file, place, id).map_err(at)?);
            }
            Ok(chunks)
        };
        if is_running {
            slots.moment = read()?.iter().map(|chunk| last_stamp(chunk)).max();
        }
        slots.reading = reading(file).map_err(|source| Error::Read {
            path: path.into(),
            position: layout::CLOCK as u64,
            source,
        })?;
        slots.chunks = read()?;
        let headers = slots.chunks.iter().filter_map(|chunk| Header::parse(chunk));
        let empty = headers.filter(|header| header.length == 0);
        slots.empty = empty.map(|header| (header.stream, header.number.into())).collect();
        slots.chunks.retain(|chunk| chunk.len() > HEADER);
        Ok(slots)
    }

    /// Streams of which nothing is in the tail, and how many chunks of them are in the file. Nobody
    /// knows how many could not be written.
    pub(in crate::read) fn begun(&self) -> Vec<(u32, u64)> {
        if self.loss.records > 0 { Vec::new() } else { self.empty.clone() }
    }

    /// Header and records of each chunk.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(Vec::as_slice)
    }

    /// The chunks themselves.
    pub(in crate::read) fn into_chunks(self) -> Vec<Vec<u8>> {
        self.chunks
    }
}

/// The last reading of the clock in a tail.
fn reading(file: &File) -> std::io::Result<Option<(u64, u64)>> {
    const LENGTH: usize = layout::CLOCK_READINGS + 32 - layout::CLOCK;
    let mut bytes = [0; LENGTH];
    read_at(file, &mut bytes, layout::CLOCK as u64)?;
    let number = u64_at(&bytes, 0);
    let place = layout::CLOCK_READINGS - layout::CLOCK + 16 * (number & 1) as usize;
    Ok((number > 0).then(|| (u64_at(&bytes, place), u64_at(&bytes, place + 8))))
}

/// The chunk in the slot at `place`, if there is one of the trace `id`. One without records has a
/// stamp all the same.
fn slot(file: &File, place: u64, id: u64) -> std::io::Result<Option<Vec<u8>>> {
    // The process may put another chunk here while we read: then its number changes, and the one
    // that stood here before is in the file by now.
    for _ in 0..8 {
        let mut bytes = vec![0; HEADER];
        read_at(file, &mut bytes, place)?;
        let is_ours = |header: &Header| header.id == id;
        let Some(header) = Header::parse(&bytes).filter(is_ours) else { return Ok(None) };
        bytes.resize(HEADER + header.length as usize, 0);
        read_at(file, &mut bytes[HEADER..], place + HEADER as u64)?;
        let mut again = [0; HEADER];
        read_at(file, &mut again, place)?;
        let is_same = |now: Header| {
            now.length >= header.length && Header { length: header.length, ..now } == header
        };
        if Header::parse(&again).is_some_and(is_same) {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// The last stamp in a chunk.
fn last_stamp(chunk: &[u8]) -> u64 {
    let stamp = Header::parse(chunk).map_or(0, |header| header.stamp);
    let (mut decoder, records) = (Decoder::new(), chunk.get(HEADER..).unwrap_or_default());
    let mut ticks = 0u64;
    while let Some(record) = decoder.next(records) {
        if let Record::Stamp(further) = record {
            ticks = ticks.saturating_add(further);
        }
    }
    stamp.saturating_add(ticks)
}
