use std::path::Path;

use mtr_format::compact::decode::Request;
use mtr_format::compact::op::{FRAMES_CUT, Family, FreeKind, Outcome, WALK_ENDED};
use mtr_format::text::decode::Op;

use super::writer::{Writer, chunks_of, file_of};
use super::*;
use crate::read::{By, Damage, Link, OpenCall, StackId, StackNode};

mod damage; // traces of which something is missing or wrong
mod order; // the streams of several threads in one order

fn read_chunks(chunks: &Chunks) -> (Log, Vec<Event>) {
    try_read_chunks(chunks).unwrap()
}

fn try_read_chunks(chunks: &Chunks) -> Result<(Log, Vec<Event>), Error> {
    let mut events = Vec::new();
    let log = read_from(chunks, Path::new("t.mtr"), |event| events.push(event))?;
    Ok((log, events))
}

fn read_trace(trace: &Writer) -> (Log, Vec<Event>) {
    read_chunks(&trace.chunks())
}

fn ops(events: &[Event]) -> Vec<Op> {
    let op = |event: &Event| match event {
        Event::Record { op, .. } => Some(*op),
        _ => None,
    };
    events.iter().filter_map(op).collect()
}

/// The stacks of the allocations and frees.
fn sites(events: &[Event]) -> Vec<StackId> {
    let site = |event: &Event| match event {
        Event::Record { site, .. } => Some(*site),
        _ => None,
    };
    events.iter().filter_map(site).collect()
}

/// The links of a stack, innermost first.
fn links(log: &Log, stack: StackId) -> Vec<Link> {
    let next = |node: &&StackNode| log.sites.stacks.get(node.parent? as usize);
    let nodes = std::iter::successors(log.sites.stacks.get(stack as usize), next);
    nodes.map(|node| node.link).collect()
}

/// Return addresses of a stack, innermost first.
fn addresses(log: &Log, stack: StackId) -> Vec<u64> {
    let address = |link| match link {
        Link::Call(site) => log.sites.sites[site as usize].address,
        _ => None,
    };
    links(log, stack).into_iter().filter_map(address).collect()
}

/// Two threads, four stacks, reallocs, a failed call, a size of the process.
fn sample() -> Writer {
    let mut trace = Writer::new();
    trace.thread(4711);
    let main = trace.stack(&[0x401136, 0x401200]);
    let small = trace.info(main, 100, Family::Malloc);
    let moved = trace.info(main, 300, Family::Realloc);
    trace.alloc(small, 0x4052a0).stamp(20).realloc(Outcome::Ended, 0x4052a0);
    trace.alloc(moved, 0x5000_0000_0010).resident(8192).failed(small, 0);
    trace.realloc(Outcome::Unchanged, 0x5000_0000_0010).failed(moved, 0x5000_0000_0010);
    trace.stream(1).stamp(10).thread(4712);
    let other = trace.stack(&[0x7f0000001000, 0x401136, 0x401300]);
    let aligned = trace.info(other, 64, Family::PosixMemalign);
    trace.alloc(aligned, 0x405300).stamp(30).free(0x405300);
    trace.stream(0).stamp(40).realloc(Outcome::Freed, 0x5000_0000_0010).text(b"# exit\n");
    trace
}

#[test]
fn the_header_and_the_events_are_read() {
    let (log, events) = read_trace(&sample());
    assert_eq!(log.header.version, Some(2));
    assert_eq!(log.header.program.as_deref(), Some(Path::new("/home/ann/t x")));
    assert!(log.exited && log.is_compact && log.starts == 1);
    assert_eq!((log.records, log.streams, &log.damage), (8, 2, &Damage::default()));
    assert_eq!(
        ops(&events),
        [
            Op::Alloc { ptr: 0x4052a0, size: 100 },
            Op::Alloc { ptr: 0x405300, size: 64 },
            Op::ReallocFrom { ptr: 0x4052a0 },
            Op::ReallocTo { ptr: 0x5000_0000_0010, size: 300 },
            Op::Alloc { ptr: 0, size: 100 },
            Op::ReallocFailed { ptr: 0x5000_0000_0010, size: 300 },
            Op::Free { ptr: 0x405300 },
            Op::Free { ptr: 0x5000_0000_0010 },
        ]
    );
    assert!(events.contains(&Event::Resident { bytes: 8192 }));
    assert_eq!(addresses(&log, sites(&events)[1]), [0x7f0000001000, 0x401136, 0x401300]);
    assert_eq!(sites(&events)[6], Stacks::UNKNOWN);
}

#[test]
fn an_event_has_its_thread_and_how_the_block_was_asked_for() {
    let (_, events) = read_trace(&sample());
    let what = |event: &Event| match event {
        Event::Record { thread, by, line, .. } => Some((*thread, *by, *line)),
        _ => None,
    };
    let records: Vec<_> = events.iter().filter_map(what).collect();
    let by = |family, alignment| By::Alloc(Request { family, alignment });
    assert_eq!(records[0], (4711, by(Family::Malloc, 0), 1));
    assert_eq!(records[1], (4712, by(Family::PosixMemalign, 64), 2));
    assert_eq!(records[3], (4711, by(Family::Realloc, 0), 4));
    assert_eq!(records[6], (4712, By::Free(FreeKind::Free), 7));
}

#[test]
fn a_stream_belongs_to_the_thread_that_its_header_names() {
    let mut trace = Writer::new();
    trace.thread(7).free(0x10).end_chunk().free(0x20).thread(8).free(0x30);
    // Without the chunk that named it.
    let chunks = trace.all()[1..].to_vec();
    let (_, events) = read_chunks(&chunks_of(file_of(&chunks)));
    let thread = |event: &Event| match event {
        Event::Record { thread, .. } => Some(*thread),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(thread).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn a_call_site_knows_its_module_and_what_is_recorded_there() {
    let (log, _) = read_trace(&sample());
    let site = |address| log.sites.sites.iter().find(|site| site.address == Some(address)).unwrap();
    assert_eq!(site(0x401136).object.as_deref(), Some(&b"./t x"[..]));
    assert!(site(0x401136).kinds.alloc && site(0x401136).kinds.realloc);
    assert!(!site(0x401200).kinds.alloc);
    assert_eq!(site(0x7f0000001000).module, Some(1));
}

#[test]
fn the_same_stack_in_another_thread_is_the_same() {
    let mut trace = Writer::new();
    for stream in 0..2 {
        trace.stream(stream).thread(stream as u32 + 1);
        if stream == 1 {
            trace.stack(&[0x403000]);
        }
        let node = trace.stack(&[0x401000, 0x402000]);
        let info = trace.info(node, 8, Family::Malloc);
        trace.alloc(info, 0x10 << stream);
    }
    let (log, events) = read_trace(&trace);
    let [a, b] = sites(&events)[..] else { panic!("{events:?}") };
    assert_eq!((a, addresses(&log, a)), (b, vec![0x401000, 0x402000]));
    assert_eq!(log.sites.sites.len(), 3);
}

#[test]
fn the_same_address_in_another_module_is_another_stack() {
    let mut trace = Writer::new();
    let before = trace.stack(&[0x401000]);
    let info = trace.info(before, 8, Family::Malloc);
    trace.alloc(info, 0x10).forget();
    trace.text(b"# unload 0x400000 0x405000\n# module 0x400000 0x405000 0x0 bb /b.so b\n");
    let after = trace.stack(&[0x401000]);
    let info = trace.info(after, 8, Family::Malloc);
    trace.alloc(info, 0x20);
    let (log, events) = read_trace(&trace);
    let stacks = sites(&events);
    assert_ne!(stacks[0], stacks[1]);
    let modules: Vec<_> = log.sites.sites.iter().map(|site| site.module).collect();
    assert_eq!(modules, [Some(0), Some(2)]);
}

#[test]
fn a_module_that_another_thread_states_a_little_later_holds_the_call() {
    let mut trace = Writer::new();
    trace.stamp(10).stream(1).stamp(5);
    let node = trace.stack(&[0x901000]);
    let info = trace.info(node, 8, Family::Malloc);
    trace.alloc(info, 0x10).stream(0).text(b"# module 0x900000 0x905000 0x0 bb /b.so b\n");
    trace.stream(1).stamp(20);
    let node = trace.stack(&[0x901000]);
    let info = trace.info(node, 8, Family::Malloc);
    trace.alloc(info, 0x20);
    let (log, events) = read_trace(&trace);
    let [a, b] = sites(&events)[..] else { panic!("{events:?}") };
    assert_eq!(a, b);
    assert_eq!(log.sites.sites[0].module, Some(2));
    assert_eq!(log.sites.sites[0].object.as_deref(), Some(&b"b"[..]));
}

#[test]
fn what_is_missing_of_a_stack_is_part_of_it() {
    let mut trace = Writer::new();
    let ended = trace.stack(&[0x401000, WALK_ENDED]);
    let cut = trace.stack(&[0x401000, FRAMES_CUT, 0x402000]);
    for (node, ptr) in [(ended, 0x10), (cut, 0x20), (0, 0x30)] {
        let info = trace.info(node, 8, Family::Malloc);
        trace.alloc(info, ptr);
    }
    let (log, events) = read_trace(&trace);
    let stacks: Vec<_> = sites(&events).iter().map(|stack| links(&log, *stack)).collect();
    assert_eq!(stacks[0], [Link::Call(0), Link::Ended]);
    assert_eq!(stacks[1], [Link::Call(0), Link::Cut, Link::Call(1)]);
    assert_eq!(stacks[2], [Link::Unknown]);
    assert_eq!(log.damage, Damage::default());
}

#[test]
fn a_realloc_that_was_going_on_announces_its_block() {
    let mut trace = Writer::new();
    let node = trace.stack(&[0x401136, 0x401200]);
    trace.realloc(Outcome::Open, 0x4052a0).free(0x10).realloc_at(Outcome::Open, 0x20, node);
    let (log, events) = read_trace(&trace);
    let open = |event: &Event| match *event {
        Event::Unpublished { ptr, call: Some(OpenCall { is_realloc: true, site, line }) } => {
            Some((ptr, line, addresses(&log, site)))
        }
        _ => None,
    };
    let open: Vec<_> = events.iter().filter_map(open).collect();
    assert_eq!(open, [(0x4052a0, 1, vec![]), (0x20, 2, vec![0x401136, 0x401200])]);
    assert_eq!((log.records, log.damage), (1, Damage::default()));
}

#[test]
fn a_realloc_that_states_its_call_stack_ends_its_block_there() {
    let mut trace = Writer::new();
    let node = trace.stack(&[0x401136, 0x401200]);
    let moved = trace.info(node, 300, Family::Realloc);
    trace.realloc_at(Outcome::Ended, 0x10, node).alloc(moved, 0x20);
    trace.realloc_at(Outcome::Unchanged, 0x20, node).failed(moved, 0x20);
    trace.realloc_at(Outcome::Freed, 0x20, node);
    let (log, events) = read_trace(&trace);
    let ended = Op::ReallocFrom { ptr: 0x10 };
    let failed = Op::ReallocFailed { ptr: 0x20, size: 300 };
    let begun = Op::ReallocTo { ptr: 0x20, size: 300 };
    assert_eq!(ops(&events), [ended, begun, failed, Op::Free { ptr: 0x20 }]);
    let stacks = sites(&events);
    assert!(stacks.iter().all(|stack| addresses(&log, *stack) == [0x401136, 0x401200]));
    assert_eq!(log.damage, Damage::default());
}

#[test]
fn a_line_may_be_spread_over_texts_and_chunks() {
    let mut trace = Writer::new();
    trace.text(b"# directory /ho").free(0x10).end_chunk();
    trace.stream(1).text(b"# exit\n").stream(0).text(b"me\n");
    let (log, _) = read_trace(&trace);
    assert_eq!(log.header.directory.as_deref(), Some(Path::new("/home")));
    assert!(log.exited);
}

#[test]
fn the_time_goes_on_between_the_headers() {
    let mut trace = Writer::new();
    trace.free(0x10).stamp(9_000_000).free(0x20).stamp(30_000_000);
    trace.time = 10_000_000;
    trace.end_chunk().free(0x30);
    let (_, events) = read_trace(&trace);
    let times: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Time { nanoseconds } => Some(*nanoseconds),
            _ => None,
        })
        .collect();
    assert_eq!(times, [0, 3_000_000, 10_000_000]);
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut trace = Writer::default();
    trace.text(b"# mtr trace 3\n");
    let read = read_from(&trace.chunks(), Path::new("x.mtr"), |_| {});
    let error = read.unwrap_err().to_string();
    assert!(error.starts_with("x.mtr: expected a compact trace of version 2"), "{error}");
}
