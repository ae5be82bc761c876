//! Traces of which something is missing or wrong.

use mtr_format::compact::chunk::{HEADER, Header, Stated};
use proptest::prelude::*;

use super::*;

/// Five chunks of one stream: a definition and an allocation in each of the first four.
fn five_chunks() -> Writer {
    let mut trace = Writer::new();
    for ptr in 1..5u64 {
        trace.time = ptr * 1_000_000_000;
        trace.end_chunk();
        let node = trace.stack(&[0x401000 + ptr]);
        let info = trace.info(node, ptr, Family::Malloc);
        trace.alloc(info, ptr * 16);
    }
    trace.end_chunk();
    for number in 1..5 {
        trace.alloc(node(number), 0xf0 + u64::from(number) * 16);
    }
    trace
}

/// What is allocated with this call stack.
fn node(node: u32) -> writer::Info {
    writer::Info { node, size: 7, family: Family::Malloc }
}

#[test]
fn what_a_missing_chunk_defined_is_not_known_and_no_number_shifts() {
    let mut chunks = five_chunks().all();
    chunks.remove(2);
    let (log, events) = read_chunks(&chunks_of(file_of(&chunks)));
    let stacks: Vec<_> = sites(&events).iter().map(|stack| addresses(&log, *stack)).collect();
    let address = |ptr: u64| vec![0x401000 + ptr];
    assert_eq!(stacks[..3], [address(1), address(3), address(4)]);
    assert_eq!(stacks[3..], [address(1), vec![], address(3), address(4)]);
    assert_eq!(ops(&events)[4], Op::Alloc { ptr: 0x110, size: 7 });
    let expected = Damage {
        missing: 1,
        meaningless: 1,
        missing_since: Some(1_000_000_000),
        ..Damage::default()
    };
    assert_eq!(log.damage, expected);
}

#[test]
fn behind_a_gap_in_which_the_stream_forgot_no_earlier_number_counts() {
    let mut trace = five_chunks();
    trace.end_chunk().forget();
    for ptr in 5..9u64 {
        trace.stack(&[0x402000 + ptr]);
    }
    trace.end_chunk().alloc(node(1), 0x200);
    let (log, events) = read_trace(&trace);
    assert_eq!(addresses(&log, *sites(&events).last().unwrap()), [0x402005]);
    let mut chunks = trace.all();
    chunks.remove(6);
    let (log, events) = read_chunks(&chunks_of(file_of(&chunks)));
    assert_eq!(addresses(&log, *sites(&events).last().unwrap()), [], "one of before is wrong");
    assert_eq!((log.damage.missing, log.damage.meaningless), (1, 1));
}

#[test]
fn events_that_could_not_be_written_are_counted() {
    let mut trace = five_chunks();
    trace.lose(3).free(0x10).lose(4).free(0x20);
    let (log, _) = read_trace(&trace);
    let expected = Damage { lost: 7, lost_since: Some(4_000_000_000), ..Damage::default() };
    assert_eq!(log.damage, expected);
}

#[test]
fn chunks_that_could_not_be_written_are_told_from_those_that_somebody_took() {
    for lost in [0, 2] {
        let mut chunks = five_chunks().all();
        chunks[4].0.lost = lost;
        chunks.drain(2..4);
        let (log, _) = read_chunks(&chunks_of(file_of(&chunks)));
        let Damage { missing, lost_since, missing_since, .. } = log.damage;
        assert_eq!((missing, log.damage.lost), (if lost == 0 { 2 } else { 0 }, lost.into()));
        let since = (lost > 0).then_some(1_000_000_000);
        assert_eq!((lost_since, missing_since), (since, since.xor(Some(1_000_000_000))));
    }
}

#[test]
fn a_hole_or_junk_between_chunks_is_passed_over() {
    let chunks = five_chunks().all();
    let (front, rest) = chunks.split_at(2);
    for (between, strange) in [(vec![0; 6400], 0), (vec![7; 64], 1), (vec![0; 1 << 20], 0)] {
        let mut bytes = file_of(front);
        bytes.resize(bytes.len().next_multiple_of(64), 0);
        bytes.extend(between);
        bytes.extend(file_of(rest));
        let (log, _) = read_chunks(&chunks_of(bytes));
        let Damage { damaged, damaged_bytes, malformed, missing, .. } = log.damage;
        assert_eq!((log.records, malformed, missing), (8, 0, 0));
        assert_eq!((damaged, damaged_bytes), (strange, 64 * strange));
    }
}

#[test]
fn a_chunk_of_another_trace_is_passed_over() {
    let mut chunks = five_chunks().all();
    chunks[2].0.id ^= 1;
    let bytes = file_of(&chunks);
    assert_eq!(id_of(&bytes), Some(writer::ID));
    let (log, _) = read_chunks(&chunks_of(bytes));
    // The gap that it leaves is the same thing.
    assert_eq!((log.records, log.damage.damaged, log.damage.missing), (7, 1, 0));
}

#[test]
fn a_damaged_record_takes_the_rest_of_its_chunk() {
    let mut chunks = five_chunks().all();
    // The allocation of the second; its definitions count.
    let last = chunks[2].1.len() - 4;
    chunks[2].1[last] = 0;
    let (log, events) = read_chunks(&chunks_of(file_of(&chunks)));
    assert_eq!((log.records, log.damage.damaged, log.damage.damaged_bytes), (7, 1, 4));
    let last_but_two = sites(&events)[4];
    assert_eq!(addresses(&log, last_but_two), [0x401002]);
}

#[test]
fn of_a_chunk_that_is_not_as_it_was_written_nothing_counts_but_the_first_lines() {
    let mut trace = five_chunks();
    trace.text(b"# exit\n");
    let chunks = trace.all();
    let bytes = file_of(&chunks);
    let mut at = 0;
    for (index, (_, records)) in chunks.iter().enumerate() {
        let mut damaged = bytes.clone();
        // Another size of its last allocation, or another letter.
        damaged[at + HEADER + records.len() - 1] ^= 1;
        at += (HEADER + records.len()).next_multiple_of(64);
        let (log, _) = read_chunks(&chunks_of(damaged));
        let records = [8, 7, 7, 7, 7, 4][index];
        assert_eq!((log.records, log.damage.damaged), (records, 1), "chunk {index}");
        assert_eq!((log.damage.missing, log.header.pid), (0, Some(4711)), "chunk {index}");
        assert_eq!(log.exited, index < 5);
    }
}

#[test]
fn a_trace_that_is_cut_says_so() {
    let bytes = five_chunks().bytes();
    let (whole, _) = read_chunks(&chunks_of(bytes.clone()));
    for cut in [1, 10, HEADER + 2] {
        let (log, _) = read_chunks(&chunks_of(bytes[..bytes.len() - cut].to_vec()));
        assert!(log.damage.chunk_cut && log.records < whole.records, "{cut}: {:?}", log.damage);
        assert_eq!(log.damage.malformed, 0);
    }
}

fn all_numbers(log: &Log, events: &[Event], length: usize) {
    let records = events.iter().filter(|event| matches!(event, Event::Record { .. })).count();
    assert_eq!(log.records, records as u64);
    // Each takes a byte at least; there is a time for each chunk and stamp, too.
    assert!(events.len() <= 2 * length);
    assert!(log.damage.malformed <= 2 * length as u64);
    assert!(log.sites.stacks.len() <= length + 1);
    for stack in sites(events) {
        assert!((stack as usize) < log.sites.stacks.len());
    }
}

proptest! {
    #[test]
    fn damage_of_any_kind_is_survived(
        most in 1..80usize,
        damage in prop::collection::vec((any::<usize>(), any::<u8>(), 0..200usize), 0..12),
        cut in 0..400usize,
    ) {
        let mut trace = sample();
        trace.most = most;
        for (index, (place, value, length)) in damage.iter().enumerate() {
            trace.stream(index % 3).stamp(1000 + index as u64).free(*value as u64 * 16);
            trace.stream(1).alloc(node(1), *place as u64 & 0xfff0).text(&vec![b'#'; 1 + length]);
        }
        let mut bytes = trace.bytes();
        for (place, value, length) in damage {
            let place = place % bytes.len();
            match length % 3 {
                0 => bytes[place] ^= value,
                1 => bytes[place..].iter_mut().take(length).for_each(|byte| *byte = 0),
                _ => drop(bytes.drain(place..(place + length).min(bytes.len()))),
            }
            if bytes.is_empty() {
                bytes.push(value);
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let length = bytes.len();
        let (log, events) = match try_read_chunks(&chunks_of(bytes)) {
            // A line of text that is damaged can say that it is of another version.
            Err(Error::NewerVersion { .. }) => return Ok(()),
            read => read.unwrap(),
        };
        all_numbers(&log, &events, length);
    }

    #[test]
    fn any_bytes_in_sound_chunks_are_read_without_panic(
        chunks in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..200), 0..3u32, 0..4u32, any::<[u32; 6]>()),
            0..8,
        ),
    ) {
        let chunk = |(records, stream, number, n): (Vec<u8>, u32, u32, [u32; 6])| {
            let header = Header {
                length: records.len() as u32,
                id: writer::ID,
                stream,
                number,
                stamp: (u64::from(n[0]) << 32 | u64::from(n[1])) >> (n[2] % 64),
                time: u64::from(n[2]) << (n[1] % 33),
                thread: n[3],
                nodes: n[4] >> (n[5] % 32),
                lost: n[1],
                forgets: n[0] % 3,
                stated: Stated::of(n[4]),
            };
            (header, records)
        };
        let bytes = file_of(&chunks.into_iter().map(chunk).collect::<Vec<_>>());
        let length = bytes.len();
        let (log, events) = read_chunks(&chunks_of(bytes));
        all_numbers(&log, &events, length);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        id_of(&bytes);
        let (log, events) = read_chunks(&chunks_of(bytes));
        prop_assert_eq!((log.records, events.len()), (0, 0));
    }
}
