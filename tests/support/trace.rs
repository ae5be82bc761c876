//! A slow and obvious decoder of compact traces, written from docs/trace-format.md alone: the
//! oracle.

use super::log::{lay_over, number, tail_of, unescape};
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
    /// A place that came to nothing.
    Nothing,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    /// Of an allocation, also of a failed one.
    pub(crate) info: Option<Info>,
    /// Of a free: the node of its caller, 0 when not recorded.
    pub(crate) node: u32,
    pub(crate) address: u64,
    /// Index of its first word.
    pub(crate) position: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) node: u32,
    pub(crate) size: u64,
    pub(crate) family: u8,
    pub(crate) alignment: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: u32,
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
    pub(crate) is_not_taken: bool,
}

/// A `# module` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceModule {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) path: PathBuf,
    /// Index of the word at which the line begins.
    pub(crate) position: usize,
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
    nodes: BTreeMap<u32, Node>,
    /// Zero words: places taken and not filled.
    pub(crate) holes: usize,
    /// Continuations behind a hole.
    pub(crate) orphans: usize,
    /// Everything that the format does not have.
    pub(crate) damaged: Vec<String>,
    pub(crate) has_tail: bool,
    /// Words, definitions and text included.
    pub(crate) words: usize,
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
    /// Reads `path` and lays its tail over it, if there is one.
    pub(crate) fn read(path: &Path) -> Result<Trace, String> {
        let mut bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let tail = std::fs::read(tail_of(path)).ok();
        let mut id = None;
        if let Some(tail) = &tail {
            let name = tail_of(path);
            id = Some(lay_over(&mut bytes, tail).map_err(|e| format!("{}: {e}", name.display()))?);
        }
        // Zeros at the end of the last word are not in the tail's blocks.
        if id.is_some() {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let mut trace = Trace::from_bytes(&bytes);
        (trace.path, trace.has_tail) = (path.to_owned(), tail.is_some());
        if let Some(id) = id
            && trace.note("id") != [format!("{id:016x}")]
        {
            return Err(format!("{}: the tail is that of another trace", path.display()));
        }
        Ok(trace)
    }

    /// Reads words that have no tail.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Trace {
        let mut trace = Trace::default();
        let (words, rest) = bytes.as_chunks::<8>();
        let mut words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        if rest.iter().any(|byte| *byte != 0) {
            trace.damaged.push(format!("{} bytes behind the last word", rest.len()));
        }
        // Zeros at the end are space that was never taken.
        while words.last() == Some(&0) {
            words.pop();
        }
        trace.words = words.len();
        trace.parse(&words);
        if trace.notes.first().is_none_or(|(_, words)| words != &[&b"mtr"[..], b"trace", b"1"]) {
            trace.damaged.push(format!("the first line is {:?}", trace.notes.first()));
        }
        trace
    }

    fn parse(&mut self, words: &[u64]) {
        let mut infos: BTreeMap<u32, Info> = BTreeMap::new();
        let mut segments: [Option<u64>; 4] = [None; 4];
        let mut at = 0;
        while at < words.len() {
            let (position, first) = (at, words[at]);
            at += 1;
            if first == 0 {
                self.holes += 1;
                continue;
            }
            let (tag, a, b) = (first & 15, (first >> 4) as u32 & 0xfff_ffff, (first >> 32) as u32);
            let long = (a & 15, a >> 4);
            let count = match tag {
                0 => {
                    self.orphans += 1;
                    continue;
                }
                1 => a.div_ceil(7) as usize,
                2 | 5 => 1,
                3 => {
                    1 + usize::from(words.get(at).is_some_and(|w| (4..7).contains(&(w >> 4 & 255))))
                }
                _ => 0,
            };
            // A first word is stored last: its continuations are there.
            let Some(rest) = words.get(at..at + count) else {
                self.damage(position, "the trace ends within a record");
                return;
            };
            at += count;
            if rest.iter().any(|word| word & 15 != 0) {
                self.damage(position, &format!("continuations {rest:x?}"));
                continue;
            }
            if rest.contains(&0) {
                self.damage(position, "a continuation is zero");
                continue;
            }
            let value = |index: usize| rest[index] >> 4;
            let event = |kind, info, node, address| Event { kind, info, node, address, position };
            match tag {
                1 if b == 0 => self.text(position, a as usize, rest),
                2 => {
                    let node = Node { parent: b, address: value(0), position };
                    if a == 0 || (b != 0 && !self.nodes.contains_key(&b)) {
                        self.damage(position, &format!("node {a} of the unknown node {b}"));
                    }
                    if let Some(earlier) = self.nodes.insert(a, node) {
                        self.damage(position, &format!("node {a} again: {earlier:?} and {node:?}"));
                    }
                }
                3 => {
                    let (size, family) = (value(0) >> 8, value(0) as u8);
                    let alignment = (count == 2).then(|| value(1) - 1);
                    let info = Info { node: b, size, family, alignment };
                    if a == 0 || !self.nodes.contains_key(&b) || !(1..=12).contains(&family) {
                        self.damage(position, &format!("info {a}: {info:?}"));
                    }
                    if let Some(earlier) = infos.insert(a, info) {
                        self.damage(position, &format!("info {a} again: {earlier:?} and {info:?}"));
                    }
                }
                4 => match segments.get_mut((a & 3) as usize) {
                    Some(segment @ None) => *segment = Some(u64::from(b) << 36),
                    _ => self.damage(position, &format!("segment {} again", a & 3)),
                },
                5 => {
                    let (kind, zero) = long;
                    let event = match kind {
                        1 => event(Kind::Alloc, infos.get(&b).copied(), 0, value(0) - 1),
                        2 => event(Kind::Free, None, b, value(0) - 1),
                        3 => event(Kind::ReallocOld, None, b, value(0) - 1),
                        4 => event(Kind::Nothing, None, 0, 0),
                        5 => event(Kind::Failed, infos.get(&b).copied(), 0, value(0) - 1),
                        _ => {
                            self.damage(position, &format!("LONG of kind {kind}"));
                            continue;
                        }
                    };
                    if zero != 0 {
                        self.damage(position, "LONG with bits set that are zero");
                    }
                    self.event(event);
                }
                6 | 7 => {}
                8.. => match segments[(tag & 3) as usize] {
                    None => self.damage(position, &format!("segment {} is not known", tag & 3)),
                    Some(segment) => {
                        let address = segment | u64::from(b) << 4;
                        self.event(match tag {
                            8..12 => event(Kind::Alloc, infos.get(&a).copied(), 0, address),
                            _ => event(Kind::Free, None, a, address),
                        });
                    }
                },
                _ => self.damage(position, &format!("{first:#x}")),
            }
        }
    }

    fn event(&mut self, event: Event) {
        let is_allocation = matches!(event.kind, Kind::Alloc | Kind::Failed);
        if is_allocation != event.info.is_some() {
            self.damage(event.position, &format!("an unknown info: {event:?}"));
        }
        if event.node != 0 && !self.nodes.contains_key(&event.node) {
            self.damage(event.position, &format!("an unknown node: {event:?}"));
        }
        self.events.push(event);
    }

    fn text(&mut self, position: usize, length: usize, words: &[u64]) {
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()[1..].to_vec()).collect();
        if words.iter().any(|word| word & 255 != 0) || bytes[length..].iter().any(|b| *b != b'\n') {
            self.damage(position, "a text is filled up otherwise");
        }
        bytes.truncate(length);
        if !bytes.ends_with(b"\n") {
            self.damage(position, "a text without a newline");
        }
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let Some(note) = line.strip_prefix(b"# ") else {
                match line.starts_with(b"= ") {
                    true => self.marks.push(String::from_utf8_lossy(line).into_owned()),
                    false => self.damage(position, &String::from_utf8_lossy(line)),
                }
                continue;
            };
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
    }

    fn damage(&mut self, position: usize, what: &str) {
        self.damaged.push(format!("word {position}: {what}"));
    }

    /// The call stack of a node.
    #[track_caller]
    pub(crate) fn stack(&self, node: u32) -> Stack {
        let (mut frames, mut cut, mut is_ended, mut is_not_taken) = (vec![], None, false, false);
        let mut node = self.nodes[&node];
        while node.parent != 0 {
            match node.address {
                1 => assert!(cut.replace(frames.len()).is_none(), "{}: cut twice", node.position),
                2 => is_ended = true,
                3 => is_not_taken = true,
                address => frames.push(address),
            }
            assert!(!is_ended || self.nodes[&node.parent].parent == 0, "frames behind the end");
            // A parent stands before its children, so this ends.
            let parent = self.nodes[&node.parent];
            assert!(parent.position < node.position, "node at {} before its parent", node.position);
            node = parent;
        }
        assert_eq!(node.address & 0xffff, 0, "the root at {} is no thread", node.position);
        assert!(!is_not_taken || frames.is_empty(), "frames of a stack that was not taken");
        Stack { thread: (node.address >> 16) as u32, frames, cut, is_ended, is_not_taken }
    }

    /// The call stack of an allocation.
    #[track_caller]
    pub(crate) fn stack_of(&self, event: &Event) -> Stack {
        self.stack(event.info.expect("an allocation").node)
    }

    /// Positions of the definitions of an allocation's nodes, innermost first.
    pub(crate) fn nodes_of(&self, event: &Event) -> Vec<(usize, u64)> {
        let mut node = self.nodes[&event.info.expect("an allocation").node];
        let mut all = vec![(node.position, node.address)];
        while node.parent != 0 {
            node = self.nodes[&node.parent];
            all.push((node.position, node.address));
        }
        all
    }

    /// The module that holds `return_address` at `position`.
    pub(crate) fn module_at(&self, return_address: u64, position: usize) -> Option<&TraceModule> {
        let known = self.modules.iter().rev().filter(|(at, ..)| *at < position);
        let address = return_address - 1;
        let mut holding = known.filter(|(_, start, end, _)| (*start..*end).contains(&address));
        holding.next().and_then(|(.., module)| module.as_ref())
    }

    /// The file name of that module.
    pub(crate) fn module_name(&self, return_address: u64, position: usize) -> Option<&str> {
        self.module_at(return_address, position)?.path.file_name()?.to_str()
    }

    pub(crate) fn modules(&self) -> impl Iterator<Item = &TraceModule> {
        self.modules.iter().filter_map(|(.., module)| module.as_ref())
    }

    /// The values of every `# KEY` line.
    pub(crate) fn notes(&self, key: &str) -> Vec<&[Vec<u8>]> {
        let notes = self.notes.iter().filter(|(_, words)| words[0] == key.as_bytes());
        notes.map(|(_, words)| &words[1..]).collect()
    }

    /// The values of the one `# KEY` line as text.
    #[track_caller]
    pub(crate) fn note(&self, key: &str) -> Vec<String> {
        let notes = self.notes(key);
        assert!(notes.len() == 1, "{}: {} `# {key}` lines", self.path.display(), notes.len());
        notes[0].iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.note("pid")[0].parse().expect("# pid")
    }

    /// Fails the test where the trace is not what a correct program must get, wherever it ended.
    #[track_caller]
    pub(crate) fn is_sound(&self) -> &Self {
        let name = self.path.display();
        assert!(self.damaged.is_empty(), "{name}: {:#?}", self.damaged);
        assert!(self.notes("lost").is_empty(), "{name}: {:?}", self.notes("lost"));
        assert!(self.orphans == 0 || self.holes > 0, "{name}: {} orphans", self.orphans);
        // Every stack ends in the root of a thread, or this panics.
        let nodes: BTreeSet<u32> = self.events.iter().filter_map(|e| Some(e.info?.node)).collect();
        nodes.iter().for_each(|node| drop(self.stack(*node)));
        self
    }

    /// [`Trace::is_sound`], and: no block twice, no free of one that is not there.
    #[track_caller]
    pub(crate) fn is_in_order(&self) -> &Self {
        self.is_sound();
        let faults = self.faults();
        assert!(faults.is_empty(), "{}: {} faults: {faults:#?}", self.path.display(), faults.len());
        self
    }

    /// [`Trace::is_in_order`], and nothing is missing: for a process that ended normally.
    #[track_caller]
    pub(crate) fn is_finished(&self) -> &Self {
        self.is_in_order();
        let name = self.path.display();
        assert!(!self.has_tail, "{name}: a tail was left after a normal end");
        assert_eq!((self.holes, self.orphans), (0, 0), "{name}: holes and orphans");
        self
    }

    /// What is out of order, as a program that is traced from its beginning cannot have it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut live = BTreeMap::new();
        let mut faults = Vec::new();
        for event in &self.events {
            if event.freed().is_some_and(|address| live.remove(&address).is_none()) {
                faults.push(format!("frees what is not live: {event:?}"));
            }
            if let Some((address, _)) = event.allocated()
                && let Some(earlier) = live.insert(address, event)
            {
                faults.push(format!("repeats {earlier:?}: {event:?}"));
            }
        }
        faults
    }

    /// Allocations of `size` bytes.
    pub(crate) fn blocks_of(&self, size: u64) -> Vec<&Event> {
        self.events.iter().filter(|e| e.allocated().is_some_and(|(_, n)| n == size)).collect()
    }

    /// How many blocks of `size` bytes were allocated and how many of them were freed.
    pub(crate) fn allocated_and_freed(&self, size: u64) -> (usize, usize) {
        let (mut live, mut allocated, mut freed) = (BTreeMap::new(), 0, 0);
        for event in &self.events {
            if let Some(address) = event.freed()
                && live.remove(&address) == Some(size)
            {
                freed += 1;
            }
            if let Some((address, n)) = event.allocated() {
                allocated += usize::from(n == size);
                live.insert(address, n);
            }
        }
        (allocated, freed)
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
