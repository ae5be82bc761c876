//! What tests ask of a compact trace that was read.

use super::{Event, Kind, Stack, Trace, TraceModule};
use std::collections::{BTreeMap, BTreeSet};

impl Trace {
    /// The call stack of an allocation.
    #[track_caller]
    pub(crate) fn stack_of(&self, event: &Event) -> Stack {
        let (mut frames, mut cut, mut is_ended) = (vec![], None, false);
        let mut next = event.info.expect("an allocation").node;
        // A parent stands before its children, so this ends.
        while let Some(node) = next.map(|index| self.nodes[index]) {
            match node.address {
                1 => assert!(cut.replace(frames.len()).is_none(), "{}: cut twice", node.position),
                2 => is_ended = true,
                address => frames.push(address),
            }
            assert!(!is_ended || node.parent.is_none(), "frames behind the end");
            next = node.parent;
        }
        Stack { thread: event.thread, frames, cut, is_ended }
    }

    /// Positions of the definitions of an allocation's nodes, innermost first.
    pub(crate) fn nodes_of(&self, event: &Event) -> Vec<(usize, u64)> {
        let first = event.info.expect("an allocation").node;
        std::iter::successors(first, |index| self.nodes[*index].parent)
            .map(|index| (self.nodes[index].position, self.nodes[index].address))
            .collect()
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

    /// What came and went (`None`), with its place among the records and its range of addresses.
    pub(crate) fn module_changes(
        &self,
    ) -> impl Iterator<Item = (usize, u64, u64, Option<&TraceModule>)> {
        self.modules.iter().map(|(at, start, end, module)| (*at, *start, *end, module.as_ref()))
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
        let mut lost = self.notes("lost");
        lost.retain(|note| note[0].iter().any(|byte| *byte != b'0'));
        assert!(lost.is_empty(), "{name}: {lost:?}");
        assert_eq!(self.lost, 0, "{name}: events lost");
        // Every stack has the shape of one, or this panics.
        for event in self.events.iter().filter(|event| event.info.is_some()) {
            self.stack_of(event);
        }
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
        assert_eq!(self.open, 0, "{name}: reallocs that did not return");
        self
    }

    /// What is out of order, as a program that is traced from its beginning cannot have it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut live = BTreeMap::new();
        let mut open = BTreeSet::new();
        let mut faults = Vec::new();
        for event in &self.events {
            if event.kind == Kind::ReallocOpen {
                // From here on the block may be free.
                open.insert(event.address);
            }
            if event.freed().is_some_and(|address| live.remove(&address).is_none()) {
                faults.push(format!("frees what is not live: {event:?}"));
            }
            if let Some((address, _)) = event.allocated()
                && let Some(earlier) = live.insert(address, event)
                && !open.remove(&address)
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
