//! A fast check of large compact traces: order and counts, one pass, memory for definitions and the
//! live blocks only.

use super::checker::AddressHasher;
use super::tail_of;
use super::trace_chunks::{Chunk, Fields, Record, chunks_of};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::path::Path;

/// What a trace holds.
#[derive(Debug, Default, Clone)]
pub(crate) struct TraceCount {
    pub(crate) allocations: u64,
    /// Reallocs that ended a block are among them.
    pub(crate) frees: u64,
    pub(crate) reallocations: u64,
    pub(crate) failures: u64,
    /// Allocations by the size that was asked for, and frees of those blocks.
    pub(crate) by_size: BTreeMap<u64, (u64, u64)>,
    /// Allocations by thread.
    pub(crate) by_thread: BTreeMap<u64, u64>,
    /// Frames of all allocations together; marks are none.
    pub(crate) frames: u64,
    /// Allocations at an address that was live.
    pub(crate) duplicates: u64,
    /// Frees of an address that was not.
    pub(crate) unknown_frees: u64,
    /// What does not fit into the format, holes and missing chunks.
    pub(crate) damaged: u64,
    /// Nodes.
    pub(crate) definitions: u64,
    /// Events that could not be written, as the chunks say.
    pub(crate) lost: u64,
    /// Length of the file.
    pub(crate) length: u64,
    /// The first few things that are wrong.
    pub(crate) examples: Vec<String>,
}

impl TraceCount {
    /// Fails the test unless the trace is in order.
    #[track_caller]
    pub(crate) fn is_in_order(&self) {
        assert_eq!((self.duplicates, self.unknown_frees, self.damaged), (0, 0, 0), "{self:#?}");
        assert_eq!(self.lost, 0, "{self:#?}");
    }

    /// Allocations and frees of blocks whose size is in `sizes`.
    pub(crate) fn of_sizes(&self, sizes: std::ops::Range<u64>) -> (u64, u64) {
        self.by_size.range(sizes).fold((0, 0), |sum, (_, n)| (sum.0 + n.0, sum.1 + n.1))
    }

    /// Frames of an allocation, on average.
    pub(crate) fn depth(&self) -> f64 {
        self.frames as f64 / self.allocations as f64
    }
}

/// What a stream has defined, and where its reading is.
struct Stream<'a> {
    /// Chunks that have not been begun, the last one first.
    chunks: Vec<&'a Chunk>,
    fields: Fields<'a>,
    stamp: u64,
    thread: u32,
    /// Frames of each node.
    nodes: Vec<u32>,
}

struct Checker<V> {
    count: TraceCount,
    /// Told of every allocation and free: thread, address, size of what begins there.
    visit: V,
    /// Size of every live block.
    live: HashMap<u64, u64, BuildHasherDefault<AddressHasher>>,
    /// Allocations and frees by size, where that is small; `count` has the others.
    small: Vec<(u64, u64)>,
}

/// Reads the trace of a process that ended normally: no tail, no holes.
pub(crate) fn check_trace_order(path: &Path) -> TraceCount {
    visit_trace(path, |_, _, _| {})
}

/// As [`check_trace_order`]; tells `visit` of every allocation and free in their order: thread, address,
/// and the size of what begins there.
pub(crate) fn visit_trace(path: &Path, visit: impl FnMut(u64, u64, Option<u64>)) -> TraceCount {
    assert!(!tail_of(path).exists(), "{}: a tail was left after a normal end", path.display());
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (count, live, small) = Default::default();
    let mut checker = Checker { count, visit, live, small };
    checker.count.length = bytes.len() as u64;
    let mut damaged = Vec::new();
    let mut chunks = chunks_of(&bytes, &mut damaged);
    drop(bytes);
    damaged.iter().for_each(|what| checker.wrong(what));
    chunks.sort_by_key(|chunk| (chunk.stream, chunk.number));
    let mut streams = Vec::new();
    for chunks in chunks.chunk_by(|a, b| a.stream == b.stream) {
        if (0..).zip(chunks).any(|(number, chunk)| chunk.number != number) {
            checker.wrong(&format!("stream {}: a chunk is missing or twice", chunks[0].stream));
        }
        checker.count.lost += chunks.iter().map(|chunk| u64::from(chunk.lost)).sum::<u64>();
        streams.push(Stream {
            stamp: chunks[0].stamp,
            chunks: chunks.iter().rev().collect(),
            fields: Fields::new(&[]),
            thread: 0,
            nodes: vec![0],
        });
    }
    let first = |(index, stream): (usize, &Stream)| (stream.stamp, index);
    let mut order: BTreeSet<(u64, usize)> = streams.iter().enumerate().map(first).collect();
    while let Some((_, index)) = order.pop_first() {
        let limit = order.first().copied().unwrap_or((u64::MAX, usize::MAX));
        if checker.run(&mut streams[index], index, limit) {
            order.insert((streams[index].stamp, index));
        }
    }
    let Checker { mut count, small, .. } = checker;
    count.by_size.extend((0..).zip(small).filter(|(_, (allocated, _))| *allocated > 0));
    count
}

impl<V: FnMut(u64, u64, Option<u64>)> Checker<V> {
    fn wrong(&mut self, what: &str) {
        self.count.damaged += 1;
        self.example(what);
    }

    fn by_size(&mut self, size: u64) -> &mut (u64, u64) {
        const SMALL: u64 = 1 << 16;
        if size >= SMALL {
            return self.count.by_size.entry(size).or_default();
        }
        self.small.resize(SMALL as usize, (0, 0));
        &mut self.small[size as usize]
    }

    fn example(&mut self, what: &str) {
        if self.count.examples.len() < 10 {
            self.count.examples.push(what.to_owned());
        }
    }

    /// Reads a stream until its stamp is behind `limit`; whether there is more.
    fn run(&mut self, stream: &mut Stream, index: usize, limit: (u64, usize)) -> bool {
        loop {
            match stream.fields.record() {
                Some(Some(record)) if record[0] == 6 => stream.stamp += record[1],
                Some(Some(record)) => {
                    self.take_in(&record, stream);
                    continue;
                }
                rest => {
                    if rest.is_some() {
                        self.wrong(&format!("stream {index}: {:?}", stream.fields.position()));
                    }
                    let Some(chunk) = stream.chunks.pop() else { return false };
                    if chunk.stamp < stream.stamp {
                        self.wrong(&format!("stream {index}: its stamp goes back"));
                    }
                    (stream.stamp, stream.thread) = (chunk.stamp, chunk.thread);
                    stream.fields = Fields::new(&chunk.records);
                }
            }
            if (stream.stamp, index) > limit {
                return true;
            }
        }
    }

    fn take_in(&mut self, record: &Record, stream: &mut Stream) {
        match record[..] {
            [0x80, node, address, size, ..] => {
                self.count.allocations += 1;
                (self.visit)(stream.thread.into(), address, Some(size));
                *self.count.by_thread.entry(stream.thread.into()).or_default() += 1;
                let Some(frames) = stream.nodes.get(node as usize).filter(|_| node > 0) else {
                    return self.wrong(&format!("{:x?}: no such node", &record[..]));
                };
                self.count.frames += u64::from(*frames);
                self.by_size(size).0 += 1;
                if self.live.insert(address, size).is_some() {
                    self.count.duplicates += 1;
                    self.example(&format!("{:x?} is live already", &record[..]));
                }
            }
            [0x40, address, _] | [8, 1 | 3, address, _] => {
                self.count.frees += 1;
                (self.visit)(stream.thread.into(), address, None);
                self.count.reallocations += u64::from(record[..2] == [8, 1]);
                match self.live.remove(&address) {
                    Some(size) => self.by_size(size).1 += 1,
                    None => {
                        self.count.unknown_frees += 1;
                        self.example(&format!("{:x?} is not live", &record[..]));
                    }
                }
            }
            [8, 0, ..] => self.wrong("a realloc that did not return"),
            [9, ..] => self.count.failures += 1,
            [2, thread] => stream.thread = thread as u32,
            [3] => stream.nodes.truncate(1),
            [4, up, address] => {
                let parent = (stream.nodes.len() as u64).checked_sub(up);
                let parent = parent.and_then(|parent| stream.nodes.get(parent as usize));
                match parent.copied() {
                    Some(frames) => stream.nodes.push(frames + u32::from(address > 3)),
                    None => self.wrong(&format!("{:x?}: no such node", &record[..])),
                }
                self.count.definitions += 1;
            }
            _ => {}
        }
    }
}
