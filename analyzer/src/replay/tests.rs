use super::*;
use mtr_format::compact::op::{Family, FreeKind};
use proptest::prelude::*;

use mtr_format::compact::decode::Request;

fn record(op: Op, site: SiteId, line: u64) -> Event {
    Event::Record { op, site, thread: 0, line, by: By::Unknown }
}

/// Replays lines of a log without places; the site is the number in front of the colon.
fn replay_in(order: Order, lines: &[&str]) -> Outcome {
    let mut replay = Replay::new(order);
    for (number, text) in lines.iter().enumerate() {
        let (site, text) = text.split_once(':').unwrap();
        let site = site.parse().unwrap();
        let line = number as u64 + 1;
        match mtr_format::text::decode::Line::parse(text.trim().as_bytes()) {
            mtr_format::text::decode::Line::Record { op, .. } => {
                replay.event(record(op, site, line));
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    replay.finish()
}

fn replay(lines: &[&str]) -> Outcome {
    replay_in(Order::Kept, lines)
}

#[test]
fn a_realloc_is_one_allocation_and_one_free_with_its_full_new_size() {
    let outcome = replay(&["0: + 0x10 0x10", "1: < 0x10", "1: > 0x10 0x18", "1: - 0x10"]);
    let Totals { allocs, frees, bytes, live_blocks, .. } = outcome.totals;
    assert_eq!((allocs, frees, bytes, live_blocks), (2, 2, 0x28, 0));
}

#[test]
fn an_allocation_of_nothing_is_a_block() {
    let outcome = replay(&["0: + 0x10 0"]);
    assert_eq!((outcome.totals.live_blocks, outcome.totals.live_bytes), (1, 0));
}

#[test]
fn a_failed_call_is_counted_apart() {
    let outcome = replay(&["0: + 0x10 0x10", "0: + (nil) 0xff", "0: ! 0x10 0x100", "0: - 0x10"]);
    let Totals { allocs, frees, failed, largest_failed, .. } = outcome.totals;
    assert_eq!((allocs, frees, failed, largest_failed), (1, 1, 2, 0x100));
    assert_eq!(outcome.faults, []);
}

#[test]
fn a_realloc_that_failed_gives_its_block_back() {
    let outcome = replay(&["0: + 0x10 0x10", "1: < 0x10", "1: ! 0x10 0x100"]);
    assert_eq!(outcome.totals.live_bytes, 0x10);
    assert_eq!(outcome.sites[0].live_blocks, 1);
    let outcome = replay(&["0: + 0x10 0x10", "1: < 0x10", "1: ! 0x10 0x100", "0: - 0x10"]);
    assert_eq!((outcome.totals.frees, outcome.faults.len()), (1, 0));
}

#[test]
fn a_realloc_that_failed_among_others_gives_the_right_block_back() {
    let outcome = replay(&[
        "0: + 0x10 0x1",
        "0: + 0x20 0x2",
        "1: < 0x10",
        "1: < 0x20",
        "1: > 0x30 0x4",
        "1: ! 0x20 0x8",
    ]);
    assert_eq!(outcome.totals.live_bytes, 0x2 + 0x4);
}

#[test]
fn a_realloc_cut_short_by_a_kill_leaves_its_block_live() {
    let outcome = replay(&["0: + 0x10 0x10", "1: < 0x10"]);
    assert_eq!((outcome.totals.live_blocks, outcome.totals.frees), (1, 0));
}

#[test]
fn a_failed_realloc_to_nothing_was_a_free_before_glibc_2_18() {
    let outcome = replay(&["0: + 0x10 0x10", "1: ! 0x10 0"]);
    assert_eq!((outcome.totals.live_blocks, outcome.totals.failed), (0, 0));
}

#[test]
fn a_double_free_knows_who_allocated_and_who_freed_first() {
    let outcome = replay(&["0: + 0x10 0x10", "1: - 0x10", "2: - 0x10", "2: - 0x10"]);
    let [fault] = outcome.faults[..] else { panic!("{:?}", outcome.faults) };
    assert_eq!(fault.kind, FaultKind::DoubleFree);
    assert_eq!((fault.site, fault.allocated, fault.freed), (2, Some(0), Some(1)));
    assert_eq!((fault.count, fault.line, fault.ptr), (2, 3, 0x10));
    assert_eq!(outcome.totals.unknown_frees, 0);
}

#[test]
fn a_free_of_an_address_never_seen_is_unknown() {
    let outcome = replay(&["1: - 0x10", "1: < 0x20", "1: > 0x30 0x5"]);
    assert_eq!(outcome.faults[0].kind, FaultKind::UnknownFree);
    assert_eq!((outcome.totals.unknown_frees, outcome.totals.frees), (2, 0));
    assert_eq!(outcome.totals.live_bytes, 5);
}

#[test]
fn a_free_of_an_unknown_address_is_a_fault_only_at_the_end() {
    let begins: Vec<String> = (1..=200).map(|i| format!("0: + {:#x} 0x8", i * 16)).collect();
    let lines = |behind: usize| {
        let lines = std::iter::once("1: - 0xffff0").chain(begins.iter().map(String::as_str));
        lines.take(behind + 1).collect::<Vec<_>>()
    };
    assert_eq!(replay(&lines(100)).faults.len(), 1);
    let outcome = replay(&lines(101));
    assert_eq!((outcome.faults.len(), outcome.totals.unknown_frees), (0, 1));
}

#[test]
fn a_free_inside_of_a_block_names_the_block() {
    let outcome = replay(&["0: + 0x1000 0x100", "0: + 0x2000 0x10", "1: - 0x1040", "1: - 0x2010"]);
    let [interior, unknown] = outcome.faults[..] else { panic!("{:?}", outcome.faults) };
    assert_eq!(interior.kind, FaultKind::InteriorFree);
    assert_eq!((interior.site, interior.allocated), (1, Some(0)));
    assert_eq!(interior.inside, Some(Inside { start: 0x1000, size: 0x100 }));
    assert_eq!(unknown.kind, FaultKind::UnknownFree);
    assert_eq!((outcome.totals.live_blocks, outcome.totals.unknown_frees), (2, 1));
}

#[test]
fn the_functions_that_end_the_blocks_of_a_site_are_counted_and_the_first_end_is_kept() {
    let mut replay = Replay::new(Order::Kept);
    let mut line = 0;
    let mut event = |op, by| {
        line += 1;
        replay.event(Event::Record { op, site: 3, thread: 0, line, by });
    };
    for kind in [FreeKind::Delete, FreeKind::Delete, FreeKind::Free, FreeKind::Unknown] {
        event(Op::Alloc { ptr: 0x10, size: 8 }, By::Alloc(Request::MALLOC));
        event(Op::Free { ptr: 0x10 }, By::Free(kind));
    }
    let outcome = replay.finish();
    assert_eq!(outcome.sites[3].ended_by, [1, 2, 0]);
    assert!(outcome.sites[3].families.are_among(&[Family::Malloc]));
    assert!(!outcome.sites[3].families.are_among(&[Family::New]));
    let ends: Vec<_> = outcome.ends.iter().map(|end| (end.kind, end.line, end.size)).collect();
    assert_eq!(ends, [(FreeKind::Delete, 2, 8), (FreeKind::Free, 6, 8)]);
}

#[test]
fn freeing_nothing_is_nothing() {
    assert_eq!(replay(&["1: - (nil)"]), Outcome { last_line: 1, ..Outcome::default() });
}

#[test]
fn an_allocation_of_a_live_address_replaces_it() {
    let outcome = replay(&["0: + 0x10 0x10", "1: + 0x10 0x20"]);
    assert_eq!(outcome.faults[0].kind, FaultKind::DuplicateAlloc);
    assert_eq!((outcome.faults[0].site, outcome.faults[0].allocated), (1, Some(0)));
    assert_eq!((outcome.totals.live_blocks, outcome.totals.live_bytes), (1, 0x20));
    assert_eq!((outcome.totals.frees, outcome.totals.implied_frees), (1, 1));
    assert_eq!(outcome.peak.bytes, 0x20);
}

#[test]
fn a_free_that_glibc_wrote_behind_the_reuse_is_no_fault() {
    let lines = ["0: + 0x10 0x10", "1: + 0x10 0x20", "0: - 0x10", "1: - 0x10"];
    let outcome = replay_in(Order::Loose, &lines);
    assert_eq!(outcome.faults, []);
    let Totals { late_frees, implied_frees, live_blocks, .. } = outcome.totals;
    assert_eq!((late_frees, implied_frees, live_blocks), (1, 0, 0));
    assert_eq!(outcome.totals.frees, 2);
}

#[test]
fn an_announced_free_may_have_happened() {
    let mut replay = Replay::new(Order::Kept);
    let begin = |line| record(Op::Alloc { ptr: 0x10, size: 8 }, 0, line);
    replay.event(begin(1));
    replay.event(Event::Unpublished { ptr: 0x10, call: None });
    replay.event(begin(3));
    replay.event(begin(4));
    assert_eq!(replay.finish().faults[0].count, 1);
}

#[test]
fn a_realloc_that_did_not_return_is_a_fault_only_of_what_is_not_live() {
    let faults = |ptr: u64, inherited: &[u64]| {
        let mut replay = Replay::new(Order::Kept);
        replay.inherit(inherited.iter().copied().collect());
        replay.event(record(Op::Alloc { ptr: 0x1000, size: 0x100 }, 0, 1));
        replay.event(record(Op::Alloc { ptr: 0x2000, size: 8 }, 0, 2));
        replay.event(record(Op::Free { ptr: 0x2000 }, 1, 3));
        let call = Some(OpenCall { is_realloc: true, site: 2, line: 4 });
        replay.event(Event::Unpublished { ptr, call });
        let Outcome { faults, totals, .. } = replay.finish();
        assert_eq!((totals.frees, totals.unknown_frees, totals.live_blocks), (1, 0, 1));
        assert!(faults.iter().all(|fault| (fault.site, fault.line) == (2, 4)));
        assert!(faults.iter().all(|fault| fault.manner == Manner::OpenRealloc));
        faults.iter().map(|f| (f.kind, f.allocated, f.freed)).collect::<Vec<_>>()
    };
    assert_eq!(faults(0x1000, &[]), []);
    assert_eq!(faults(0x2000, &[]), [(FaultKind::DoubleFree, Some(0), Some(1))]);
    assert_eq!(faults(0x1010, &[]), [(FaultKind::InteriorFree, Some(0), None)]);
    assert_eq!(faults(0x3000, &[]), [(FaultKind::UnknownFree, None, None)]);
    assert_eq!(faults(0x3000, &[0x3000]), []);
}

#[test]
fn a_realloc_of_what_was_freed_is_told_from_a_second_free() {
    let outcome = replay(&["0: + 0x10 0x8", "1: - 0x10", "2: < 0x10", "2: > 0x20 0x10"]);
    let [fault] = outcome.faults[..] else { panic!("{:?}", outcome.faults) };
    assert_eq!((fault.kind, fault.manner), (FaultKind::DoubleFree, Manner::Realloc));
}

#[test]
fn the_first_of_two_equal_peaks_is_the_peak() {
    let outcome =
        replay(&["0: + 0x10 0x10", "0: - 0x10", "1: + 0x20 0x8", "1: + 0x30 0x8", "1: - 0x30"]);
    assert_eq!((outcome.peak.bytes, outcome.peak.blocks, outcome.peak.line), (0x10, 1, 1));
    assert_eq!((outcome.sites[0].peak_bytes, outcome.sites[1].peak_bytes), (0x10, 0));
}

/// Any sequence of calls over a few addresses and sites, correct or not.
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let ops = (0..5, 0u64..6, 0u64..6, 0u64..50).prop_map(|(kind, ptr, new, size)| match kind {
        0 | 1 => vec![Op::Alloc { ptr: ptr * 16, size }],
        2 | 3 => vec![Op::Free { ptr: ptr * 16 }],
        _ => vec![Op::ReallocFrom { ptr: ptr * 16 }, Op::ReallocTo { ptr: new * 16, size }],
    });
    proptest::collection::vec((ops, 0u32..4), 0..60).prop_map(|calls| {
        let ops =
            calls.into_iter().flat_map(|(ops, site)| ops.into_iter().map(move |op| (op, site)));
        (1..).zip(ops).map(|(line, (op, site))| record(op, site, line)).collect()
    })
}

/// Live blocks after each event, by brute force.
fn history(events: &[Event]) -> Vec<Vec<(u64, u64, SiteId)>> {
    let mut live: Vec<(u64, u64, SiteId)> = Vec::new();
    let mut all = vec![Vec::new()];
    for event in events {
        let Event::Record { op, site, .. } = *event else { continue };
        match op {
            Op::Alloc { ptr, size } | Op::ReallocTo { ptr, size } if ptr != 0 => {
                live.retain(|block| block.0 != ptr);
                live.push((ptr, size, site));
            }
            Op::Free { ptr } | Op::ReallocFrom { ptr } => live.retain(|block| block.0 != ptr),
            _ => {}
        }
        all.push(live.clone());
    }
    all
}

proptest! {
    #[test]
    fn the_peak_and_every_share_of_it_are_those_of_brute_force(events in any_events()) {
        let mut replay = Replay::new(Order::Kept);
        events.iter().for_each(|event| replay.event(*event));
        let outcome = replay.finish();
        let bytes = |live: &[(u64, u64, SiteId)]| live.iter().map(|block| block.1).sum::<u64>();
        let history = history(&events);
        let most = history.iter().map(|live| bytes(live)).max().unwrap();
        let first = history.iter().position(|live| bytes(live) == most).unwrap();
        prop_assert_eq!(outcome.peak.bytes, most);
        prop_assert_eq!(outcome.peak.line, first as u64);
        prop_assert_eq!(outcome.peak.blocks, history[first].len() as u64);
        for (id, site) in outcome.sites.iter().enumerate() {
            let share: Vec<_> =
                history[first].iter().copied().filter(|block| block.2 == id as SiteId).collect();
            prop_assert_eq!(site.peak_bytes, bytes(&share));
            prop_assert_eq!(site.peak_blocks, share.len() as u64);
        }
        prop_assert_eq!(outcome.totals.allocs - outcome.totals.frees, outcome.totals.live_blocks);
        let live: u64 = outcome.sites.iter().map(|site| site.live_bytes).sum();
        prop_assert_eq!(live, outcome.totals.live_bytes);
    }
}
