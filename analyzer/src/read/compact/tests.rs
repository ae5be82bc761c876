use mtr_format::compact::word::{self, FRAMES_CUT, LongKind, NOT_TAKEN, Tag, WALK_ENDED};
use proptest::prelude::*;

use super::writer::Writer;
use super::*;
use crate::read::{Damage, Link, StackNode};

fn read_bytes(bytes: &[u8], chunk: usize, holes: Holes) -> (Log, Vec<Event>) {
    let mut events = Vec::new();
    let log = read_from(bytes, Path::new("t.mtr"), chunk, holes, |event| events.push(event));
    (log.unwrap(), events)
}

fn read_trace(trace: &Writer) -> (Log, Vec<Event>) {
    read_bytes(&trace.bytes(), 4096, Holes::AreLosses)
}

/// Return addresses of a stack, innermost first.
fn addresses(log: &Log, stack: StackId) -> Vec<u64> {
    let next = |node: &&StackNode| log.sites.stacks.get(node.parent? as usize);
    std::iter::successors(log.sites.stacks.get(stack as usize), next)
        .filter_map(|node| match node.link {
            Link::Call(site) => log.sites.sites[site as usize].address,
            _ => None,
        })
        .collect()
}

/// Two threads, four stacks, a realloc, a failed call, a free without a stack.
fn sample() -> Writer {
    let mut trace = Writer::new();
    let main = trace.stack(4711, &[0x401136, 0x401200]);
    let other = trace.stack(4712, &[0x7f0000001000, 0x401136, 0x401300]);
    let small = trace.info(main, 100, Family::Malloc);
    let aligned = trace.info(other, 64, Family::PosixMemalign);
    let moved = trace.info(main, 300, Family::Realloc);
    trace.alloc(small, 0x4052a0).alloc(aligned, 0x405300);
    trace.words.push(1_000_000 << 4 | Tag::Time as u64);
    trace.long(LongKind::ReallocOld, main, 0x4052a0).long(LongKind::Alloc, moved, 0x5000_0000_0010);
    trace.words.push(8192 << 4 | Tag::Rss as u64);
    trace.long(LongKind::Failed, small, 0).long(LongKind::Nothing, 0, 0).free(0, 0x405300);
    trace.text(b"# exit\n");
    trace
}

#[test]
fn the_header_and_the_events_are_read() {
    let (log, events) = read_trace(&sample());
    assert_eq!(log.header.version, Some(1));
    assert_eq!(log.header.program.as_deref(), Some(Path::new("/home/ann/t x")));
    assert!(log.exited && log.is_compact && log.starts == 1);
    assert_eq!((log.records, &log.damage), (6, &Damage::default()));
    let ops: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Record { op, .. } => Some(*op),
            _ => None,
        })
        .collect();
    assert_eq!(
        ops,
        [
            Op::Alloc { ptr: 0x4052a0, size: 100 },
            Op::Alloc { ptr: 0x405300, size: 64 },
            Op::ReallocFrom { ptr: 0x4052a0 },
            Op::ReallocTo { ptr: 0x5000_0000_0010, size: 300 },
            Op::Alloc { ptr: 0, size: 100 },
            Op::Free { ptr: 0x405300 },
        ]
    );
    assert!(events.contains(&Event::Time { nanoseconds: 1_000_000 }));
    assert!(events.contains(&Event::Resident { bytes: 8192 }));
    let Event::Record { site, .. } = events[1] else { panic!("{:?}", events[1]) };
    assert_eq!(addresses(&log, site), [0x7f0000001000, 0x401136, 0x401300]);
}

#[test]
fn a_call_site_knows_its_module_and_what_is_recorded_there() {
    let mut trace = sample();
    let freeing = trace.stack(4711, &[0x401136]);
    trace.free(freeing, 0x4052a0);
    let (log, _) = read_trace(&trace);
    let site = |address| log.sites.sites.iter().find(|site| site.address == Some(address)).unwrap();
    assert_eq!(site(0x401136).object.as_deref(), Some(&b"./t x"[..]));
    assert!(site(0x401136).kinds.alloc && site(0x401136).kinds.free);
    assert!(!site(0x401200).kinds.alloc);
    assert_eq!(site(0x7f0000001000).module, Some(1));
}

#[test]
fn the_same_stack_under_another_id_is_the_same() {
    let mut trace = Writer::new();
    let ids: Vec<u32> = (0..2).map(|_| trace.stack(1, &[0x401000, 0x402000])).collect();
    let infos: Vec<u32> = ids.iter().map(|id| trace.info(*id, 8, Family::Malloc)).collect();
    trace.alloc(infos[0], 0x10).alloc(infos[1], 0x20);
    let (log, events) = read_trace(&trace);
    let [Event::Record { site: a, .. }, Event::Record { site: b, .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(a, b);
    assert_eq!(log.sites.sites.len(), 2);
}

#[test]
fn the_same_address_in_another_module_is_another_stack() {
    let mut trace = Writer::new();
    let before = trace.stack(1, &[0x401000]);
    trace.text(b"# unload 0x400000 0x405000\n# module 0x400000 0x405000 0x0 bb /b.so b\n");
    let after = trace.stack(1, &[0x401000]);
    let infos = [before, after].map(|node| trace.info(node, 8, Family::Malloc));
    trace.alloc(infos[0], 0x10).alloc(infos[1], 0x20);
    let (log, events) = read_trace(&trace);
    assert_ne!(events[0], events[1]);
    let modules: Vec<_> = log.sites.sites.iter().map(|site| site.module).collect();
    assert_eq!(modules, [Some(0), Some(2)]);
}

#[test]
fn what_is_missing_of_a_stack_is_part_of_it() {
    let mut trace = Writer::new();
    let ended = trace.stack(1, &[0x401000, WALK_ENDED]);
    let cut = trace.stack(1, &[0x401000, FRAMES_CUT, 0x402000]);
    let not_taken = trace.stack(1, &[NOT_TAKEN]);
    for (index, node) in [ended, cut, not_taken].into_iter().enumerate() {
        let info = trace.info(node, 8, Family::Malloc);
        trace.alloc(info, 0x10 * (index as u64 + 1));
    }
    let (log, events) = read_trace(&trace);
    let links: Vec<Vec<Link>> = events
        .iter()
        .map(|event| {
            let Event::Record { site, .. } = event else { panic!("{event:?}") };
            let next = |node: &&StackNode| log.sites.stacks.get(node.parent? as usize);
            let nodes = std::iter::successors(log.sites.stacks.get(*site as usize), next);
            nodes.map(|node| node.link).collect()
        })
        .collect();
    let thread = Link::Thread(1);
    assert_eq!(links[0], [Link::Call(0), Link::Ended, thread]);
    assert_eq!(links[1], [Link::Call(0), Link::Cut, Link::Call(1), thread]);
    assert_eq!(links[2], [Link::NotTaken, thread]);
}

#[test]
fn an_event_whose_definition_is_lost_is_counted_and_a_free_still_frees() {
    let mut trace = Writer::new();
    trace.alloc(99, 0x10).free(98, 0x20);
    let (log, events) = read_trace(&trace);
    assert_eq!(log.damage.malformed, 2);
    let op = Op::Free { ptr: 0x20 };
    assert_eq!(events, [Event::Record { op, site: Stacks::UNKNOWN, line: 1, by: By::Unknown }]);
}

#[test]
fn a_trace_of_a_running_process_ends_at_its_first_hole() {
    let mut trace = sample();
    let whole = read_trace(&trace).1.len();
    trace.words.push(0);
    trace.free(0, 0x99990);
    let read = |holes| read_bytes(&trace.bytes(), 64, holes);
    let (log, events) = read(Holes::AreTheEnd);
    assert_eq!((events.len(), log.damage), (whole, Damage::default()));
    assert_eq!(read(Holes::AreLosses).1.len(), whole + 1);
}

#[test]
fn a_realloc_that_was_going_on_announces_its_block() {
    let mut trace = Writer::new();
    trace.words.extend([0, word::pointer(0x4052a0)]);
    trace.free(0, 0x10);
    let (log, events) = read_trace(&trace);
    assert_eq!(events[0], Event::Unpublished { ptr: 0x4052a0 });
    assert_eq!(log.damage, Damage::default());
}

#[test]
fn a_trace_that_is_cut_says_so() {
    let bytes = sample().bytes();
    let (log, _) = read_bytes(&bytes[..bytes.len() - 3], 64, Holes::AreLosses);
    assert!(log.damage.cut && !log.exited);
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut trace = Writer::default();
    trace.text(b"# mtr trace 2\n");
    let read = read_from(&trace.bytes()[..], Path::new("x.mtr"), 64, Holes::AreLosses, |_| {});
    let error = read.unwrap_err().to_string();
    assert!(error.starts_with("x.mtr:1: expected a log of version 1"), "{error}");
}

proptest! {
    #[test]
    fn any_chunk_size_reads_the_same(
        chunk in 8usize..200,
        holes in prop::collection::vec(0usize..200, 0..4),
        cut in 0usize..40,
    ) {
        let mut trace = sample();
        for hole in holes {
            if let Some(word) = trace.words.get_mut(hole) {
                *word = 0;
            }
        }
        let bytes = trace.bytes();
        let bytes = &bytes[..bytes.len() - cut];
        let (log, events) = read_bytes(bytes, chunk, Holes::AreLosses);
        let (whole, all) = read_bytes(bytes, 1 << 16, Holes::AreLosses);
        prop_assert_eq!(events, all);
        prop_assert_eq!(log.damage, whole.damage);
        prop_assert_eq!(log.sites.stacks, whole.sites.stacks);
    }

    #[test]
    fn any_words_are_read_without_panic(
        words in prop::collection::vec((any::<u64>(), 0..64u32).prop_map(|(w, s)| w >> s), 0..200),
    ) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        read_bytes(&bytes, 64, Holes::AreLosses);
        read_bytes(&bytes, 64, Holes::AreTheEnd);
    }
}
