//! A model of how the last chunks are handed over, run through all interleavings: a thread that stores
//! records in its stream, and the one that ends the process. Both put their stores off as x86 does, in
//! order, each in a buffer of its own; each write may succeed or fail; the process may be killed at any
//! time.

mod steps;

use std::collections::{BTreeSet, HashSet};

use super::{STAYS, WRITTEN};

/// What could be otherwise.
#[derive(Clone, Copy)]
struct Rules {
    /// All threads pass a barrier between `close` and the look at who is busy.
    has_barrier: bool,
    asks_who_is_busy: bool,
    /// `begin` asks for the end behind its store of the limit.
    begin_asks: bool,
    /// Behind a fence.
    has_fences: bool,
    /// `write_out_at_once` claims a chunk that nobody has.
    claims_at_once: bool,
    /// Also a chunk without records is claimed by who goes on in it.
    claims_when_empty: bool,
    /// Who finds his chunk being written goes on in another slot.
    takes_another_slot: bool,
    /// That the tail is gone is decided in one step with whether anything stays.
    decides_in_one_step: bool,
    /// A realloc is written when its outcome is known.
    awaits_outcome: bool,
    /// A stamp between records is stored as they are.
    makes_room_for_stamps: bool,
    /// What is lost is counted before it is taken out of its slot.
    counts_first: bool,
}

const OURS: Rules = Rules {
    has_barrier: true,
    asks_who_is_busy: true,
    begin_asks: true,
    has_fences: true,
    claims_at_once: true,
    claims_when_empty: true,
    takes_another_slot: true,
    decides_in_one_step: true,
    awaits_outcome: true,
    makes_room_for_stamps: true,
    counts_first: true,
};

/// Records of a chunk.
const CAPACITY: u8 = 2;
/// Events, of which this one is a realloc; each has one record.
const EVENTS: u8 = 3;
const REALLOC: u8 = 1;
/// How often the one who ends the process looks for a chunk that is missing.
const PATIENCE: u8 = 2;

/// Records, a bit for each; four bits further whether their outcome is known.
type Records = u8;

const fn whole(event: u8) -> Records {
    0x11 << event
}

/// A store that others may not see yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Store {
    Gate(bool),
    Closed,
    Limit(u8),
    Slot(u8),
    End(u32),
    /// An empty chunk of that number.
    Begin(u8, u8),
    /// The length of what is in a slot.
    Length(u8, Records),
    Outcome(u8, Records),
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Enter,
    AskWhetherClosed,
    /// `open`
    Open,
    /// `begin_record`
    AskLimit,
    /// `make_room`
    MakeRoom,
    WriteFull,
    /// `make_room_after_end`
    Claim,
    WriteItself,
    StoreState,
    /// `begin`
    Begin,
    AskAgain,
    Append,
    /// `end_record`
    AskAtEnd,
    ClaimAtOnce,
    WriteAtOnce,
    StoreStateAtOnce,
    Call,
    Leave,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Closer {
    #[default]
    Close,
    Limit,
    Barrier,
    Slot,
    AskGate,
    Claim,
    Write,
    StoreState,
    StateEnd,
    NoneStayed,
    Remove,
    Finished,
}

/// How far somebody is in `lose`: with the records of which slot.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Losing {
    #[default]
    Nothing,
    Begun(u8, Records),
    Half(u8, Records),
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct State {
    is_busy: bool,
    is_closed: bool,
    limit: u8,
    end: u32,
    /// The stream's slot, from 1 on; 0: none.
    slot: u8,
    /// Number and records of each.
    slots: [(u8, Records); 4],
    file: BTreeSet<(u8, Records)>,
    counted: Records,
    has_kept: bool,
    is_decided: bool,
    is_tail_gone: bool,
    buffers: [Vec<Store>; 2],
    losing: [Losing; 2],
    // The stream's thread.
    step: Step,
    event: u8,
    own_slot: u8,
    number: u8,
    records: Records,
    saw_closed: bool,
    has_claimed: bool,
    is_called: bool,
    state: u32,
    // The one who ends the process.
    closer: Closer,
    looked: u8,
    claimed: u8,
    outcome: u32,
}

const THREAD: usize = 0;
const CLOSER: usize = 1;

impl State {
    /// The oldest store that is put off takes place.
    fn drain_one(&self, of: usize) -> Option<State> {
        let mut next = self.clone();
        if self.buffers[of].is_empty() {
            return None;
        }
        match next.buffers[of].remove(0) {
            Store::Gate(is_busy) => next.is_busy = is_busy,
            Store::Closed => next.is_closed = true,
            Store::Limit(limit) => next.limit = limit,
            Store::Slot(slot) => next.slot = slot,
            Store::End(end) => next.end = end,
            Store::Begin(slot, number) => next.slots[usize::from(slot)] = (number, 0),
            Store::Length(slot, records) => next.slots[usize::from(slot)].1 = records,
            Store::Outcome(slot, records) => {
                let there = &mut next.slots[usize::from(slot)].1;
                *there |= if *there & records > 0 { records } else { 0 };
            }
        }
        Some(next)
    }

    /// Both a locked instruction and a system call come behind all stores before them.
    fn has_stored(&self, of: usize) -> bool {
        self.buffers[of].is_empty()
    }

    /// The limit as the stream's own thread sees it.
    fn own_limit(&self) -> u8 {
        let own = self.buffers[THREAD].iter().rev().find_map(|store| match store {
            Store::Limit(limit) => Some(*limit),
            _ => None,
        });
        own.unwrap_or(self.limit)
    }

    fn claim(&mut self, from: u32, to: u32) -> bool {
        let is_claimed = self.end == from;
        self.end = if is_claimed { to } else { self.end };
        is_claimed
    }

    /// All that can come of `write_out`, and the state after.
    fn write_out(&self, of: usize, slot: u8, may_stay: bool) -> Vec<(State, u32)> {
        let (number, records) = self.slots[usize::from(slot)];
        if records == 0 {
            return vec![(self.clone(), WRITTEN)];
        }
        let [mut written, mut lost] = [self.clone(), self.clone()];
        written.file.insert((number, records));
        lost.losing[of] = Losing::Begun(slot, records);
        let mut outcomes = vec![(written, WRITTEN), (lost, WRITTEN)];
        if may_stay && !self.is_decided {
            outcomes.push((State { has_kept: true, ..self.clone() }, STAYS));
        }
        outcomes
    }

    /// What is wrong if the process ends here.
    fn complaint(&self) -> Option<&'static str> {
        let mut end = self.clone();
        // What was stored is there, however late.
        while let Some(next) = end.drain_one(THREAD).or_else(|| end.drain_one(CLOSER)) {
            end = next;
        }
        let in_tail = end.slots.iter().filter(|_| !end.is_tail_gone);
        let mut chunks: Vec<_> = end.file.iter().chain(in_tail).copied().collect();
        let grows =
            |store: &Store| matches!(store, Store::Length(slot, _) if *slot == self.claimed);
        if self.closer == Closer::Write && self.buffers[THREAD].iter().any(grows) {
            return Some("a chunk changes while it is written");
        }
        // Of a chunk that is there twice readers take the longer one.
        chunks.sort_by_key(|(number, records)| (*number, (records & 0xf).count_ones()));
        let of_one = |pair: &[(u8, Records)]| pair[0].0 == pair[1].0;
        if chunks.windows(2).any(|pair| of_one(pair) && pair[0].1 & !pair[1].1 != 0) {
            return Some("two chunks have one number");
        }
        let readable = chunks.iter().fold(0, |all, (_, records)| all | records);
        let returned = (0..self.event).fold(0, |all, event| all | whole(event));
        let missing = returned & !readable & !(end.counted * 0x11);
        let half_lost = self.losing.iter().fold(0, |all, losing| match losing {
            Losing::Half(_, records) => all | records,
            Losing::Nothing | Losing::Begun(..) => all,
        });
        match missing {
            _ if end.counted & readable & !half_lost != 0 => {
                Some("a record is there, and counted as lost")
            }
            0 => None,
            _ if missing & 0xf == 0 => Some("an outcome is lost"),
            _ => Some("a record is lost"),
        }
    }
}

/// Everything that can go wrong, and the number of states.
fn explore(rules: Rules) -> (HashSet<&'static str>, usize) {
    let begun = State { slot: 1, own_slot: 1, limit: CAPACITY, ..State::default() };
    let (mut seen, mut open) = (HashSet::new(), vec![begun, State::default()]);
    let mut complaints = HashSet::new();
    while let Some(state) = open.pop() {
        if seen.contains(&state) {
            continue;
        }
        complaints.extend(state.complaint());
        open.extend([THREAD, CLOSER].iter().filter_map(|of| state.drain_one(*of)));
        open.extend(state.step_thread(rules));
        open.extend(state.step_closer(rules));
        seen.insert(state);
    }
    (complaints, seen.len())
}

#[test]
fn each_record_is_there_or_counted_in_any_interleaving() {
    let (complaints, states) = explore(OURS);
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(states > 10_000, "{states}");
}

#[test]
fn every_rule_is_needed() {
    let (lost, both) = ("a record is lost", "a record is there, and counted as lost");
    let without = [
        (Rules { has_barrier: false, ..OURS }, lost),
        (Rules { asks_who_is_busy: false, ..OURS }, lost),
        (Rules { has_fences: false, ..OURS }, lost),
        (Rules { begin_asks: false, ..OURS }, lost),
        (Rules { claims_at_once: false, ..OURS }, both),
        (Rules { claims_when_empty: false, ..OURS }, both),
        (Rules { takes_another_slot: false, ..OURS }, lost),
        (Rules { decides_in_one_step: false, ..OURS }, lost),
        (Rules { awaits_outcome: false, ..OURS }, "an outcome is lost"),
        (Rules { makes_room_for_stamps: false, ..OURS }, "a chunk changes while it is written"),
        (Rules { counts_first: false, ..OURS }, lost),
    ];
    for (index, (rules, expected)) in without.into_iter().enumerate() {
        assert!(explore(rules).0.contains(expected), "{index}");
    }
}
