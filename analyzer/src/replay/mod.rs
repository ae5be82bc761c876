//! Events -> live blocks, totals, peak, faults.
//!
//! Memory is bounded by the live blocks and the call sites, never by the length of the trace.

mod ends; // which functions ended the blocks of a call site
mod faults; // double frees, frees of unknown blocks, duplicate allocations
mod live; // what is allocated at the moment
mod peak; // the moment of most live bytes
mod recent; // what was freed a short while ago
mod sites; // the same numbers for every call site
mod totals; // what memcheck's HEAP SUMMARY counts

use hashbrown::HashSet;
use mtr_format::text::decode::Op;

pub use ends::{End, Families};
pub use faults::{AllocatedBy, Fault, FaultKind, Inside, Manner, is_at_end};
pub use live::Block;
pub use peak::Peak;
pub use sites::SiteTotals;
pub use totals::Totals;

use crate::read::{By, Event, OpenCall, SiteId};
use faults::{Faults, Wrong};
use live::Live;
use recent::Recent;
use sites::Sites;

/// Whether the lines of a log are in the order of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// No free stands before its allocation and no reuse before the free (libmtr.so).
    Kept,
    /// A free that another thread made may stand behind the reuse of its block (glibc >= 2.34).
    Loose,
}

/// A replay in progress: give it every event, then ask for the [`Outcome`].
#[derive(Debug)]
pub struct Replay {
    order: Order,
    live: Live,
    recent: Recent,
    totals: Totals,
    peak: Peak,
    sites: Sites,
    faults: Faults,
    ends: Vec<End>,
    /// Line of the last record.
    line: u64,
    /// Blocks that the process has from its parent and has not freed, where they are known.
    inherited: Option<HashSet<u64>>,
}

/// What a replay found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Counts over the whole trace.
    pub totals: Totals,
    /// The moment of most live bytes.
    pub peak: Peak,
    /// Numbers of every call site, by [`SiteId`].
    pub sites: Vec<SiteTotals>,
    /// What was done wrongly, in order of first appearance.
    pub faults: Vec<Fault>,
    /// For each call site and each function that ended blocks of it, the first such end.
    pub ends: Vec<End>,
    /// Line of the last record.
    pub last_line: u64,
}

impl Replay {
    /// A replay of a log whose lines are in this order.
    pub fn new(order: Order) -> Replay {
        Replay {
            order,
            live: Live::default(),
            recent: Recent::default(),
            totals: Totals::default(),
            peak: Peak::default(),
            sites: Sites::default(),
            faults: Faults::default(),
            ends: Vec::new(),
            line: 0,
            inherited: None,
        }
    }

    /// The process has these blocks from its parent: to free one is no fault.
    pub fn inherit(&mut self, blocks: HashSet<u64>) {
        self.inherited = Some(blocks);
    }

    /// All blocks that a child would have from this process now.
    pub fn into_live(self) -> HashSet<u64> {
        let mut live = self.inherited.unwrap_or_default();
        live.extend(self.live.addresses());
        live
    }

    /// Takes in one event.
    #[inline]
    pub fn event(&mut self, event: Event) {
        let (op, site, line, by) = match event {
            Event::Record { op, site, line, by, .. } => (op, site, line, by),
            Event::Unpublished { ptr, call } => return self.unfinished(ptr, call),
            Event::Time { nanoseconds } => return self.peak.go_on(nanoseconds),
            Event::Resident { bytes } => {
                self.totals.resident = self.totals.resident.max(bytes);
                return;
            }
        };
        self.line = line;
        match op {
            Op::Alloc { ptr: 0, size } => self.totals.fail(size),
            Op::Alloc { ptr, size } => self.begin(ptr, Block { size, site }, line, by),
            // `! PTR 0` is how glibc before 2.18 wrote a realloc(p, 0) that freed.
            Op::Free { ptr } | Op::ReallocFailed { ptr, size: 0 } => {
                if ptr != 0 {
                    self.end(ptr, site, line, by, Manner::Free);
                }
            }
            Op::ReallocFrom { ptr: 0 } => {}
            Op::ReallocFrom { ptr } => {
                let block = self.end(ptr, site, line, By::Unknown, Manner::Realloc);
                self.live.hold(ptr, block);
            }
            Op::ReallocTo { ptr: 0, size } => {
                self.live.release();
                self.totals.fail(size);
            }
            Op::ReallocTo { ptr, size } => {
                self.live.release();
                self.begin(ptr, Block { size, site }, line, by);
            }
            Op::ReallocFailed { ptr, size } => {
                self.totals.fail(size);
                if let Some(block) = self.live.restore(ptr) {
                    self.recent.forget(ptr);
                    self.undo_end(ptr, block, line);
                }
            }
        }
    }

    /// A block begins.
    #[inline]
    fn begin(&mut self, ptr: u64, block: Block, line: u64, by: By) {
        self.totals.begin(block.size);
        if let Some(inherited) = &mut self.inherited {
            inherited.remove(&ptr);
        }
        if let Some(old) = self.live.insert(ptr, block) {
            self.duplicate(ptr, old, block, line);
        }
        self.sites.begin(&block, by, &self.peak);
        self.peak.raise(block.size, line);
    }

    /// A block ends; returns it when it was live.
    #[inline]
    fn end(&mut self, ptr: u64, site: SiteId, line: u64, by: By, manner: Manner) -> Option<Block> {
        if self.faults.is_owed(ptr, line) {
            // The free that should have stood before the reuse. The reuse stays live.
            self.totals.late_frees += 1;
            self.totals.implied_frees -= 1;
            return None;
        }
        let Some(block) = self.live.remove(ptr) else {
            self.unknown(Wrong { ptr, site, line, manner });
            return None;
        };
        self.totals.frees += 1;
        self.sites.end(&block, &self.peak);
        if let By::Free(kind) = by
            && self.sites.is_first(&block, kind)
        {
            self.ends.push(End { allocated: block.site, size: block.size, kind, ptr, line, site });
        }
        self.peak.lower(block.size);
        self.recent.remember(ptr, block.site, site, line);
        Some(block)
    }

    /// An end turned out not to have happened.
    #[cold]
    fn undo_end(&mut self, ptr: u64, block: Block, line: u64) {
        self.live.insert(ptr, block);
        self.totals.frees -= 1;
        self.sites.undo_end(&block, &self.peak);
        self.peak.raise(block.size, line);
    }

    /// An allocation at an address that was live: the old block must have ended unseen.
    #[cold]
    fn duplicate(&mut self, ptr: u64, old: Block, new: Block, line: u64) {
        self.totals.frees += 1;
        self.totals.implied_frees += 1;
        self.sites.end(&old, &self.peak);
        self.peak.lower(old.size);
        if !self.live.take_announced(ptr) {
            self.faults.duplicate(ptr, old.site, new.site, line, self.order);
        }
    }

    /// A free or realloc that the process did not come out of. That of a live block is no fault: the
    /// process may have been killed meanwhile.
    #[cold]
    fn unfinished(&mut self, ptr: u64, call: Option<OpenCall>) {
        self.live.announce(ptr);
        let is_inherited = self.inherited.as_ref().is_some_and(|blocks| blocks.contains(&ptr));
        if let Some(OpenCall { is_realloc, site, line }) = call
            && !self.live.has(ptr)
            && !is_inherited
        {
            let manner = if is_realloc { Manner::OpenRealloc } else { Manner::OpenFree };
            self.wrong(Wrong { ptr, site, line, manner });
        }
    }

    /// The end of a block that is not live.
    #[cold]
    fn unknown(&mut self, wrong: Wrong) {
        if self.inherited.as_mut().is_some_and(|inherited| inherited.remove(&wrong.ptr)) {
            self.totals.inherited_frees += 1;
            return;
        }
        if self.wrong(wrong) == FaultKind::UnknownFree {
            self.totals.unknown_frees += 1;
        }
    }

    /// A free or realloc of what is not live.
    fn wrong(&mut self, wrong: Wrong) -> FaultKind {
        if let Some(freed) = self.recent.find(wrong.ptr) {
            self.faults.double_free(wrong, freed);
            return FaultKind::DoubleFree;
        }
        if let Some((start, block)) = self.live.around(wrong.ptr) {
            self.faults.interior_free(wrong, Inside { start, size: block.size }, block.site);
            return FaultKind::InteriorFree;
        }
        self.faults.unknown_free(wrong);
        FaultKind::UnknownFree
    }

    /// The result.
    pub fn finish(mut self) -> Outcome {
        // A realloc that was going on when the process died: its block is live in one form or the
        // other.
        for (ptr, block) in self.live.held() {
            self.undo_end(ptr, block, 0);
        }
        self.totals.live_bytes = self.peak.live_bytes();
        self.totals.live_blocks = self.live.len();
        let sites = self.sites.finish(&self.peak);
        self.peak.blocks = sites.iter().map(|site| site.peak_blocks).sum();
        let (faults, last_line) = (self.faults.finish(self.line), self.line);
        let (totals, peak, ends) = (self.totals, self.peak, self.ends);
        Outcome { totals, peak, sites, faults, ends, last_line }
    }
}

#[cfg(test)]
mod tests;
