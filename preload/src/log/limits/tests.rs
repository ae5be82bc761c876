//! A model of how a log ends among threads that write to it, run through all interleavings: three writers
//! of blocks, or of pieces of one, that follow each other, of which one or two meet a limit or a full disk. The
//! process may be killed at any time: a block is in the tail until its writer has counted what is lost of it.
//! (A kill between the two can make a reader count a line that it finds as well.)

mod cases;
mod complaints;

use std::collections::HashSet;

const WRITERS: usize = 3;
/// A write or a cut is of whole units. Most of a log.
const UNITS: usize = 6;
const NONE: u8 = u8::MAX;

/// What could be otherwise.
#[derive(Clone, Copy)]
struct Rules {
    announces_before_asking_again: bool,
    asks_again: bool,
    looks_again_at_highest: bool,
    /// Who raises the end again does not go beyond where it was before.
    keeps_to_earlier_end: bool,
    /// Who takes a part of a line back looks whether somebody writes behind it.
    trims_only_at_highest: bool,
    /// The log does not end before its first lines do.
    keeps_front: bool,
    /// Who takes a part of a line back that was there looks whether something before it is missing.
    trims_only_whole_parts: bool,
    /// What is lost is counted before its block is given up.
    counts_before_giving_up: bool,
    /// A line of which a part was written with the block before is counted before that is cut off.
    counts_before_cutting: bool,
}

const OURS: Rules = Rules {
    announces_before_asking_again: true,
    asks_again: true,
    looks_again_at_highest: true,
    keeps_to_earlier_end: true,
    trims_only_at_highest: true,
    keeps_front: true,
    trims_only_whole_parts: true,
    counts_before_giving_up: true,
    counts_before_cutting: true,
};

/// What a writer meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Fine,
    /// A file may have so many units. Others need not see that: a limit can be lowered at any time.
    Limit(u8),
    NearlyFull,
    /// The write fails behind so many units.
    Full(u8),
}
use Fate::{Fine, Full, Limit, NearlyFull};

/// Where lines end. In a compact trace these are chunks.
#[derive(Clone, Copy, Debug)]
struct Log {
    is_compact: bool,
    /// Units that are there at first.
    front: u8,
    /// Where the first writer's begin, and how many each of them has.
    begin: u8,
    block: u8,
    line_ends: &'static [u8],
}

impl Log {
    fn position(&self, index: usize) -> u8 {
        self.begin + index as u8 * self.block
    }
}

struct Case {
    rules: Rules,
    log: Log,
    fates: [Fate; WRITERS],
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    Ask,
    Admit,
    Fit,
    Announce,
    FitAgain,
    Write,
    Trim,
    TrimHighest,
    TrimEnd,
    TrimFile,
    // stop
    Place,
    Announced,
    Lower,
    LookAgain,
    Raise,
    CountCut,
    Cut,
    // trim_before
    BeforeHighest,
    BeforeLine,
    BeforeEnd,
    BeforeCount,
    BeforeFile,
    Failed,
    // lose
    Count,
    /// The block in the tail.
    GiveUp,
    CountLate,
    Done,
}

/// What follows after `stop` or `trim_before`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Then {
    Fit,
    Failed,
    #[default]
    Count,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Writer {
    step: Step,
    then: Then,
    len: u8,
    /// Units that are in the file, as far as it knows.
    written: u8,
    fits: u8,
    tried: u8,
    at: u8,
    announced: u8,
    highest: u8,
    before: u8,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct State {
    end: u8,
    highest: u8,
    file: [bool; UNITS],
    file_len: u8,
    /// By the line's last unit.
    counted: [bool; UNITS],
    /// Where the log ends as the tail says, [`NONE`] while it does not.
    stated_end: u8,
    in_tail: [bool; WRITERS],
    writers: [Writer; WRITERS],
}

impl Case {
    /// The last end of a line in `from..to`.
    fn line_end_in(&self, from: u8, to: u8) -> Option<u8> {
        self.log.line_ends.iter().copied().rfind(|end| from < *end && *end <= to)
    }

    /// As the function of that name.
    fn line_end_before(&self, state: &State, position: u8) -> Option<u8> {
        let is_there = |end: &u8| state.file[usize::from(*end) - 1];
        let mut ends = self.log.line_ends.iter().copied().filter(|end| *end <= position);
        let end = ends.rfind(is_there).filter(|_| state.file_len >= position)?;
        let is_whole = (end..position).all(|unit| state.file[usize::from(unit)]);
        (is_whole || !self.rules.trims_only_whole_parts).then_some(end)
    }

    fn fitting(&self, state: &State, index: usize) -> u8 {
        let position = self.log.position(index);
        if state.end == NONE {
            return self.log.block;
        }
        let largest = self.largest(index).min(state.end);
        match position + self.log.block > largest {
            true if self.log.is_compact => 0,
            true => self.line_end_in(position, largest).map_or(0, |end| end - position),
            false => self.log.block,
        }
    }

    fn largest(&self, index: usize) -> u8 {
        if let Limit(limit) = self.fates[index] { limit } else { NONE - 1 }
    }

    /// One step of a writer: `write_at` and what is called from there, and the counting behind it.
    fn step(&self, state: &State, index: usize) -> Option<State> {
        let (mut next, rules) = (*state, self.rules);
        let position = self.log.position(index);
        let behind = position + self.log.block;
        let mut me = state.writers[index];
        let cut = |next: &mut State, end: u8| {
            (usize::from(end)..UNITS).for_each(|unit| next.file[unit] = false);
            next.file_len = next.file_len.min(end);
        };
        let after = |then| match then {
            Then::Fit => Step::Fit,
            Then::Failed => Step::Failed,
            Then::Count => Step::Count,
        };
        me.step = match me.step {
            Step::Ask if state.end == position && !self.log.is_compact => {
                me.then = Then::Count;
                Step::BeforeHighest
            }
            Step::Ask if state.end <= position => Step::Count,
            Step::Ask => Step::Admit,
            Step::Admit => {
                let largest = self.largest(index);
                let until = |end: u8| Some(end.saturating_sub(position).min(self.log.block));
                let fits = match (state.end, self.fates[index]) {
                    _ if behind > largest => until(largest),
                    (end, _) if end <= behind && !self.log.is_compact => until(end),
                    (NONE, NearlyFull) => until(behind),
                    _ => None,
                };
                (me.fits, me.tried, me.then) = (fits.unwrap_or(0), 0, Then::Fit);
                if fits.is_some() { Step::Place } else { Step::Fit }
            }
            step @ (Step::Fit | Step::FitAgain) => {
                me.len = self.fitting(state, index);
                let is_next = (step == Step::Fit) == rules.announces_before_asking_again;
                match step {
                    _ if me.len == 0 => Step::Count,
                    _ if is_next => Step::Announce,
                    Step::Fit => Step::FitAgain,
                    _ => Step::Write,
                }
            }
            Step::Announce => {
                next.highest = state.highest.max(position + me.len);
                match rules.asks_again && rules.announces_before_asking_again {
                    true => Step::FitAgain,
                    false => Step::Write,
                }
            }
            Step::Write => {
                let failed =
                    if let Full(written) = self.fates[index] { Some(written) } else { None };
                me.written = failed.unwrap_or(self.log.block).min(me.len);
                let to = position + me.written;
                (position..to).for_each(|unit| next.file[usize::from(unit)] = true);
                let grown = if me.written > 0 { to } else { 0 };
                next.file_len = state.file_len.max(grown);
                (me.fits, me.tried, me.then) = (me.written, position + me.len, Then::Failed);
                match failed {
                    Some(_) => Step::Place,
                    None if self.log.is_compact => Step::Count,
                    None => Step::Trim,
                }
            }
            Step::Trim => {
                let to = position + me.len;
                let kept = self.line_end_in(position, to).filter(|end| *end < to);
                me.at = kept.unwrap_or(to);
                match kept.is_some() && state.end == to {
                    true if rules.trims_only_at_highest => Step::TrimHighest,
                    true => Step::TrimEnd,
                    false => Step::Count,
                }
            }
            Step::TrimHighest if state.highest > position + me.len => Step::Count,
            Step::TrimHighest => Step::TrimEnd,
            Step::TrimEnd if state.end == position + me.len => {
                next.end = me.at;
                Step::TrimFile
            }
            Step::TrimEnd => Step::Count,
            Step::TrimFile => {
                cut(&mut next, me.at);
                me.written = me.at - position;
                Step::Count
            }
            Step::Place => {
                let among = self.line_end_in(position, position + me.fits);
                let before = || self.line_end_before(state, position);
                me.at = match self.log.is_compact {
                    true => position,
                    false => among.or_else(before).unwrap_or(position + me.fits),
                };
                Step::Announced
            }
            Step::Announced => {
                me.announced = state.highest;
                let is_own = me.announced == me.tried;
                me.highest = if is_own { position } else { me.announced };
                me.at = if me.highest > position { me.at.max(me.highest) } else { me.at };
                me.at = if rules.keeps_front { me.at.max(self.log.front) } else { me.at };
                Step::Lower
            }
            Step::Lower => {
                me.before = state.end;
                next.end = state.end.min(me.at);
                Step::LookAgain
            }
            Step::LookAgain => {
                let now = if rules.looks_again_at_highest { state.highest } else { me.announced };
                let is_lower = me.before > me.at;
                if is_lower && now > me.announced.max(position) {
                    let most = if rules.keeps_to_earlier_end { me.before } else { NONE };
                    me.highest = now.min(most);
                    Step::Raise
                } else if is_lower && me.highest <= position {
                    Step::CountCut
                } else {
                    self.behind_stop(&me, position, after)
                }
            }
            Step::Raise => {
                if state.end == me.at {
                    next.end = me.highest;
                }
                self.behind_stop(&me, position, after)
            }
            step @ (Step::CountCut | Step::BeforeCount) => {
                if me.at < position && rules.counts_before_cutting {
                    self.count_cut(&mut next, position);
                }
                if step == Step::CountCut { Step::Cut } else { Step::BeforeFile }
            }
            Step::Cut => {
                cut(&mut next, me.at);
                self.behind_stop(&me, position, after)
            }
            Step::BeforeHighest if state.highest != position => after(me.then),
            Step::BeforeHighest => Step::BeforeLine,
            Step::BeforeLine => match self.line_end_before(state, position) {
                Some(end) => {
                    me.at = end;
                    Step::BeforeEnd
                }
                None => after(me.then),
            },
            Step::BeforeEnd if state.end == position => {
                next.end = me.at;
                Step::BeforeCount
            }
            Step::BeforeEnd => after(me.then),
            Step::BeforeFile => {
                cut(&mut next, me.at);
                after(me.then)
            }
            Step::Failed => {
                me.written = me.written.min(state.end.saturating_sub(position));
                Step::Count
            }
            Step::Count if me.written == self.log.block => {
                next.in_tail[index] = false;
                Step::Done
            }
            Step::Count if rules.counts_before_giving_up => {
                self.count(&mut next, &me, position);
                next.stated_end = state.end;
                Step::GiveUp
            }
            Step::Count => Step::GiveUp,
            Step::GiveUp => {
                next.in_tail[index] = false;
                if rules.counts_before_giving_up { Step::Done } else { Step::CountLate }
            }
            Step::CountLate => {
                self.count(&mut next, &me, position);
                Step::Done
            }
            Step::Done => return None,
        };
        next.writers[index] = me;
        Some(next)
    }

    /// Counts the lines that a block has a part of and the file not.
    fn count(&self, next: &mut State, me: &Writer, position: u8) {
        let behind = position + self.log.block;
        let is_lost = self.log.is_compact && me.written < self.log.block;
        let mut begin = if is_lost { position } else { position + me.written };
        while begin < behind {
            // A line, or the part of one that is in this block.
            let end = self.log.line_ends.iter().copied().find(|end| *end > begin);
            let line = end.unwrap_or(behind);
            let to = line.min(behind);
            let mut units = begin..to;
            let is_there = units.all(|unit| next.file[usize::from(unit)]);
            let is_counted = (self.log.is_compact || !is_there) && to > self.log.front;
            next.counted[usize::from(line) - 1] |= is_counted;
            begin = to;
        }
    }

    /// Counts the line that goes on in the block at `position`.
    fn count_cut(&self, next: &mut State, position: u8) {
        let is_block = position.is_multiple_of(BLOCKS.block);
        if !self.log.is_compact && is_block && !self.log.line_ends.contains(&position) {
            let end = self.log.line_ends.iter().copied().find(|end| *end > position);
            next.counted[usize::from(end.unwrap_or(position)) - 1] = true;
            next.stated_end = next.end;
        }
    }

    fn behind_stop(&self, me: &Writer, position: u8, after: impl Fn(Then) -> Step) -> Step {
        let is_asked = me.at == position && !self.log.is_compact;
        if is_asked { Step::BeforeHighest } else { after(me.then) }
    }
}

/// Everything that can go wrong, and the number of states.
fn explore(rules: Rules, log: Log, fates: [Fate; WRITERS]) -> (HashSet<&'static str>, usize) {
    let case = Case { rules, log, fates };
    let mut begin = State {
        end: NONE,
        stated_end: NONE,
        highest: log.front,
        file_len: log.front,
        in_tail: [true; WRITERS],
        ..State::default()
    };
    begin.file.iter_mut().take(log.front.into()).for_each(|unit| *unit = true);
    let (mut seen, mut open) = (HashSet::new(), vec![begin]);
    let mut complaints = HashSet::new();
    while let Some(state) = open.pop() {
        if seen.insert(state) {
            complaints.extend(case.complaint(&state));
            complaints.extend(case.complaint_if_killed(&state));
            open.extend((0..WRITERS).filter_map(|index| case.step(&state, index)));
        }
    }
    (complaints, seen.len())
}

const BLOCKS: Log = Log { is_compact: false, front: 0, begin: 0, block: 2, line_ends: &[] };
const CHUNKS: Log = Log { is_compact: true, line_ends: &[2, 4, 6], ..BLOCKS };
const CROSSING: Log = Log { line_ends: &[1, 3, 5, 6], ..BLOCKS };
const SHORT: Log = Log { line_ends: &[1, 2, 3, 4, 5, 6], ..BLOCKS };
const WITH_FRONT: Log = Log { front: 1, ..CROSSING };
/// Beside their blocks: a line, and two parts of another.
const PIECES: Log = Log { front: 1, begin: 1, block: 1, line_ends: &[1, 2, 4], ..BLOCKS };
const LOGS: [Log; 5] = [CHUNKS, CROSSING, SHORT, WITH_FRONT, PIECES];
