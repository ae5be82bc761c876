//! What was freed a short while ago, so that a second free of it is recognised as one.

use crate::read::SiteId;

/// An address that was freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) ptr: u64,
    /// Line of the free.
    pub(super) line: u64,
    /// Who had allocated it.
    pub(super) allocated: SiteId,
    /// Who freed it.
    pub(super) freed: SiteId,
}

const SLOTS: usize = 1 << 15;

/// The last free in each of 32,768 slots. An address that another one has pushed out of its slot
/// is taken for unknown when it is freed again; that is the price of bounded memory.
#[derive(Debug)]
pub(super) struct Recent {
    slots: Box<[Freed]>,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { slots: vec![Freed::default(); SLOTS].into_boxed_slice() }
    }
}

impl Recent {
    #[inline]
    fn slot(&mut self, ptr: u64) -> &mut Freed {
        // Addresses are multiples of 16; the multiplication spreads what is left of them.
        let hash = (ptr >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.ilog2());
        &mut self.slots[hash as usize & (SLOTS - 1)]
    }

    #[inline]
    pub(super) fn remember(&mut self, ptr: u64, allocated: SiteId, freed: SiteId, line: u64) {
        *self.slot(ptr) = Freed { ptr, line, allocated, freed };
    }

    /// The block is live after all.
    pub(super) fn forget(&mut self, ptr: u64) {
        let slot = self.slot(ptr);
        if slot.ptr == ptr {
            *slot = Freed::default();
        }
    }

    /// The last free of `ptr`. Ask only when `ptr` is not live.
    pub(super) fn find(&mut self, ptr: u64) -> Option<Freed> {
        Some(*self.slot(ptr)).filter(|freed| freed.ptr == ptr)
    }
}
