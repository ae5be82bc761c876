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
    /// A block was freed, or given to realloc, that had been freed already.
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

/// What was called to end a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Manner {
    /// free, or a function that does the same.
    Free,
    /// realloc.
    Realloc,
    /// A free that the process did not come out of.
    OpenFree,
    /// A realloc that the process did not come out of.
    OpenRealloc,
}

impl Manner {
    /// Whether it was realloc.
    pub fn is_realloc(self) -> bool {
        matches!(self, Manner::Realloc | Manner::OpenRealloc)
    }

    /// Whether it was counted as a free.
    pub fn is_counted(self) -> bool {
        matches!(self, Manner::Free | Manner::Realloc)
    }
}

/// A call that ends what is no live block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wrong {
    pub(super) ptr: u64,
    pub(super) site: SiteId,
    pub(super) line: u64,
    pub(super) manner: Manner,
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
    /// By which call; [`Manner::Free`] where it is no free.
    pub manner: Manner,
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

type Key = (FaultKind, Manner, SiteId, Option<SiteId>, Option<SiteId>);

#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Vec<Fault>,
    index: HashMap<Key, usize, FixedState>,
    /// Addresses whose free has yet to come because their reuse stood before it: the fault that
    /// the reuse was taken for, and its line.
    owed: HashMap<u64, (usize, u64), FixedState>,
    /// The last frees of unknown blocks.
    unknown: VecDeque<Wrong>,
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
    pub(super) fn double_free(&mut self, wrong: Wrong, freed: Freed) {
        self.free(FaultKind::DoubleFree, wrong, Some(freed.allocated), Some(freed.freed));
    }

    pub(super) fn unknown_free(&mut self, wrong: Wrong) {
        if self.unknown.len() as u64 == MOST_BEHIND_ABORT {
            self.unknown.pop_front();
        }
        self.unknown.push_back(wrong);
    }

    pub(super) fn interior_free(&mut self, wrong: Wrong, inside: Inside, allocated: SiteId) {
        if let Some(index) = self.free(FaultKind::InteriorFree, wrong, Some(allocated), None) {
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
        let key = (FaultKind::DuplicateAlloc, Manner::Free, new, Some(old), None);
        let index = self.add(key, ptr, line);
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

    fn free(
        &mut self,
        kind: FaultKind,
        wrong: Wrong,
        allocated: Option<SiteId>,
        freed: Option<SiteId>,
    ) -> Option<usize> {
        let Wrong { ptr, site, line, manner } = wrong;
        self.add((kind, manner, site, allocated, freed), ptr, line)
    }

    fn add(&mut self, key: Key, ptr: u64, line: u64) -> Option<usize> {
        let (kind, manner, site, allocated, freed) = key;
        let index = match self.index.get(&key) {
            Some(index) => *index,
            None if self.found.len() == MOST => return None,
            None => {
                self.found.push(Fault {
                    kind,
                    manner,
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
        for wrong in std::mem::take(&mut self.unknown) {
            if is_at_end(wrong.line, last) {
                self.free(FaultKind::UnknownFree, wrong, None, None);
            }
        }
        self.found.retain(|fault| fault.count > 0);
        self.found
    }
}
