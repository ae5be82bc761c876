//! Changes of a stack that is made up: each of its words stands for itself.

use super::*;
use crate::sys;
use crate::unwind::incremental::SENTINEL;

const OLD: u32 = 3;
const NEW: u32 = 6;

/// A last stack of three frames, which a change leads from, and to another of five: two of the
/// frames stay, and are found from three words; four words are new.
struct Changing {
    last: &'static mut LastStack,
    stack: Box<[u64; 32]>,
    caller: Caller,
    start: [StackFrame; 4],
}

impl Changing {
    fn new() -> Changing {
        let memory = sys::map_anonymous(size_of::<LastStack>()).unwrap().cast::<LastStack>();
        // SAFETY: zeroed memory, of this test alone.
        let last = unsafe { &mut *memory };
        let stack = Box::new(std::array::from_fn(|index| 0x1000 + index as u64));
        let start = stack.as_ptr() as u64;
        let at = move |index: usize| start + 8 * index as u64;
        let frame = |pc, index, node, words: u32, needs_rbp| StackFrame {
            pc,
            rsp: at(index),
            rbp: 0x77,
            node,
            needs: Needs(words | if needs_rbp { Needs::RBP } else { 0 }),
        };
        let start = [
            SENTINEL,
            frame(1, 28, 1, 1, false),
            frame(2, 24, 2, 3, true),
            frame(3, 20, OLD, 4, true),
        ];
        let mut changing =
            Changing { last, stack, caller: Caller { pc: 6, rsp: 0, rbp: 0x77 }, start };
        changing.go_back();
        let last = &mut *changing.last;
        let new = [frame(4, 16, 4, 5, true), frame(5, 12, 5, 6, true), frame(6, 8, NEW, 7, true)];
        changing.caller.rsp = new[2].rsp;
        last.frames[3..6].copy_from_slice(&new);
        for (index, word) in [22, 18, 15, 10].into_iter().enumerate() {
            // SAFETY: there is room.
            unsafe { last.words.set(3 + index, at(word), changing.stack[word]) };
        }
        last.words.set_len(7);
        let key = Key::of(OLD, changing.caller);
        assert!(last.learn(key, 2, 3).is_some());
        changing.go_back();
        changing
    }

    /// To the stack that the change leads from.
    fn go_back(&mut self) {
        let last = &mut *self.last;
        last.frames[..4].copy_from_slice(&self.start);
        last.frames[4..].fill(SENTINEL);
        for (index, word) in [30, 26, 25, 21].into_iter().enumerate() {
            let address = &raw const self.stack[word] as u64;
            // SAFETY: there is room.
            unsafe { last.words.set(index, address, 0x1000 + word as u64) };
        }
        last.words.set_len(4);
        last.epoch = Rules::current().epoch().unwrap_or(u64::MAX);
        last.finish(3, self.start[3]);
    }

    /// Whether the change is met, each time from the same stack. Other tests unload modules.
    fn is_recalled(&mut self) -> bool {
        (0..1000).any(|_| {
            self.go_back();
            self.last.recall(self.caller).is_ok()
        })
    }

    /// Makes what is known by one key known by another.
    fn swap(&mut self, a: Key, b: Key) {
        let tags = &mut self.last.changes.tags;
        tags.swap(a.index(), b.index());
        for key in [a, b] {
            tags[key.index()].kept = key.tag();
        }
    }

    /// As it is, without a try.
    fn recall(&mut self) -> Option<u32> {
        self.last.recall(self.caller).ok()
    }
}

#[test]
fn a_change_that_comes_again_puts_the_same_frames_in_place() {
    let mut changing = Changing::new();
    assert!(changing.is_recalled());
    let last = &changing.last;
    assert_eq!((last.len, last.top.node, last.words.len()), (5, NEW, 7));
    let nodes: Vec<u32> = last.frames[1..=5].iter().map(|frame| frame.node).collect();
    assert_eq!(nodes, [1, 2, 4, 5, NEW]);
    let words: Vec<u64> = (0..7).map(|index| last.words.get(index).unwrap().1 - 0x1000).collect();
    assert_eq!(words, [30, 26, 25, 22, 18, 15, 10]);
    // The one after it is found by comparing words, too.
    assert_eq!(last.unchanged(changing.caller), Some(NEW));
}

#[test]
fn no_word_or_register_that_a_stack_was_found_from_may_differ() {
    let mut changing = Changing::new();
    for word in 0..32 {
        changing.stack[word] ^= 1 << 40;
        // Those of frames that are gone may be anything.
        let is_needed = [30, 26, 25, 22, 18, 15, 10].contains(&word);
        assert_eq!(changing.is_recalled(), !is_needed, "word {word}");
        changing.stack[word] ^= 1 << 40;
    }
    for change in [
        |caller: &mut Caller| caller.pc += 1,
        |caller: &mut Caller| caller.rsp += 8,
        |caller: &mut Caller| caller.rbp += 8,
    ] {
        let before = changing.caller;
        change(&mut changing.caller);
        assert!(!changing.is_recalled());
        // Where the guess is that it is this change all the same.
        let (from, to) = (Key::of(OLD, before), Key::of(OLD, changing.caller));
        changing.swap(from, to);
        assert!(!changing.is_recalled());
        changing.swap(from, to);
        changing.caller = before;
    }
    assert!(changing.is_recalled());
}

#[test]
fn the_frame_that_stays_must_be_the_one_that_stayed() {
    let changes: [fn(&mut StackFrame); 4] = [
        |frame| frame.rsp += 8,
        |frame| frame.rbp += 8,
        |frame| frame.node += 1,
        |frame| frame.needs = Needs(frame.needs.0 - 1),
    ];
    for change in changes {
        let mut changing = Changing::new();
        change(&mut changing.start[2]);
        assert!(!changing.is_recalled());
    }
    let mut changing = Changing::new();
    changing.go_back();
    changing.last.len = 1;
    assert_eq!(changing.recall(), None);
    changing.go_back();
    changing.last.words.set_len(2);
    assert_eq!(changing.recall(), None);
    changing.go_back();
    changing.last.epoch ^= 1 << 20;
    assert_eq!(changing.recall(), None);
    assert!(changing.is_recalled());
}

#[test]
fn changes_are_forgotten_with_the_stack() {
    let mut changing = Changing::new();
    changing.last.clear();
    assert!(!changing.is_recalled());
    // After as many times as a generation can count, too.
    let mut changing = Changing::new();
    changing.last.changes.generation = u32::MAX;
    changing.last.clear();
    assert!(!changing.is_recalled());
    changing.last.changes.changes.iter_mut().for_each(|change| change.generation = u32::MAX);
    changing.last.changes.generation = u32::MAX;
    assert!(changing.is_recalled());
    changing.last.clear();
    assert!(!changing.is_recalled());
}

#[test]
fn a_change_is_kept_when_it_is_met_for_the_third_time_in_a_row() {
    let changing = Changing::new();
    let changes = &mut changing.last.changes;
    let key = Key(0xabcc << (32 - INDEX_BITS));
    let other = Key(0xabc8 << (32 - INDEX_BITS));
    let met = [key, key, other, key, key, key, key, other, other, other];
    let often: Vec<bool> = met.into_iter().map(|key| changes.is_met_often(key)).collect();
    let expected = [0, 0, 0, 0, 0, 1, 1, 0, 0, 1].map(|often| often == 1);
    assert_eq!(often, expected);
}

#[test]
fn large_changes_are_not_kept() {
    let changing = Changing::new();
    let key = Key(9 << (64 - INDEX_BITS));
    let last = &mut *changing.last;
    for (stay, found) in [(2, 0), (2, NEW_FRAMES + 1), (MAX_FRAMES - 1, 1), (MAX_FRAMES, 9)] {
        if let Some(top) = last.frames.get_mut(stay + found) {
            *top = StackFrame { needs: Needs(7), ..changing.start[3] };
        }
        if let Some(outer) = last.frames.get_mut(stay) {
            *outer = changing.start[2];
        }
        assert_eq!(last.learn(key, stay, found), None, "{stay} {found}");
    }
    last.frames[3] = StackFrame { needs: Needs(3 + NEW_WORDS as u32 + 1), ..changing.start[3] };
    last.frames[2] = changing.start[2];
    assert_eq!(last.learn(key, 2, 1), None);
    last.frames[3].needs = Needs(3 + NEW_WORDS as u32);
    assert_eq!(last.learn(key, 2, 1), Some(()));
    last.frames[3].node = 0;
    assert_eq!(last.learn(key, 2, 1), None);
}
