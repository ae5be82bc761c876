//! Double frees, frees of unknown blocks, duplicate allocations.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Order;
use super::recent::Freed;
use crate::read::SiteId;

/// What was done wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A block was freed that had been freed already.
    DoubleFree,
    /// An address was freed that the trace does not know.
    UnknownFree,
    /// An address was handed out that was allocated: its free is missing from the trace.
    DuplicateAlloc,
}

/// Faults of one kind at the same call sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What was done.
    pub kind: FaultKind,
    /// Who did it.
    pub site: SiteId,
    /// Who had allocated the block.
    pub allocated: Option<SiteId>,
    /// Who had freed it first.
    pub freed: Option<SiteId>,
    /// How often.
    pub count: u64,
    /// Address at the first time.
    pub ptr: u64,
    /// Line of the log at the first time.
    pub line: u64,
}

type Key = (FaultKind, SiteId, Option<SiteId>, Option<SiteId>);

#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Vec<Fault>,
    index: HashMap<Key, usize, FixedState>,
    /// Addresses whose free has yet to come because their reuse stood before it: the fault that
    /// the reuse was taken for, and its line.
    owed: HashMap<u64, (usize, u64), FixedState>,
}

/// Different faults remembered; a trace with more is broken, and the rest adds nothing.
const MOST: usize = 10_000;

/// A free that comes more lines than this behind the reuse of its block is not a late one.
const LATEST: u64 = 10_000;

impl Faults {
    pub(super) fn double_free(&mut self, ptr: u64, freed: Freed, site: SiteId, line: u64) {
        let sites = (Some(freed.allocated), Some(freed.freed));
        self.add((FaultKind::DoubleFree, site, sites.0, sites.1), ptr, line);
    }

    pub(super) fn unknown_free(&mut self, ptr: u64, site: SiteId, line: u64) {
        self.add((FaultKind::UnknownFree, site, None, None), ptr, line);
    }

    pub(super) fn duplicate(
        &mut self,
        ptr: u64,
        old: SiteId,
        new: SiteId,
        line: u64,
        order: Order,
    ) {
        let index = self.add((FaultKind::DuplicateAlloc, new, Some(old), None), ptr, line);
        if let Some(index) = index.filter(|_| order == Order::Loose) {
            self.owed.insert(ptr, (index, line));
        }
    }

    /// Whether a free of `ptr` is the late one of an earlier block there. Then the reuse that came
    /// before it was no fault.
    #[inline]
    pub(super) fn is_owed(&mut self, ptr: u64, line: u64) -> bool {
        !self.owed.is_empty() && self.pay(ptr, line)
    }

    #[cold]
    fn pay(&mut self, ptr: u64, line: u64) -> bool {
        let Some((index, since)) = self.owed.remove(&ptr) else { return false };
        let in_time = line.saturating_sub(since) <= LATEST;
        if in_time {
            self.found[index].count -= 1;
        }
        in_time
    }

    fn add(&mut self, key: Key, ptr: u64, line: u64) -> Option<usize> {
        let (kind, site, allocated, freed) = key;
        let index = match self.index.get(&key) {
            Some(index) => *index,
            None if self.found.len() == MOST => return None,
            None => {
                self.found.push(Fault { kind, site, allocated, freed, count: 0, ptr, line });
                self.index.insert(key, self.found.len() - 1);
                self.found.len() - 1
            }
        };
        let fault = &mut self.found[index];
        if fault.count == 0 {
            (fault.ptr, fault.line) = (ptr, line);
        }
        fault.count += 1;
        Some(index)
    }

    pub(super) fn finish(mut self) -> Vec<Fault> {
        self.found.retain(|fault| fault.count > 0);
        self.found
    }
}
