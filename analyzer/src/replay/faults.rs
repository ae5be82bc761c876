//! Double frees, frees of unknown blocks and of their insides, duplicate allocations.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use mtr_format::compact::op::FreeKind;

use super::Order;
use super::recent::Freed;
use crate::read::SiteId;

/// What was done wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A block was freed that had been freed already.
    DoubleFree,
    /// An address was freed that the trace does not know, and the trace ends there: the C library
    /// ends a process that does this. Where the process went on, the block was one that tracing
    /// never saw, and is only counted ([`super::Totals::unknown_frees`]).
    UnknownFree,
    /// An address inside of a live block was freed.
    InteriorFree,
    /// A block was freed by a function that is none for what allocated it. Not found by replaying:
    /// it takes the call stack of the allocation.
    MismatchedFree {
        /// What allocated it.
        allocated: AllocatedBy,
        /// What freed it.
        freed: FreeKind,
    },
    /// An address was handed out that was allocated: its free is missing from the trace.
    DuplicateAlloc,
}

/// The kinds of allocation that want a free of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AllocatedBy {
    /// A function of the C library.
    Malloc,
    /// operator new.
    New,
    /// operator new[].
    NewArray,
    /// operator new or new[].
    AnyNew,
}

/// A live block that an address lies inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// Its address.
    pub start: u64,
    /// Its requested bytes.
    pub size: u64,
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
    /// Line of the log at the last time.
    pub last: u64,
    /// The block around the address at the first time, for a free inside of one.
    pub inside: Option<Inside>,
}

type Key = (FaultKind, SiteId, Option<SiteId>, Option<SiteId>);

#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Vec<Fault>,
    index: HashMap<Key, usize, FixedState>,
    /// Addresses whose free has yet to come because their reuse stood before it: the fault that
    /// the reuse was taken for, and its line.
    owed: HashMap<u64, (usize, u64), FixedState>,
    /// The last frees of unknown blocks: address, place, line.
    unknown: VecDeque<(u64, SiteId, u64)>,
}

/// Different faults remembered; a trace with more is broken, and the rest adds nothing.
const MOST: usize = 10_000;

/// A free that comes more lines than this behind the reuse of its block is not a late one.
const LATEST: u64 = 10_000;

/// Lines that may follow the free that made the C library end the process: those of other threads.
const MOST_BEHIND_ABORT: u64 = 100;

/// Whether a line stands so near to the last one that the process may have ended there.
pub fn is_at_end(line: u64, last: u64) -> bool {
    last.saturating_sub(line) <= MOST_BEHIND_ABORT
}

impl Faults {
    pub(super) fn double_free(&mut self, ptr: u64, freed: Freed, site: SiteId, line: u64) {
        let sites = (Some(freed.allocated), Some(freed.freed));
        self.add((FaultKind::DoubleFree, site, sites.0, sites.1), ptr, line);
    }

    pub(super) fn unknown_free(&mut self, ptr: u64, site: SiteId, line: u64) {
        if self.unknown.len() as u64 == MOST_BEHIND_ABORT {
            self.unknown.pop_front();
        }
        self.unknown.push_back((ptr, site, line));
    }

    pub(super) fn interior_free(
        &mut self,
        ptr: u64,
        inside: Inside,
        allocated: SiteId,
        site: SiteId,
        line: u64,
    ) {
        let key = (FaultKind::InteriorFree, site, Some(allocated), None);
        if let Some(index) = self.add(key, ptr, line) {
            self.found[index].inside.get_or_insert(inside);
        }
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
                self.found.push(Fault {
                    kind,
                    site,
                    allocated,
                    freed,
                    count: 0,
                    ptr,
                    line,
                    last: line,
                    inside: None,
                });
                self.index.insert(key, self.found.len() - 1);
                self.found.len() - 1
            }
        };
        let fault = &mut self.found[index];
        if fault.count == 0 {
            (fault.ptr, fault.line) = (ptr, line);
        }
        fault.count += 1;
        fault.last = line;
        Some(index)
    }

    /// All of them; `last` is the last line.
    pub(super) fn finish(mut self, last: u64) -> Vec<Fault> {
        for (ptr, site, line) in std::mem::take(&mut self.unknown) {
            if is_at_end(line, last) {
                self.add((FaultKind::UnknownFree, site, None, None), ptr, line);
            }
        }
        self.found.retain(|fault| fault.count > 0);
        self.found
    }
}
