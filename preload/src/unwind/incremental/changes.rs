//! Changes of a stack that were met before.
//!
//! A program that does a thing again goes from one stack to the next as it did last time. A change
//! that is met several times is kept: the frames that it put in place, and the words that they were
//! recovered from. When it seems to come again, these words are compared, all at once, where a walk
//! has to wait for each return address to learn where the next one is, and no node is looked up.
//!
//! That is as exact as a walk, for the reason that incremental.rs gives: frames are determined by the
//! PC, rsp and rbp of the innermost one, by the words that are read, and by the rules. What a change is
//! looked up by is a guess only.

use core::sync::atomic::{Ordering, compiler_fence};

use super::{LastStack, MAX_FRAMES, Needs, StackFrame};
use crate::arch;
use crate::unwind::cache::Rules;
use crate::unwind::step::Caller;
use crate::unwind::words::MAX_WORDS;

const INDEX_BITS: u32 = 10;
/// Changes that are kept.
const COUNT: usize = 1 << INDEX_BITS;
/// Frames that a change puts in place at most, and words that they are recovered from.
const NEW_FRAMES: usize = 6;
const NEW_WORDS: usize = 8;
/// Nearly all changes put no more in place, apart from the innermost frame.
const FEW_FRAMES: usize = 3;
/// As few words are compared at once.
const FEW_WORDS: usize = 4;

/// What a change is looked up by: the node of the stack before it, and where the next allocation
/// comes from.
#[derive(Clone, Copy)]
pub(crate) struct Key(u64);

impl Key {
    #[inline(always)]
    fn of(node: u32, caller: Caller) -> Key {
        let mixed = caller.pc ^ caller.rsp << 16 ^ u64::from(node).rotate_left(40);
        Key(mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Below [`COUNT`].
    #[inline(always)]
    fn index(self) -> usize {
        (self.0 >> (64 - INDEX_BITS)) as usize
    }

    /// Not 0.
    #[inline(always)]
    fn tag(self) -> u16 {
        (self.0 >> (48 - INDEX_BITS)) as u16 | 1
    }

    /// A multiple of 4.
    #[inline(always)]
    fn long_tag(self) -> u32 {
        (self.0 >> (32 - INDEX_BITS)) as u32 & !3
    }
}

/// What of the changes with one index.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tags {
    /// The tag of the one that is kept, if it has not been forgotten; 0 as long as there was none.
    kept: u16,
    /// Which of [`Changes::changes`] that is.
    place: u16,
    /// The long tag of the one that was met last without being kept, plus how often that was in a
    /// row, 3 at most.
    met: u32,
}

/// From one stack to the next. The first cache line says whether it is the right one.
#[repr(C, align(64))]
struct Change {
    /// Of the innermost frame that stays, without its PC, which follows from the node.
    outer_rsp: u64,
    outer_rbp: u64,
    outer_node: u32,
    outer_needs: Needs,
    /// [`Changes::generation`] of when it was learnt; another one: there is none.
    generation: u32,
    /// How many frames stay.
    stay: u16,
    /// How many are new, one at least.
    found: u8,
    /// How many words are compared, [`FEW_WORDS`] at least.
    compared: u8,
    /// The innermost frame of the next stack.
    top: StackFrame,
    /// What the new frames were recovered from. Beyond the last one, the first one again.
    addresses: [u64; NEW_WORDS],
    values: [u64; NEW_WORDS],
    /// The new frames but for `top`, outermost first.
    between: [StackFrame; NEW_FRAMES - 1],
}

/// See the module's documentation. All zeros is none.
#[repr(C)]
pub(super) struct Changes {
    /// 0 until one is learnt.
    generation: u32,
    /// Places that are given away.
    places: u32,
    /// Apart from the changes, so that a look at these few lines suffices where none is kept.
    tags: [Tags; COUNT],
    /// One behind the other, so that few of them take few pages.
    changes: [Change; COUNT],
}

impl Changes {
    /// Forgets all.
    pub(super) fn forget(&mut self) {
        if self.generation == 0 {
            return;
        }
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.changes.iter_mut().for_each(|change| change.generation = 0);
            self.generation = 1;
        }
    }

    #[inline(always)]
    fn find(&self, key: Key) -> Option<&Change> {
        let Changes { tags, changes, .. } = self;
        // SAFETY: an index is below COUNT.
        let tags = unsafe { tags.get_unchecked(key.index()) };
        if tags.kept == key.tag() { changes.get(usize::from(tags.place)) } else { None }
    }

    /// Whether a change, which is not kept, has been met often enough: it may never come again, and
    /// to keep it takes longer than to find out once more.
    #[inline(always)]
    pub(super) fn is_met_often(&mut self, key: Key) -> bool {
        // SAFETY: as in `find`.
        let tags = unsafe { self.tags.get_unchecked_mut(key.index()) };
        let times = match tags.met ^ key.long_tag() {
            before @ 0..3 => before + 1,
            3 => 3,
            _ => 1,
        };
        tags.met = key.long_tag() | times;
        times == 3
    }
}

impl LastStack {
    /// The node of the stack of the hook's caller, if it has changed as before; the frames are up to
    /// date then. Else what [`LastStack::update`] needs to keep the change. The thread's stack is what
    /// it was, as in [`LastStack::unchanged`].
    #[inline(always)]
    pub(crate) fn recall(&mut self, caller: Caller) -> Result<u32, Key> {
        let key = Key::of(self.top.node, caller);
        self.recall_by(key, caller).ok_or(key)
    }

    #[inline(always)]
    fn recall_by(&mut self, key: Key, caller: Caller) -> Option<u32> {
        let LastStack { changes, frames, words, .. } = self;
        let change = changes.find(key)?;
        let (stay, found) = (usize::from(change.stay), usize::from(change.found));
        let (top, needed) = (change.top, change.outer_needs.words());
        let is_likely = caller.rsp == top.rsp
            && caller.pc == top.pc
            && (caller.rbp == top.rbp || !top.needs.rbp())
            && change.generation == changes.generation
            && stay <= self.len
            && needed <= words.len()
            && Rules::current().are_of(self.epoch);
        if !is_likely {
            return None;
        }
        let outer = frames.get(stay)?;
        let is_same = outer.rsp == change.outer_rsp
            && outer.node == change.outer_node
            && outer.needs == change.outer_needs
            && (outer.rbp == change.outer_rbp || !outer.needs.rbp());
        if !is_same {
            return None;
        }
        // SAFETY: the words of a change were between the rsp of its top, which is that of now, and
        // `high` when they were recorded; if the thread's stack had another end by now, the change were
        // forgotten. `learn` has filled in so many. Those that `outer` needs: as in `is_join`
        // (search.rs).
        let are_unchanged = unsafe {
            let (addresses, values) = (change.addresses.as_ptr(), change.values.as_ptr());
            arch::words_are(addresses, values, change.compared.into())
                && words.all_unchanged(needed)
        };
        if !are_unchanged {
            return None;
        }
        // A signal handler that ends this by a jump leaves an empty stack behind.
        (self.len, self.top.rsp) = (0, 0);
        compiler_fence(Ordering::SeqCst);
        // Some beyond the last one, which costs less than to ask.
        let (few, rest) = frames.get_mut(stay + 1..)?.split_first_chunk_mut::<FEW_FRAMES>()?;
        let (few_new, rest_new) = change.between.split_first_chunk::<FEW_FRAMES>()?;
        *few = *few_new;
        if found > FEW_FRAMES + 1 {
            *rest.first_chunk_mut()? =
                *rest_new.first_chunk::<{ NEW_FRAMES - 1 - FEW_FRAMES }>()?;
        }
        *frames.get_mut(stay + found)? = top;
        // SAFETY: `learn` has seen that so many words have room behind those that `outer` needs.
        unsafe {
            words.set_some::<FEW_WORDS, _>(needed, &change.addresses, &change.values);
            if usize::from(change.compared) > FEW_WORDS {
                words.set_some::<NEW_WORDS, _>(needed, &change.addresses, &change.values);
            }
        }
        words.set_len(top.needs.words());
        self.finish(stay + found, top)
    }

    /// Keeps a change: `stay` frames stayed, and `found` were put in place, all of them plain.
    #[cold]
    #[inline(never)]
    pub(super) fn learn(&mut self, key: Key, stay: usize, found: usize) -> Option<()> {
        let LastStack { changes, frames, words, .. } = self;
        let (outer, top) = (*frames.get(stay)?, *frames.get(stay + found)?);
        let first = outer.needs.words();
        let count = top.needs.words().checked_sub(first)?;
        let is_small = (1..=NEW_FRAMES).contains(&found) && (1..=NEW_WORDS).contains(&count);
        let has_room = stay + NEW_FRAMES <= MAX_FRAMES && first + NEW_WORDS <= MAX_WORDS;
        // Without memory, frames of any PC are known by 0.
        if !is_small || !has_room || outer.node == 0 || top.node == 0 {
            return None;
        }
        let generation = changes.generation.max(1);
        changes.generation = generation;
        let tags = changes.tags.get_mut(key.index())?;
        if tags.kept == 0 {
            tags.place = changes.places as u16;
            changes.places += 1;
        }
        let change = changes.changes.get_mut(usize::from(tags.place))?;
        change.generation = 0;
        // A signal handler that ends this by a jump leaves none behind.
        compiler_fence(Ordering::SeqCst);
        let between = frames.get(stay + 1..stay + found)?;
        change.between.iter_mut().zip(between).for_each(|(place, frame)| *place = *frame);
        for (index, places) in change.addresses.iter_mut().zip(&mut change.values).enumerate() {
            (*places.0, *places.1) = words.get(first + if index < count { index } else { 0 })?;
        }
        (change.outer_rsp, change.outer_rbp) = (outer.rsp, outer.rbp);
        (change.outer_node, change.outer_needs) = (outer.node, outer.needs);
        (change.stay, change.found) = (stay as u16, found as u8);
        change.compared = count.max(FEW_WORDS) as u8;
        change.top = top;
        compiler_fence(Ordering::SeqCst);
        change.generation = generation;
        tags.kept = key.tag();
        Some(())
    }
}

#[cfg(test)]
mod tests;
