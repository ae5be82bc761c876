//! What is wrong with a log or trace when all is done, and if its process is killed before.

use super::{Case, NONE, State, Step, UNITS, WRITERS};

impl Case {
    /// What is wrong when all have come to their end.
    pub(super) fn complaint(&self, state: &State) -> Option<&'static str> {
        if state.writers.iter().any(|writer| writer.step != Step::Done) {
            return None;
        }
        if !state.file.iter().take(self.log.front.into()).all(|unit| *unit) {
            return Some("the first lines are gone");
        }
        let mut begin = 0;
        self.log.line_ends.iter().find_map(|end| {
            let is_there = state.file[begin..usize::from(*end)].iter().all(|unit| *unit);
            begin = usize::from(*end);
            match (is_there, state.counted[begin - 1]) {
                (true, true) => Some("it is there, and counted as lost"),
                (false, false) => Some("it is gone, and not counted"),
                _ => None,
            }
        })
    }

    /// What a reader finds wrong if the process is killed here. What is written beside the blocks is not in
    /// the tail, and no event yet.
    pub(super) fn complaint_if_killed(&self, state: &State) -> Option<&'static str> {
        if self.log.begin > 0 {
            return None;
        }
        // A reader does not believe in an end before that of the file (`Blocks::read`).
        let stated_end = match self.log.is_compact {
            true => NONE,
            false => state.stated_end.max(state.file_len),
        };
        let is_readable = |unit: u8| {
            let in_tail = state.in_tail[usize::from(unit / self.log.block)] && unit < stated_end;
            state.file[usize::from(unit)] || in_tail
        };
        let counted_by_reader = self.counted_by_reader(state, stated_end);
        let mut begin = 0;
        self.log.line_ends.iter().find_map(|end| {
            let is_there = (begin..*end).all(is_readable);
            begin = *end;
            let last = usize::from(*end) - 1;
            let is_counted = state.counted[last] || counted_by_reader[last];
            (!is_there && !is_counted).then_some("a kill hides it")
        })
    }

    /// Lines of the tail behind the end that it states: a reader counts them (`Blocks::end_at`).
    fn counted_by_reader(&self, state: &State, stated_end: u8) -> [bool; UNITS] {
        let mut counted = [false; UNITS];
        for index in (0..WRITERS as u8).filter(|index| state.in_tail[usize::from(*index)]) {
            let position = index * self.log.block;
            let goes_on = index > 0 && state.in_tail[usize::from(index) - 1];
            let begins_line = position == 0 || self.log.line_ends.contains(&position);
            let mut is_counted = position > stated_end && !goes_on && !begins_line;
            let from = position.max(stated_end);
            let ends = self.log.line_ends.iter().copied();
            for end in ends.filter(|end| from < *end && *end <= position + self.log.block) {
                counted[usize::from(end) - 1] |= !is_counted;
                is_counted = false;
            }
        }
        counted
    }
}
