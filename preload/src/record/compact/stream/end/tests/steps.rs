//! The steps of both threads.

use super::super::{OPEN, STAYS, WRITING, WRITING_ITSELF, WRITTEN};
use super::whole;
use super::{
    CAPACITY, CLOSER, Closer, EVENTS, Losing, PATIENCE, REALLOC, Rules, State, Step, Store, THREAD,
};

impl State {
    /// A step of `lose`, if it has begun.
    fn step_lose(&self, of: usize, rules: Rules) -> Option<Vec<State>> {
        let mut next = self.clone();
        let (is_first, slot, records) = match self.losing[of] {
            Losing::Nothing => return None,
            Losing::Begun(slot, records) => {
                next.losing[of] = Losing::Half(slot, records);
                (true, slot, records)
            }
            Losing::Half(slot, records) => {
                next.losing[of] = Losing::Nothing;
                (false, slot, records)
            }
        };
        if is_first != rules.counts_first {
            next.buffers[of].push(Store::Length(slot, 0));
        } else if self.has_stored(of) {
            // A locked instruction.
            next.counted |= records & 0xf;
        } else {
            return Some(Vec::new());
        }
        Some(vec![next])
    }

    /// A step of the stream's thread.
    pub(super) fn step_thread(&self, rules: Rules) -> Vec<State> {
        if let Some(states) = self.step_lose(THREAD, rules) {
            return states;
        }
        let mut next = self.clone();
        let (mut stores, slot) = (Vec::new(), self.own_slot);
        let is_realloc = self.event == REALLOC && !self.saw_closed;
        let len = (self.records & 0xf).count_ones() as u8;
        // These come behind all stores.
        use Step::{AskAgain, Claim, ClaimAtOnce, Open, StoreStateAtOnce};
        use Step::{WriteAtOnce, WriteFull, WriteItself};
        let is_behind = match self.step {
            Open | WriteFull | Claim | WriteItself | WriteAtOnce => true,
            ClaimAtOnce => rules.claims_at_once,
            StoreStateAtOnce => !self.has_claimed,
            AskAgain => rules.has_fences,
            _ => false,
        };
        if is_behind && !self.has_stored(THREAD) {
            return Vec::new();
        }
        next.step = match self.step {
            Step::Enter if self.event == EVENTS => return Vec::new(),
            Step::Enter => {
                stores.push(Store::Gate(true));
                Step::AskWhetherClosed
            }
            Step::AskWhetherClosed => {
                next.saw_closed = self.is_closed;
                if slot > 0 && !rules.makes_room_for_stamps {
                    stores.push(Store::Length(slot, self.records));
                }
                if slot == 0 { Step::Open } else { Step::AskLimit }
            }
            Step::Open => {
                next.own_slot = 1;
                stores.push(Store::Slot(1));
                Step::Begin
            }
            Step::AskLimit if len < self.own_limit() => Step::Append,
            Step::AskLimit => Step::MakeRoom,
            Step::MakeRoom if !self.is_closed && len < CAPACITY => Step::Append,
            Step::MakeRoom if !self.is_closed => Step::WriteFull,
            Step::MakeRoom => {
                stores.push(Store::Limit(0));
                if len > 0 || rules.claims_when_empty { Step::Claim } else { Step::Append }
            }
            Step::WriteFull => {
                let outcomes = self.write_out(THREAD, slot, false).into_iter();
                let go_on =
                    |(next, _)| State { step: Step::Begin, number: self.number + 1, ..next };
                return outcomes.map(go_on).collect();
            }
            Step::Claim if next.claim(OPEN, WRITING_ITSELF) => Step::WriteItself,
            Step::Claim => self.go_on_after(&mut next, self.end, rules),
            Step::WriteItself => {
                let outcomes = self.write_out(THREAD, slot, true).into_iter();
                let go_on = |(next, state)| State { step: Step::StoreState, state, ..next };
                return outcomes.map(go_on).collect();
            }
            Step::StoreState => {
                next.buffers[THREAD].push(Store::End(self.state));
                self.go_on_after(&mut next, self.state, rules)
            }
            Step::Begin => {
                next.records = 0;
                stores.extend([Store::Begin(slot, self.number), Store::Limit(CAPACITY)]);
                Step::AskAgain
            }
            Step::AskAgain => {
                if rules.begin_asks && self.is_closed {
                    stores.push(Store::Limit(0));
                }
                // Of a new stream nothing has been asked yet.
                if self.number == 0 { Step::AskLimit } else { Step::Append }
            }
            Step::Append => {
                let record = whole(self.event) & if is_realloc { 0xf } else { 0xff };
                next.records |= record;
                stores.push(Store::Length(slot, next.records));
                next.is_called = false;
                if is_realloc && rules.awaits_outcome { Step::Call } else { Step::AskAtEnd }
            }
            Step::Call => {
                next.records |= whole(self.event);
                stores.push(Store::Outcome(slot, whole(self.event)));
                next.is_called = true;
                if rules.awaits_outcome { Step::AskAtEnd } else { Step::Leave }
            }
            Step::AskAtEnd if self.own_limit() == 0 => Step::ClaimAtOnce,
            Step::AskAtEnd => self.after_record(is_realloc),
            Step::ClaimAtOnce => {
                next.has_claimed = rules.claims_at_once && next.claim(OPEN, WRITING_ITSELF);
                Step::WriteAtOnce
            }
            Step::WriteAtOnce => {
                let outcomes = self.write_out(THREAD, slot, true).into_iter();
                let go_on = |(next, state)| State { step: Step::StoreStateAtOnce, state, ..next };
                return outcomes.map(go_on).collect();
            }
            Step::StoreStateAtOnce => {
                match self.has_claimed {
                    true => next.buffers[THREAD].push(Store::End(self.state)),
                    false => {
                        let before = if self.state == STAYS { WRITTEN } else { STAYS };
                        next.claim(before, self.state);
                    }
                }
                next.has_claimed = false;
                self.after_record(is_realloc)
            }
            Step::Leave => {
                stores.push(Store::Gate(false));
                (next.event, next.is_called) = (self.event + 1, false);
                Step::Enter
            }
        };
        next.buffers[THREAD].extend(stores);
        vec![next]
    }

    fn after_record(&self, is_realloc: bool) -> Step {
        if is_realloc && !self.is_called { Step::Call } else { Step::Leave }
    }

    /// The rest of `make_room_after_end`.
    fn go_on_after(&self, next: &mut State, state: u32, rules: Rules) -> Step {
        let len = (self.records & 0xf).count_ones() as u8;
        if state == STAYS && len < CAPACITY {
            return Step::Append;
        }
        if matches!(state, STAYS | WRITING) && rules.takes_another_slot {
            next.own_slot += 1;
            next.buffers[THREAD].extend([Store::Slot(next.own_slot), Store::End(WRITTEN)]);
        } else if len == 0 {
            return Step::Append;
        }
        next.number += u8::from(len > 0);
        Step::Begin
    }

    /// A step of the one who ends the process.
    pub(super) fn step_closer(&self, rules: Rules) -> Vec<State> {
        if let Some(states) = self.step_lose(CLOSER, rules) {
            return states;
        }
        let mut next = self.clone();
        let buffer = &mut next.buffers[CLOSER];
        let is_behind = match self.closer {
            Closer::Limit => rules.has_fences,
            Closer::Claim | Closer::Write | Closer::StoreState => true,
            Closer::StateEnd | Closer::Remove => true,
            Closer::Barrier => rules.has_barrier,
            _ => false,
        };
        let is_barrier = self.closer == Closer::Barrier && rules.has_barrier;
        if is_behind && !self.has_stored(CLOSER) || is_barrier && !self.has_stored(THREAD) {
            return Vec::new();
        }
        let look_again = match self.looked < PATIENCE {
            true => Closer::Slot,
            false => Closer::Finished,
        };
        next.closer = match self.closer {
            Closer::Close => {
                buffer.push(Store::Closed);
                Closer::Limit
            }
            Closer::Limit => {
                // A stream that is being opened has to see for itself.
                if self.slot > 0 {
                    buffer.push(Store::Limit(0));
                }
                Closer::Barrier
            }
            Closer::Barrier => Closer::Slot,
            Closer::Slot if self.slot == 0 => Closer::StateEnd,
            Closer::Slot => {
                next.looked += 1;
                next.claimed = self.slot;
                Closer::AskGate
            }
            Closer::AskGate if self.is_busy && rules.asks_who_is_busy => match self.end {
                WRITTEN | STAYS => Closer::StateEnd,
                _ => look_again,
            },
            Closer::AskGate => Closer::Claim,
            Closer::Claim if next.claim(OPEN, WRITING) => Closer::Write,
            Closer::Claim if matches!(self.end, WRITTEN | STAYS) => Closer::StateEnd,
            Closer::Claim => look_again,
            Closer::Write => {
                let outcomes = self.write_out(CLOSER, self.claimed, true).into_iter();
                let closer = Closer::StoreState;
                let go_on = |(next, outcome)| State { closer, outcome, ..next };
                return outcomes.map(go_on).collect();
            }
            Closer::StoreState => {
                next.claim(WRITING, self.outcome);
                Closer::StateEnd
            }
            Closer::StateEnd if self.has_kept => Closer::Finished,
            Closer::StateEnd if rules.decides_in_one_step => {
                next.is_decided = true;
                Closer::Remove
            }
            Closer::StateEnd => Closer::NoneStayed,
            Closer::NoneStayed => {
                next.is_decided = true;
                Closer::Remove
            }
            Closer::Remove => {
                next.is_tail_gone = true;
                Closer::Finished
            }
            Closer::Finished => return Vec::new(),
        };
        vec![next]
    }
}
