//! A slow and obvious reader of compact traces, written from docs/trace-format.md alone: the
//! oracle. All records are sorted into the order that the document gives them, then read.

mod queries; // what tests ask of it

use super::log::{number, read_tail, tail_of, unescape};
use super::trace_chunks::{CUT_OFF, Chunk, Fields, WRONG_SUM, chunks_of, slots_of};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What an event says was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Alloc,
    Free,
    /// realloc ends the block.
    ReallocOld,
    /// A realloc of the block that had not returned when the process died.
    ReallocOpen,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    /// Of an allocation, also of a failed one.
    pub(crate) info: Option<Info>,
    pub(crate) address: u64,
    pub(crate) thread: u32,
    /// The stamp before it in its stream.
    pub(crate) stamp: u64,
    /// Place of its record in the order of all records.
    pub(crate) position: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    /// Index of its node; `None` for the root.
    node: Option<usize>,
    pub(crate) size: u64,
    pub(crate) family: u8,
    pub(crate) alignment: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: Option<usize>,
    address: u64,
    position: usize,
}

/// A call stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stack {
    pub(crate) thread: u32,
    /// Return addresses, innermost first; marks are not among them.
    pub(crate) frames: Vec<u64>,
    /// How many of the frames are inside of the place where some were left out.
    pub(crate) cut: Option<usize>,
    /// The walk did not reach the root.
    pub(crate) is_ended: bool,
}

/// A `# module` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceModule {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) path: PathBuf,
    /// Place of its record.
    pub(crate) position: usize,
}

/// What a stream has defined and said so far.
#[derive(Debug, Default)]
struct Stream {
    /// Number of its next chunk.
    number: u32,
    stamp: u64,
    thread: u32,
    /// Indices of its nodes.
    nodes: Vec<usize>,
    forgets: u32,
    /// The line that is being read.
    line: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) path: PathBuf,
    pub(crate) events: Vec<Event>,
    /// Words of each TEXT line, unescaped, without the `#`, and the line's position.
    pub(crate) notes: Vec<(usize, Vec<Vec<u8>>)>,
    pub(crate) marks: Vec<String>,
    /// `None` for `# unload`, with its range.
    modules: Vec<(usize, u64, u64, Option<TraceModule>)>,
    nodes: Vec<Node>,
    /// Reallocs that had not returned.
    pub(crate) open: usize,
    /// Events that could not be written, as the chunks say.
    pub(crate) lost: u64,
    /// Everything that the format does not have.
    pub(crate) damaged: Vec<String>,
    pub(crate) has_tail: bool,
    /// Number of records, definitions and text included.
    pub(crate) records: usize,
    pub(crate) streams: usize,
}

/// Every trace whose name begins with that of `trace`: its own, and those of forked and exec'd
/// processes beside it.
pub(crate) fn traces_beside(trace: &Path) -> Vec<Trace> {
    let stem = trace.file_name().unwrap().as_bytes();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(trace.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().as_bytes();
            name.starts_with(stem) && !name.ends_with(b".tail")
        })
        .collect();
    paths.sort();
    paths.iter().map(|path| Trace::read(path).unwrap()).collect()
}

impl Trace {
    /// Reads `path` and the chunks of its tail, if there is one.
    pub(crate) fn read(path: &Path) -> Result<Trace, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let tail = read_tail(path);
        let mut trace = Trace { path: path.to_owned(), ..Trace::default() };
        trace.has_tail = tail.is_some();
        let mut chunks = chunks_of(&bytes, &mut trace.damaged);
        let mut id = chunks.first().map(|chunk| chunk.id);
        if let Some(tail) = &tail {
            let (id_of_tail, slots) =
                slots_of(tail).map_err(|e| format!("{}: {e}", tail_of(path).display()))?;
            // Killed while it was written out, a chunk is still in its slot.
            let is_there = |what: &String| what.ends_with(CUT_OFF) || what.ends_with(WRONG_SUM);
            trace.damaged.retain(|what| !is_there(what));
            chunks.extend(slots.into_iter().filter(|chunk| chunk.id == id_of_tail));
            id = Some(id_of_tail);
        }
        trace.read_chunks(chunks);
        if id.is_none_or(|id| trace.note("id") != [format!("{id:016x}")]) {
            return Err(format!("{}: the chunks are those of another trace", path.display()));
        }
        if trace.notes.first().is_none_or(|(_, words)| words != &[&b"mtr"[..], b"trace", b"2"]) {
            trace.damaged.push(format!("the first line is {:?}", trace.notes.first()));
        }
        Ok(trace)
    }

    fn read_chunks(&mut self, chunks: Vec<Chunk>) {
        // Of a chunk that is there twice the longer one counts, or that of the tail.
        let mut by_number: BTreeMap<(u32, u32), Chunk> = BTreeMap::new();
        for chunk in chunks {
            let key = (chunk.stream, chunk.number);
            if by_number.get(&key).is_none_or(|known| known.records.len() <= chunk.records.len()) {
                by_number.insert(key, chunk);
            }
        }
        let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
        let mut order = Vec::new();
        for chunk in by_number.values() {
            let stream = streams.entry(chunk.stream).or_default();
            if chunk.number != stream.number {
                self.damage(&format!("chunk {} is missing", stream.number), chunk);
            }
            if chunk.stamp < stream.stamp {
                self.damage(&format!("a stamp behind {}", stream.stamp), chunk);
            }
            stream.number = chunk.number + 1;
            stream.stamp = chunk.stamp;
            order.push((stream.stamp, chunk.stream, chunk, Vec::new()));
            let mut fields = Fields::new(&chunk.records);
            while let Some(record) = fields.record() {
                let Some(record) = record else {
                    self.damage(&format!("no record at byte {}", fields.position()), chunk);
                    break;
                };
                if record[0] == 6 {
                    stream.stamp += record[1];
                    order.push((stream.stamp, chunk.stream, chunk, Vec::new()));
                    continue;
                }
                order.last_mut().unwrap().3.push((record, fields.text()));
            }
        }
        self.streams = streams.len();
        let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
        // Chunks stand in it by stream and number; sorting keeps that.
        order.sort_by_key(|(stamp, stream, ..)| (*stamp, *stream));
        let mut begun = BTreeSet::new();
        for (stamp, number, chunk, records) in order {
            let stream = streams.entry(number).or_default();
            stream.stamp = stamp;
            if begun.insert((chunk.stream, chunk.number)) {
                self.begin(chunk, stream);
            }
            for (record, text) in records {
                self.records += 1;
                if let Err(what) = self.take_in(&record, &text, stream) {
                    self.damage(&format!("{:x?}: {what}", &record[..]), chunk);
                }
            }
        }
        for (number, stream) in streams {
            if !stream.line.is_empty() {
                self.damaged.push(format!("stream {number}: a line without its end"));
            }
        }
    }

    /// A chunk begins; its header says what the records before it have said.
    fn begin(&mut self, chunk: &Chunk, stream: &mut Stream) {
        self.lost += u64::from(chunk.lost);
        let stated = [chunk.thread, chunk.nodes, chunk.forgets];
        let nodes = stream.nodes.len() as u32;
        // The first chunk of a stream is the first to say whose it is.
        let thread = if chunk.number == 0 { chunk.thread } else { stream.thread };
        let found = [thread, nodes, stream.forgets];
        if stated != found {
            let what = "thread, nodes, forgets";
            self.damage(&format!("{what}: {stated:?}, but before it {found:?}"), chunk);
        }
        stream.thread = chunk.thread;
    }

    fn take_in(
        &mut self,
        record: &[u64],
        text: &[u8],
        stream: &mut Stream,
    ) -> Result<(), &'static str> {
        let position = self.records;
        let info = |number: u64, [size, family, alignment]: [u64; 3]| {
            let node = match (number as usize).checked_sub(1) {
                Some(index) => Some(*stream.nodes.get(index).ok_or("an unknown node")?),
                None => None,
            };
            let alignment = (4..=6).contains(&family).then_some(alignment);
            Ok::<_, &'static str>(Some(Info { node, size, family: family as u8, alignment }))
        };
        let (kind, info, address) = match *record {
            [0x80, number, address, ref rest @ ..] => {
                (Kind::Alloc, info(number, rest.try_into().unwrap())?, address)
            }
            [0x40, address, number] => {
                info(number, [0; 3])?;
                (Kind::Free, None, address)
            }
            [8, outcome, address, number] => {
                info(number, [0; 3])?;
                match outcome {
                    0 => (Kind::ReallocOpen, None, address),
                    1 => (Kind::ReallocOld, None, address),
                    2 => return Ok(()),
                    _ => (Kind::Free, None, address),
                }
            }
            [9, number, address, ref rest @ ..] => {
                (Kind::Failed, info(number, rest.try_into().unwrap())?, address)
            }
            [1] => return self.text(text, stream),
            [2, thread] => {
                stream.thread = thread as u32;
                return Ok(());
            }
            [3] => {
                stream.nodes.clear();
                stream.forgets += 1;
                return Ok(());
            }
            [4, up, address] => {
                let parent = (stream.nodes.len() as u64 + 1).checked_sub(up);
                let parent = match parent.filter(|_| up > 0) {
                    Some(0) => None,
                    Some(number) => Some(stream.nodes[number as usize - 1]),
                    None => return Err("an unknown node"),
                };
                stream.nodes.push(self.nodes.len());
                self.nodes.push(Node { parent, address, position });
                return Ok(());
            }
            [7, _] => return Ok(()),
            _ => return Err("an unknown record"),
        };
        self.open += usize::from(kind == Kind::ReallocOpen);
        let (thread, stamp) = (stream.thread, stream.stamp);
        self.events.push(Event { kind, info, address, thread, stamp, position });
        if thread == 0 { Err("nobody said whose stream it is") } else { Ok(()) }
    }

    fn text(&mut self, text: &[u8], stream: &mut Stream) -> Result<(), &'static str> {
        stream.line.extend_from_slice(text);
        while let Some(end) = stream.line.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = stream.line.drain(..=end).collect();
            let line = &line[..end];
            let Some(note) = line.strip_prefix(b"# ") else {
                self.marks.push(String::from_utf8_lossy(line).into_owned());
                if !line.starts_with(b"= ") {
                    return Err("a line that is neither");
                }
                continue;
            };
            let position = self.records;
            let note: Vec<Vec<u8>> = note.split(|b| *b == b' ').map(unescape).collect();
            if matches!(&note[0][..], b"module" | b"unload") {
                let (start, end) = (number(&note[1]).unwrap(), number(&note[2]).unwrap());
                let module = note.get(5).map(|path| TraceModule {
                    start,
                    end,
                    path: std::ffi::OsStr::from_bytes(path).into(),
                    position,
                });
                self.modules.push((position, start, end, module));
            }
            self.notes.push((position, note));
        }
        Ok(())
    }

    fn damage(&mut self, what: &str, chunk: &Chunk) {
        self.damaged.push(format!("stream {}, chunk {}: {what}", chunk.stream, chunk.number));
    }
}

impl Event {
    /// Address and size of the block that this event begins.
    pub(crate) fn allocated(&self) -> Option<(u64, u64)> {
        (self.kind == Kind::Alloc).then_some((self.address, self.info?.size))
    }

    /// Address of the block that this event ends.
    pub(crate) fn freed(&self) -> Option<u64> {
        matches!(self.kind, Kind::Free | Kind::ReallocOld).then_some(self.address)
    }
}
