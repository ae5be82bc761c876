//! Programs of several threads, recorded as docs/trace-format.md says, against what they did.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What a thread does next, in numbers that mean something only where the program is.
type Step = (usize, u8, usize, u64);

/// A program that is recorded while it runs: one thing at a time, so its true order is known.
#[derive(Debug, Default)]
struct Program {
    trace: Writer,
    /// The processor's clock.
    now: u64,
    /// Last stamp of each stream, and events since.
    streams: HashMap<usize, (u64, u32)>,
    /// Which stream used an address last.
    users: HashMap<u64, usize>,
    live: Vec<u64>,
    infos: HashMap<usize, writer::Info>,
    /// Every event in the true order: stamp before it, stream, operation.
    done: Vec<(u64, usize, Op)>,
}

/// Ticks for which a stamp serves.
const OLD: u64 = 40;

impl Program {
    /// The rules of the writer: a new stamp where an address comes from elsewhere, now and then,
    /// and when the last one is old.
    fn stamp_for(&mut self, stream: usize, ptr: u64) {
        let newest = self.streams.values().map(|(stamp, _)| *stamp).max().unwrap_or(0);
        let first = !self.streams.contains_key(&stream);
        let (stamp, events) = self.streams.entry(stream).or_default();
        let is_mine = self.users.insert(ptr, stream) == Some(stream);
        if first || !is_mine || *events == 32 || self.now - *stamp > OLD || newest > *stamp + OLD {
            (*stamp, *events) = (self.now, 0);
            self.trace.stream(stream).stamp(self.now);
        }
        *events += 1;
    }

    fn step(&mut self, (stream, kind, which, ticks): Step) {
        self.now += ticks;
        let info = match self.infos.get(&stream) {
            Some(info) => *info,
            None => {
                // The chunk of a stream that begins has a stamp already.
                self.stamp_for(stream, 0);
                let node = self.trace.stream(stream).stack(&[0x401000]);
                let info = self.trace.info(node, 24, Family::Malloc);
                *self.infos.entry(stream).or_insert(info)
            }
        };
        if kind == 0 {
            self.trace.stream(stream).end_chunk();
        }
        // Addresses are few, so they are used again and again by all.
        let free = (1..9).map(|n| n * 16).find(|ptr| !self.live.contains(ptr));
        let op = match (kind % 2 == 0 || self.live.is_empty(), free) {
            (true, Some(ptr)) => {
                self.stamp_for(stream, ptr);
                self.live.push(ptr);
                self.trace.stream(stream).alloc(info, ptr);
                Op::Alloc { ptr, size: 24 }
            }
            _ => {
                let ptr = self.live.swap_remove(which % self.live.len());
                self.stamp_for(stream, ptr);
                self.trace.stream(stream).free(ptr);
                Op::Free { ptr }
            }
        };
        self.done.push((self.streams[&stream].0, stream, op));
    }
}

/// All records by stamp, stream and place: what the order is said to be.
fn sorted(program: &Program) -> Vec<Op> {
    let mut all = program.done.clone();
    all.sort_by_key(|(stamp, stream, _)| (*stamp, *stream));
    all.into_iter().map(|(.., op)| op).collect()
}

fn is_sound(ops: &[Op]) -> bool {
    let mut live = Vec::new();
    ops.iter().all(|op| match *op {
        Op::Alloc { ptr, .. } => {
            let is_new = !live.contains(&ptr);
            live.push(ptr);
            is_new
        }
        Op::Free { ptr } => {
            let place = live.iter().position(|live| *live == ptr);
            place.map(|place| live.remove(place)).is_some()
        }
        _ => false,
    })
}

fn any_program() -> impl Strategy<Value = Program> {
    // One tick at least between two events of different threads: they are ordered by their stamps.
    let step = (0..4usize, 0..12u8, 0..8usize, 1..60u64);
    (prop::collection::vec(step, 0..300), 1..200usize).prop_map(|(steps, most)| {
        let mut program = Program::default();
        program.trace.most = most;
        program.trace.stream(0).text(b"# mtr trace 2\n= Start\n");
        program.trace.end_chunk();
        steps.into_iter().for_each(|step| program.step(step));
        program
    })
}

proptest! {
    #[test]
    fn the_merged_order_is_that_of_the_stamps_and_never_frees_too_early(program in any_program()) {
        let (log, events) = read_trace(&program.trace);
        let merged = ops(&events);
        prop_assert_eq!(&merged, &sorted(&program));
        prop_assert!(is_sound(&merged), "{:?}", merged);
        prop_assert_eq!(log.damage, Damage::default());
        prop_assert_eq!(log.records, program.done.len() as u64);
    }

    #[test]
    fn the_chunks_may_stand_in_any_order_and_twice(
        program in any_program(),
        seed in any::<u64>(),
    ) {
        let mut chunks = program.trace.all();
        let expected = read_chunks(&chunks_of(file_of(&chunks)));
        let again = seed as usize % chunks.len();
        chunks.push(chunks[again].clone());
        // The first part of it, as a dying process leaves it.
        let (mut header, mut records) = chunks[again].clone();
        records.truncate(records.len() / 2);
        header.length = records.len() as u32;
        chunks.push((header, records));
        chunks.sort_by_key(|(header, records)| {
            (u64::from(header.number) ^ seed).wrapping_mul(seed | 1) ^ records.len() as u64
        });
        let read = read_chunks(&chunks_of(file_of(&chunks)));
        prop_assert_eq!(read.1, expected.1);
        prop_assert_eq!(read.0.damage, expected.0.damage);
    }

    #[test]
    fn of_a_moment_is_read_what_has_no_later_stamp(program in any_program(), moment in 0..9000u64) {
        let mut chunks = program.trace.chunks();
        chunks.moment = Some(moment);
        let before: Vec<Op> = {
            let mut all = program.done.clone();
            all.retain(|(stamp, ..)| *stamp <= moment);
            all.sort_by_key(|(stamp, stream, _)| (*stamp, *stream));
            all.into_iter().map(|(.., op)| op).collect()
        };
        let (log, events) = read_chunks(&chunks);
        prop_assert!(is_sound(&before));
        prop_assert_eq!(ops(&events), before);
        prop_assert_eq!(log.damage, Damage::default());
    }
}
