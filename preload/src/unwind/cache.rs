//! Rules by PC: one table for all threads, without a lock.
//!
//! An entry is one word, so it is stored and read whole: 33 bits of the PC and the rule's 31. The
//! other 14 bits of the PC (user addresses have 47) are the entry's index, so that a hit is never
//! another PC's rule. Several threads may fill an entry at once; either value is right.
//!
//! When modules are unloaded their PCs may become another module's. From before the unloading until
//! the table has been emptied, every walk that begins passes the table by: only such a walk can meet
//! code that was loaded meanwhile.

use core::sync::atomic::{AtomicU64, Ordering};

use super::rule::{BITS, Rule};
use super::unlisted;

const INDEX_BITS: u32 = 14;
/// PCs from here on are the kernel's, or those of a program that asked for 57-bit addresses.
pub(super) const PC_LIMIT: u64 = 1 << (INDEX_BITS + u64::BITS - BITS);

static TABLE: [AtomicU64; 1 << INDEX_BITS] = [const { AtomicU64::new(0) }; 1 << INDEX_BITS];

/// Bits 0..16: how many unloadings are going on. The rest: how many there were.
static EPOCH: AtomicU64 = AtomicU64::new(0);
const ONGOING: u64 = 0xffff;

/// The rules as one walk sees them.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    epoch: u64,
}

impl Rules {
    #[inline(always)]
    pub(super) fn current() -> Self {
        Rules { epoch: EPOCH.load(Ordering::Acquire) }
    }

    /// What stays the same until modules are unloaded; `None` while they are.
    #[inline(always)]
    pub(super) fn epoch(self) -> Option<u64> {
        (self.epoch & ONGOING == 0).then_some(self.epoch)
    }

    /// Whether nothing has changed since an [`epoch`](Rules::epoch).
    #[inline(always)]
    pub(super) fn are_of(self, epoch: u64) -> bool {
        // An epoch has no unloading going on, so there is none now if it is the same.
        self.epoch == epoch
    }

    /// As [`Rules::get`], where [`Rules::epoch`] is `Some`.
    #[inline(always)]
    pub(super) fn get_settled(self, pc: u64) -> Rule {
        let key = mix(pc);
        if let Some(entry) = entry_of(key) {
            let entry = entry.load(Ordering::Relaxed);
            if entry >> BITS == key >> INDEX_BITS {
                return Rule::from_bits(entry);
            }
        }
        self.fill(pc)
    }

    /// The rule of the code at `pc`.
    #[inline(always)]
    pub(super) fn get(self, pc: u64) -> Rule {
        match self.epoch() {
            Some(_) => self.get_settled(pc),
            None => self.fill(pc),
        }
    }

    #[cold]
    #[inline(never)]
    fn fill(self, pc: u64) -> Rule {
        let rule = Rule::of(pc);
        // Code that nobody knows may be known later, without any unloading.
        let may_keep = self.epoch & ONGOING == 0 && pc < PC_LIMIT && rule != Rule::UNKNOWN;
        let key = mix(pc);
        if may_keep && let Some(entry) = entry_of(key) {
            keep(entry, (key >> INDEX_BITS) << BITS | rule.bits(), self.epoch);
        }
        rule
    }
}

/// Fills an entry of a table that [`end_unload`] empties with what was found in an epoch.
pub(super) fn keep(entry: &AtomicU64, filled: u64, epoch: u64) {
    // SeqCst: either this store comes before the table is emptied, or the new epoch is seen.
    entry.store(filled, Ordering::SeqCst);
    if EPOCH.load(Ordering::SeqCst) != epoch {
        let _ = entry.compare_exchange(filled, 0, Ordering::SeqCst, Ordering::Relaxed);
    }
}

/// One-to-one, so that index and tag together are the PC.
#[inline(always)]
fn mix(pc: u64) -> u64 {
    pc ^ pc >> 17
}

#[inline(always)]
fn entry_of(key: u64) -> Option<&'static AtomicU64> {
    TABLE.get(key as usize % TABLE.len())
}

/// To be called before modules may be unloaded.
pub(crate) fn begin_unload() {
    EPOCH.fetch_add(1, Ordering::SeqCst);
}

/// To be called when modules may have been unloaded, as often as [`begin_unload`].
pub(crate) fn end_unload() {
    TABLE.iter().for_each(|entry| entry.store(0, Ordering::SeqCst));
    unlisted::forget();
    EPOCH.fetch_add(ONGOING, Ordering::SeqCst); // one more there was, one less going on
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_kept_until_an_unloading_and_not_during_one() {
        let pc = rules_are_kept_until_an_unloading_and_not_during_one as *const () as u64 + 1;
        let rule = Rule::of(pc);
        assert_ne!(rule, Rule::UNKNOWN);
        let entry = entry_of(mix(pc)).unwrap();
        let before = Rules::current();
        // Other tests unload too: any number of tries may be spoilt.
        let kept = (0..1000).any(|_| {
            assert_eq!(Rules::current().get(pc), rule);
            entry.load(Ordering::Relaxed) & ((1 << BITS) - 1) == rule.bits()
        });
        assert!(kept);
        begin_unload();
        entry.store(0, Ordering::SeqCst);
        assert_eq!(Rules::current().get(pc), rule);
        assert_eq!(entry.load(Ordering::SeqCst), 0);
        end_unload();
        assert_ne!(before.epoch, Rules::current().epoch);
        // A thread that began before the unloading leaves nothing behind.
        assert_eq!(before.fill(pc), rule);
        assert_eq!(entry.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn mixing_loses_nothing() {
        for bit in 0..47 {
            let pc = 0x5555_5555_5555 ^ 1 << bit;
            let key = mix(pc);
            assert_eq!(key ^ key >> 17 ^ key >> 34, pc);
        }
    }
}
