//! The header of a chunk, and where chunks may stand.

/// First bytes of a chunk: `mtr` and the version.
pub const MARK: [u8; 4] = *b"mtr\x02";
/// The version that [`MARK`] ends in.
pub const VERSION: u8 = MARK[3];
/// Bytes of a header.
pub const HEADER: usize = 64;
/// Most bytes of a chunk, its header included; a slot of the tail has as many.
pub const CHUNK: usize = 32768;
/// Most bytes of records in a chunk.
pub const MAX_LENGTH: usize = CHUNK - HEADER;
/// A chunk begins at a multiple of this.
pub const ALIGN: usize = 64;

/// Offset of the length of the records in bytes, a `u32`.
pub const LENGTH: usize = 4;
/// Offset of the ID of the trace, a `u64`.
pub const ID: usize = 8;
/// Offset of the stream, a `u32`.
pub const STREAM: usize = 16;
/// Offset of the number of the chunk in its stream, a `u32`.
pub const NUMBER: usize = 20;
/// Offset of the stamp at its beginning, a `u64`.
pub const STAMP: usize = 24;
/// Offset of the time at its beginning in nanoseconds, a `u64`.
pub const TIME: usize = 32;
/// Offset of the TID at its beginning, a `u32`.
pub const THREAD: usize = 40;
/// Offset of the number of nodes that are defined at its beginning, a `u32`.
pub const NODES: usize = 44;
/// Offset of the sum of the chunk, a `u32` (sum.rs).
pub const SUM: usize = 48;
/// Offset of the number of events that were lost before it, a `u32`.
pub const LOST: usize = 52;
/// Offset of the number of FORGETs of its stream before it, a `u32`.
pub const FORGETS: usize = 56;
/// Offset of where the bytes of the chunk are that are overwritten in the file, a [`Stated`].
pub const STATED: usize = 60;

/// What a header says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Bytes of records.
    pub length: u32,
    /// ID of the trace.
    pub id: u64,
    /// Counted from 0.
    pub stream: u32,
    /// Of the chunk in its stream, counted from 0.
    pub number: u32,
    /// In ticks, at its beginning.
    pub stamp: u64,
    /// In nanoseconds since the trace began, at its beginning.
    pub time: u64,
    /// TID at its beginning, 0 when none was named yet.
    pub thread: u32,
    /// Nodes that its stream has defined since it last forgot.
    pub nodes: u32,
    /// Events of its stream that could not be written since the chunk before it.
    pub lost: u32,
    /// How often its stream has forgotten.
    pub forgets: u32,
    /// What is overwritten in the file.
    pub stated: Stated,
}

/// Lines that stand in the first chunk of a trace and are overwritten in the file, when there is
/// something to state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stated {
    /// Where they begin in the chunk, its header included.
    pub at: u16,
    /// How long they are; 0: there are none.
    pub length: u16,
}

impl Stated {
    /// As a word: `at` in its lower half.
    pub const fn word(self) -> u32 {
        (self.length as u32) << 16 | self.at as u32
    }

    /// What a word says.
    pub const fn of(word: u32) -> Stated {
        Stated { at: word as u16, length: (word >> 16) as u16 }
    }

    /// The bytes of the chunk that they are.
    pub const fn range(self) -> core::ops::Range<usize> {
        self.at as usize..self.at as usize + self.length as usize
    }
}

impl Header {
    /// Its bytes, without the sum of the chunk.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| {
            for (place, byte) in bytes.iter_mut().skip(at).zip(value) {
                *place = *byte;
            }
        };
        put(0, &MARK);
        put(LENGTH, &self.length.to_le_bytes());
        put(ID, &self.id.to_le_bytes());
        put(STREAM, &self.stream.to_le_bytes());
        put(NUMBER, &self.number.to_le_bytes());
        put(STAMP, &self.stamp.to_le_bytes());
        put(TIME, &self.time.to_le_bytes());
        put(THREAD, &self.thread.to_le_bytes());
        put(NODES, &self.nodes.to_le_bytes());
        put(LOST, &self.lost.to_le_bytes());
        put(FORGETS, &self.forgets.to_le_bytes());
        put(STATED, &self.stated.word().to_le_bytes());
        bytes
    }

    /// The header that `bytes` begin with, if it has the mark and a length that a chunk can have.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.first_chunk::<HEADER>()?;
        let header = Header {
            length: u32_at(bytes, LENGTH),
            id: u64_at(bytes, ID),
            stream: u32_at(bytes, STREAM),
            number: u32_at(bytes, NUMBER),
            stamp: u64_at(bytes, STAMP),
            time: u64_at(bytes, TIME),
            thread: u32_at(bytes, THREAD),
            nodes: u32_at(bytes, NODES),
            lost: u32_at(bytes, LOST),
            forgets: u32_at(bytes, FORGETS),
            stated: Stated::of(u32_at(bytes, STATED)),
        };
        let is_sound = bytes.starts_with(&MARK) && header.length as usize <= MAX_LENGTH;
        is_sound.then_some(header)
    }

    /// Bytes from its beginning to where the next chunk can begin.
    pub const fn size(&self) -> usize {
        (HEADER + self.length as usize).next_multiple_of(ALIGN)
    }
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8; HEADER], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

/// The version of a trace that begins with `front`: of this format, an older or a newer one.
pub fn version_of(front: &[u8]) -> Option<u8> {
    let mark = front.first_chunk::<4>()?;
    // Only versions that there can be: `mtrace` is a word, too.
    (mark.starts_with(b"mtr") && (1..b' ').contains(&mark[3])).then_some(mark[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            length: 32_704,
            id: 0x1f2e_3d4c_5b6a_7988,
            stream: 3,
            number: 70_000,
            stamp: 1 << 60,
            time: 5_000_000_000,
            thread: 4711,
            nodes: 12,
            lost: 56,
            forgets: 2,
            stated: Stated { at: 300, length: 138 },
        };
        assert_eq!(Header::parse(&header.encode()), Some(header));
        assert_eq!(header.size(), CHUNK);
    }

    #[test]
    fn a_length_that_no_chunk_has_is_no_header() {
        let header = Header { length: 32_705, ..Header::default() };
        assert_eq!(Header::parse(&header.encode()), None);
        assert_eq!(Header::parse(&Header::default().encode()[..63]), None);
        assert_eq!(Header::parse(&[0; HEADER]), None);
    }

    #[test]
    fn a_mark_tells_its_version_and_a_word_is_none() {
        assert_eq!(version_of(b"mtr\x02...."), Some(2));
        assert_eq!(version_of(b"mtr\x03"), Some(3));
        assert_eq!(version_of(b"mtrace is a word"), None);
        assert_eq!(version_of(b"mtr"), None);
    }
}
