//! A model of how the last lines are handed over, run through all interleavings: a thread that stores
//! a line, one that drains the line's slot, and the one that closes the ring. The first two put their
//! stores off as x86 does, in order, each in a buffer of its own; the process may end at any time.

use std::collections::HashSet;

/// The first bytes of a line, and its rest.
const FRONT: usize = 0;
const REST: usize = 1;

/// What could be otherwise.
#[derive(Clone, Copy)]
struct Rules {
    front_is_stored_last: bool,
    asks_behind_the_store: bool,
    closes_before_looking: bool,
    has_barrier: bool,
    /// What is done without one when a line is missing.
    keeps_tail: bool,
}

const OURS: Rules = Rules {
    front_is_stored_last: true,
    asks_behind_the_store: true,
    closes_before_looking: true,
    has_barrier: true,
    keeps_tail: true,
};

/// How often the one who closes the ring looks for a line that is missing.
const PATIENCE: u8 = 2;

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct State {
    is_closed: bool,
    is_taken: bool,
    in_slot: [bool; 2],
    in_file: [bool; 2],
    /// Who has the slot in hand.
    is_draining: bool,
    is_claimed: bool,
    /// Stores that are put off: to which part of the slot, and what.
    storer_buffer: Vec<(usize, bool)>,
    drainer_buffer: Vec<(usize, bool)>,
    /// The next step of each.
    storer: u8,
    drainer: u8,
    closer: u8,
    saw_closed: bool,
    looked: u8,
    is_awaited: bool,
    copy: [bool; 2],
    keeps_tail: bool,
}

const RETURNED: u8 = 7;
const FINISHED: u8 = 8;

/// The thread whose line it is: `text::record_at`.
fn step_storer(state: &State, rules: Rules) -> Option<State> {
    let mut next = state.clone();
    let [last, first] = if rules.front_is_stored_last { [FRONT, REST] } else { [REST, FRONT] };
    let order: [u8; 4] = if rules.asks_behind_the_store { [1, 2, 3, 4] } else { [3, 1, 2, 4] };
    next.storer += 1;
    match state.storer {
        0 => next.is_taken = true,
        step @ 1..=4 => match order[usize::from(step) - 1] {
            1 => next.storer_buffer.push((first, true)),
            2 => next.storer_buffer.push((last, true)),
            3 => next.saw_closed = state.is_closed,
            _ if !state.saw_closed => next.storer = RETURNED,
            _ => {}
        },
        // Beside the ring, by two writes.
        5 => next.in_file[REST] = true,
        6 => next.in_file[FRONT] = true,
        _ => return None,
    }
    Some(next)
}

/// `ring::drain`.
fn step_drainer(state: &State) -> Option<State> {
    let mut next = state.clone();
    next.drainer += 1;
    match state.drainer {
        0 if state.is_claimed => return None,
        0 => next.is_draining = true,
        // It was closed already, or the block has a hole.
        1 if state.is_closed || state.in_slot != [true; 2] => {
            next.is_draining = false;
            next.drainer = RETURNED;
        }
        1 => {}
        // One write, in two pages.
        2 => next.in_file[FRONT] = true,
        3 => next.in_file[REST] = true,
        4 => next.drainer_buffer.push((FRONT, false)),
        5 => next.drainer_buffer.push((REST, false)),
        6 => next.is_draining = false,
        _ => return None,
    }
    Some(next)
}

/// `finish`.
fn step_closer(state: &State, rules: Rules) -> Option<State> {
    let mut next = state.clone();
    next.closer += 1;
    match state.closer {
        0 => next.is_closed |= rules.closes_before_looking,
        1 => next.is_awaited = state.is_taken,
        2 => {
            next.is_claimed |= !state.is_draining;
            let is_missing = state.is_awaited && state.in_slot != [true; 2];
            match next.is_claimed && !is_missing {
                true => next.closer = 4,
                false if state.looked < PATIENCE => {
                    (next.looked, next.closer) = (state.looked + 1, 2)
                }
                false => {}
            }
        }
        3 if rules.has_barrier => {
            while drain_one(&mut next, true) || drain_one(&mut next, false) {}
        }
        3 => next.keeps_tail = rules.keeps_tail,
        4 => next.copy[FRONT] = state.in_slot[FRONT],
        5 => next.copy[REST] = state.in_slot[REST],
        6 => next.in_file[FRONT] |= state.copy[FRONT],
        7 => (next.in_file[REST], next.is_closed) = (state.in_file[REST] || state.copy[REST], true),
        _ => return None,
    }
    Some(next)
}

/// The oldest store that is put off takes place.
fn drain_one(state: &mut State, of_storer: bool) -> bool {
    let buffer = if of_storer { &mut state.storer_buffer } else { &mut state.drainer_buffer };
    if buffer.is_empty() {
        return false;
    }
    let (part, value) = buffer.remove(0);
    state.in_slot[part] = value;
    true
}

/// What is wrong if the process ends here.
fn complaint(state: &State) -> Option<&'static str> {
    if state.closer != FINISHED || state.keeps_tail {
        return None; // the tail is there
    }
    match state.in_file {
        [true, true] => None,
        _ if state.storer == RETURNED => Some("the line is lost"),
        [true, false] => Some("the line is torn"),
        _ => None,
    }
}

/// Everything that can go wrong, and the number of states.
fn explore(rules: Rules) -> (HashSet<&'static str>, usize) {
    let (mut seen, mut open) = (HashSet::new(), vec![State::default()]);
    let mut complaints = HashSet::new();
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        complaints.extend(complaint(&state));
        let stored = [true, false].map(|of_storer| {
            let mut next = state.clone();
            drain_one(&mut next, of_storer).then_some(next)
        });
        let steps = [step_storer(&state, rules), step_drainer(&state), step_closer(&state, rules)];
        open.extend(stored.into_iter().chain(steps).flatten());
    }
    (complaints, seen.len())
}

#[test]
fn no_line_is_lost_or_torn_in_any_interleaving() {
    let (complaints, states) = explore(OURS);
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(states > 1000, "{states}");
}

#[test]
fn without_a_barrier_the_tail_is_kept_where_a_line_is_missing() {
    assert!(explore(Rules { has_barrier: false, ..OURS }).0.is_empty());
}

#[test]
fn every_rule_is_needed() {
    let lost = "the line is lost";
    let without = [
        (Rules { has_barrier: false, keeps_tail: false, ..OURS }, lost),
        (Rules { asks_behind_the_store: false, ..OURS }, lost),
        (Rules { closes_before_looking: false, ..OURS }, lost),
        (Rules { front_is_stored_last: false, ..OURS }, "the line is torn"),
    ];
    for (index, (rules, expected)) in without.into_iter().enumerate() {
        assert!(explore(rules).0.contains(expected), "{index}");
    }
}
