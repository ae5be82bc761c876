//! A trace written by hand, for tests: slow and obvious.

use mtr_format::compact::chunk::{ALIGN, HEADER, Header, Stated};
use mtr_format::compact::op::{self, Family, FreeKind, Outcome};
use mtr_format::compact::sum;

/// ID of every trace that is written here.
pub(crate) const ID: u64 = 0x1f2e_3d4c_5b6a_7988;

/// A stream, and the chunk of it that is being written.
#[derive(Debug, Clone, Default)]
struct Stream {
    /// Of the chunk.
    header: Header,
    records: Vec<u8>,
    /// Whether the chunk has begun.
    is_open: bool,
    event: u64,
    node: u64,
    // What the next header says.
    stamp: u64,
    thread: u32,
    nodes: u32,
    forgets: u32,
    lost: u32,
}

/// What allocations have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Info {
    pub(crate) node: u32,
    pub(crate) size: u64,
    pub(crate) family: Family,
}

/// The chunks of a trace. What is written goes to the stream that was chosen last.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    streams: Vec<Stream>,
    stream: usize,
    /// Chunks that are full.
    pub(crate) chunks: Vec<(Header, Vec<u8>)>,
    /// Bytes of records at which a chunk is full.
    pub(crate) most: usize,
    /// What the next headers say.
    pub(crate) time: u64,
}

impl Default for Writer {
    fn default() -> Writer {
        let streams = vec![Stream::default()];
        Writer { streams, stream: 0, chunks: vec![], most: 1 << 14, time: 0 }
    }
}

impl Writer {
    /// With a header, for a program at 0x400000 and a C library at 0x7f0000000000.
    pub(crate) fn new() -> Writer {
        let mut trace = Writer::default();
        trace.text(
            b"# mtr trace 2\n# id 1f2e3d4c5b6a7988\n# pid 4711\n\
              # started 1790000000.123456789 88231\n\
              # program /home/ann/t\\040x\n# addresses absolute\n# start process\n\
              # module 0x400000 0x405000 0x0 9d1c /home/ann/t\\040x ./t\\040x\n\
              # module 0x7f0000000000 0x7f0000200000 0x7f0000000000 aa /lib/libc.so.6 \
              /lib/libc.so.6\n= Start\n",
        );
        trace
    }

    /// What follows goes to stream `number`.
    pub(crate) fn stream(&mut self, number: usize) -> &mut Writer {
        if self.streams.len() <= number {
            self.streams.resize_with(number + 1, Stream::default);
        }
        self.stream = number;
        self
    }

    fn current(&mut self) -> &mut Stream {
        &mut self.streams[self.stream]
    }

    /// A record is written by `write`, whole, into the chunk that has room for it.
    fn record(&mut self, write: impl FnOnce(&mut Stream)) -> &mut Writer {
        let (time, most, number) = (self.time, self.most, self.stream as u32);
        if self.current().records.len() >= most {
            self.end_chunk();
        }
        let stream = self.current();
        if !stream.is_open {
            stream.header = Header {
                length: 0,
                id: ID,
                stream: number,
                number: stream.header.number,
                stamp: stream.stamp,
                time,
                thread: stream.thread,
                nodes: stream.nodes,
                lost: std::mem::take(&mut stream.lost),
                forgets: stream.forgets,
                stated: Stated::default(),
            };
            (stream.is_open, stream.event, stream.node) = (true, 0, 0);
        }
        write(stream);
        self
    }

    /// The next record of this stream is in another chunk.
    pub(crate) fn end_chunk(&mut self) -> &mut Writer {
        let stream = self.current();
        if stream.is_open {
            let records = std::mem::take(&mut stream.records);
            let header = Header { length: records.len() as u32, ..stream.header };
            stream.header.number += 1;
            stream.is_open = false;
            self.chunks.push((header, records));
        }
        self
    }

    /// This stream loses so many events.
    pub(crate) fn lose(&mut self, events: u32) -> &mut Writer {
        self.end_chunk().current().lost += events;
        self
    }

    pub(crate) fn text(&mut self, text: &[u8]) -> &mut Writer {
        for piece in text.chunks(op::MAX_TEXT) {
            self.record(|stream| {
                stream.records.extend([op::TEXT, piece.len() as u8]);
                stream.records.extend(piece);
            });
        }
        self
    }

    pub(crate) fn thread(&mut self, thread: u32) -> &mut Writer {
        self.record(|stream| {
            stream.records.push(op::THREAD);
            varint(&mut stream.records, thread.into());
            stream.thread = thread;
        })
    }

    pub(crate) fn forget(&mut self) -> &mut Writer {
        self.record(|stream| {
            stream.records.push(op::FORGET);
            stream.nodes = 0;
            stream.forgets += 1;
        })
    }

    pub(crate) fn node(&mut self, parent: u32, address: u64) -> u32 {
        self.record(|stream| {
            stream.nodes += 1;
            stream.records.push(op::NODE);
            varint(&mut stream.records, (stream.nodes - parent).into());
            varint(&mut stream.records, zigzag(address.wrapping_sub(stream.node) as i64));
            stream.node = address;
        });
        self.current().nodes
    }

    /// The stack with these return addresses, innermost first.
    pub(crate) fn stack(&mut self, addresses: &[u64]) -> u32 {
        addresses.iter().rev().fold(0, |parent, address| self.node(parent, *address))
    }

    /// What allocations have in common. Families with an alignment get 64.
    pub(crate) fn info(&mut self, node: u32, size: u64, family: Family) -> Info {
        Info { node, size, family }
    }

    pub(crate) fn alloc(&mut self, info: Info, ptr: u64) -> &mut Writer {
        let Info { node, size, family } = info;
        self.record(|stream| {
            stream.family(family);
            let (length, address) = stream.address(ptr);
            let bytes = (1..4).find(|n| node >> (8 * n) == 0).unwrap_or(4);
            let code = (0..3).find(|s| size >> (8 << s) == 0).unwrap_or(3);
            stream.records.push(op::ALLOC + (code << 5) + (length << 2) + (bytes - 1));
            stream.records.extend_from_slice(&node.to_le_bytes()[..usize::from(bytes)]);
            stream.records.extend(address);
            stream.records.extend_from_slice(&size.to_le_bytes()[..1 << code]);
        })
    }

    pub(crate) fn free(&mut self, ptr: u64) -> &mut Writer {
        self.free_by(ptr, FreeKind::Free)
    }

    /// A caller is not stated.
    pub(crate) fn free_by(&mut self, ptr: u64, kind: FreeKind) -> &mut Writer {
        self.record(|stream| {
            let (length, address) = stream.address(ptr);
            stream.records.push(op::FREE + ((kind as u8) << 3) + length);
            stream.records.extend(address);
            stream.records.push(0);
        })
    }

    /// A caller is not stated.
    pub(crate) fn realloc(&mut self, outcome: Outcome, ptr: u64) -> &mut Writer {
        self.realloc_at(outcome, ptr, 0)
    }

    pub(crate) fn realloc_at(&mut self, outcome: Outcome, ptr: u64, node: u32) -> &mut Writer {
        self.record(|stream| {
            let (length, address) = stream.address(ptr);
            stream.records.extend([op::REALLOC, outcome as u8, length]);
            stream.records.extend(address);
            varint(&mut stream.records, node.into());
        })
    }

    pub(crate) fn failed(&mut self, info: Info, ptr: u64) -> &mut Writer {
        self.record(|stream| {
            stream.family(info.family);
            stream.records.push(op::FAILED);
            varint(&mut stream.records, info.node.into());
            varint(&mut stream.records, info.size);
            varint(&mut stream.records, ptr);
        })
    }

    pub(crate) fn resident(&mut self, bytes: u64) -> &mut Writer {
        self.record(|stream| {
            stream.records.push(op::RESIDENT);
            varint(&mut stream.records, bytes);
        })
    }

    /// What follows happened at this stamp, or later.
    pub(crate) fn stamp(&mut self, stamp: u64) -> &mut Writer {
        let stream = self.current();
        if stream.header == Header::default() && !stream.is_open {
            // The first chunk of a stream begins with its first stamp.
            stream.stamp = stamp;
            return self;
        }
        self.record(|stream| {
            stream.records.push(op::STAMP);
            varint(&mut stream.records, stamp - stream.stamp);
            stream.stamp = stamp;
        })
    }

    /// All chunks, those that are not full included.
    pub(crate) fn all(&self) -> Vec<(Header, Vec<u8>)> {
        let mut trace = self.clone();
        for stream in 0..trace.streams.len() {
            trace.stream(stream).end_chunk();
        }
        trace.chunks
    }

    /// The trace as a file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        file_of(&self.all())
    }

    /// Its chunks as they are found in that file.
    pub(crate) fn chunks(&self) -> super::Chunks {
        chunks_of(self.bytes())
    }
}

/// These chunks, one behind the other.
pub(crate) fn file_of(chunks: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, records) in chunks {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        let begin = bytes.len();
        bytes.extend(header.encode());
        bytes.extend(records);
        sum::seal(&mut bytes[begin..]);
        assert_eq!(header.length as usize, records.len(), "a chunk of {HEADER} bytes and these");
    }
    bytes
}

/// The chunks that are found in a file.
pub(crate) fn chunks_of(bytes: Vec<u8>) -> super::Chunks {
    super::Chunks::find(super::Bytes::Memory(bytes), ID, Default::default()).unwrap()
}

impl Stream {
    /// The family of the allocation that follows.
    fn family(&mut self, family: Family) {
        if family != Family::Malloc {
            self.records.push(op::FAMILY + family as u8);
        }
        if family.has_alignment() {
            varint(&mut self.records, 64);
        }
    }

    /// Length and bytes of an address.
    fn address(&mut self, ptr: u64) -> (u8, Vec<u8>) {
        let difference = zigzag((ptr >> 4).wrapping_sub(self.event >> 4) as i64);
        self.event = ptr & !15;
        let length = (0..=6).find(|a| difference >> (8 * a) == 0);
        match length.filter(|_| ptr.is_multiple_of(16)) {
            Some(a) => (a, difference.to_le_bytes()[..usize::from(a)].to_vec()),
            None => (7, ptr.to_le_bytes().to_vec()),
        }
    }
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
