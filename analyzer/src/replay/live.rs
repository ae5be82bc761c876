//! What is allocated at the moment.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::read::SiteId;

/// A live block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Requested bytes.
    pub size: u64,
    /// Who allocated it.
    pub site: SiteId,
}

/// The live blocks by address.
#[derive(Debug, Default)]
pub(super) struct Live {
    blocks: HashMap<u64, Block, FixedState>,
    /// Reallocs that have begun and not ended: `<` lines less `>` and `!` lines.
    going_on: usize,
    /// What those `<` lines ended, until all of them are over: a `!` gives one back.
    held: Vec<(u64, Option<Block>)>,
    /// Blocks whose free was announced but never recorded.
    announced: Vec<u64>,
    /// How often [`Live::around`] was asked.
    searches: usize,
}

/// Most blocks held for a `!`. More than that many reallocs at once means that `>` lines are
/// missing.
const MOST_HELD: usize = 4096;

/// Searches for the block around an address.
const MOST_SEARCHES: usize = 1000;
/// Most bytes in front of an address in which its block is looked for.
const FARTHEST: u64 = 1 << 16;

impl Live {
    /// Adds a block and returns the one that was live at that address.
    #[inline]
    pub(super) fn insert(&mut self, ptr: u64, block: Block) -> Option<Block> {
        self.blocks.insert(ptr, block)
    }

    #[inline]
    pub(super) fn remove(&mut self, ptr: u64) -> Option<Block> {
        self.blocks.remove(&ptr)
    }

    pub(super) fn has(&self, ptr: u64) -> bool {
        self.blocks.contains_key(&ptr)
    }

    /// The block that an address lies inside of, and where it begins. Blocks are not sorted, so all
    /// addresses in front are tried that one could begin at; after many questions none is answered.
    pub(super) fn around(&mut self, ptr: u64) -> Option<(u64, Block)> {
        self.searches += 1;
        if self.searches > MOST_SEARCHES {
            return None;
        }
        let starts = (ptr.saturating_sub(FARTHEST)..ptr).rev().filter(|start| start % 8 == 0);
        let mut blocks = starts.filter_map(|start| Some((start, *self.blocks.get(&start)?)));
        blocks.next().filter(|(start, block)| ptr - start < block.size)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.blocks.keys().copied()
    }

    pub(super) fn len(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// A `<` line ended `block`; keep it until the realloc is known to have succeeded.
    #[inline]
    pub(super) fn hold(&mut self, ptr: u64, block: Option<Block>) {
        if self.held.len() == MOST_HELD {
            self.held.drain(..MOST_HELD / 2);
        }
        self.going_on += 1;
        self.held.push((ptr, block));
    }

    /// A `>` line: one realloc is over. Which one is not said, so all are kept until none is left.
    #[inline]
    pub(super) fn release(&mut self) {
        self.going_on = self.going_on.saturating_sub(1);
        if self.going_on == 0 {
            self.held.clear();
        }
    }

    /// A `!` line: the block that a `<` line ended is live after all. glibc writes no `<` there;
    /// then there is nothing to give back.
    pub(super) fn restore(&mut self, ptr: u64) -> Option<Block> {
        let index = self.held.iter().rposition(|(held, _)| *held == ptr)?;
        let (_, block) = self.held.remove(index);
        self.release();
        block.filter(|_| !self.blocks.contains_key(&ptr))
    }

    /// Blocks of reallocs that never ended, where it is certain which ones these are.
    pub(super) fn held(&mut self) -> Vec<(u64, Block)> {
        let certain = self.held.len() == self.going_on;
        let held = std::mem::take(&mut self.held);
        held.into_iter()
            .filter_map(|(ptr, block)| Some((ptr, block?)))
            .filter(|(ptr, _)| certain && !self.blocks.contains_key(ptr))
            .collect()
    }

    /// From here on the block at `ptr` may be free.
    pub(super) fn announce(&mut self, ptr: u64) {
        // One for each thread that was killed in free; more is damage.
        if self.announced.len() < MOST_HELD {
            self.announced.push(ptr);
        }
    }

    /// Whether a free of `ptr` was announced; it counts once.
    pub(super) fn take_announced(&mut self, ptr: u64) -> bool {
        let index = self.announced.iter().position(|announced| *announced == ptr);
        index.map(|index| self.announced.swap_remove(index)).is_some()
    }
}
