//! Which of the faults that the replay found are certain.
//!
//! Memory can come and go past libmtr.so: a plugin opened with RTLD_DEEPBIND, malloc or free found by
//! dlsym in libc. Then a block is freed that tracing never saw, or an address is handed out again
//! although its free was not seen; a correct program has neither otherwise. Where a trace has such a
//! thing, an address that seems to be freed twice can have been handed out unseen in between. So a fault
//! is listed there only where the trace ends with it: the C library ends a process that does this.

use hashbrown::HashMap;

use super::Blind;
use super::places::Places;
use crate::profile::{Ending, Fault, FaultKind};
use crate::read::Log;
use crate::replay::{self, Outcome, is_at_end};

/// What became of the faults.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Those that are certain, those at the same places put together.
    pub(super) faults: Vec<Fault>,
    /// Frees of blocks that tracing never saw.
    pub(super) never_seen: u64,
    /// Blocks whose end was not seen.
    pub(super) unseen_ends: u64,
    /// What looks like a fault and is explained by these two.
    pub(super) explained: u64,
}

impl Verdict {
    /// Whether memory came or went past the library.
    pub(super) fn is_bypassed(&self) -> bool {
        self.never_seen + self.unseen_ends > 0
    }
}

/// Frees of blocks that had been freed before, as far as the trace shows.
pub(super) fn double_frees(outcome: &Outcome) -> u64 {
    count(outcome, FaultKind::DoubleFree)
}

fn count(outcome: &Outcome, kind: FaultKind) -> u64 {
    outcome.faults.iter().filter(|fault| fault.kind == kind).map(|fault| fault.count).sum()
}

/// Tells the certain faults from the others.
pub(super) fn judge(
    log: &Log,
    outcome: &Outcome,
    places: &Places,
    blind: Blind,
    ending: Ending,
) -> Verdict {
    let mut verdict = Verdict::default();
    let is_whole = matches!(blind, Blind::Never | Blind::BeforeFork);
    let ends_there = |fault: &replay::Fault| {
        ending == Ending::Killed && is_at_end(fault.last, outcome.last_line)
    };
    let unknown = outcome.faults.iter().filter(|fault| fault.kind == FaultKind::UnknownFree);
    let last = unknown.filter(|fault| ends_there(fault)).max_by_key(|fault| fault.last);
    let last = last.filter(|_| blind == Blind::Never);
    if blind == Blind::Never {
        let is_counted = last.is_some_and(|fault| fault.manner.is_counted());
        verdict.never_seen = outcome.totals.unknown_frees - u64::from(is_counted);
    }
    if is_whole {
        verdict.unseen_ends = count(outcome, FaultKind::DuplicateAlloc);
    }
    // A lost allocation makes one free of its block look like the second.
    let is_lost = log.damage.explains(double_frees(outcome).max(1));
    let is_bypassed = verdict.is_bypassed();
    // In a compact trace, another thread's allocation over an inherited block can stand before its free:
    // no thread of this process has used that address before.
    let may_be_inherited = blind == Blind::BeforeFork;
    let mut index = HashMap::new();
    for fault in &outcome.faults {
        let is_certain = match fault.kind {
            FaultKind::DoubleFree => !is_lost && (!is_bypassed || ends_there(fault)),
            FaultKind::InteriorFree => {
                is_whole && (!(is_bypassed || may_be_inherited) || ends_there(fault))
            }
            FaultKind::UnknownFree => last == Some(fault),
            FaultKind::MismatchedFree { .. } => false,
            FaultKind::DuplicateAlloc => log.header.version.is_none() && !log.damage.has_gaps(),
        };
        if !is_certain {
            let is_double = fault.kind == FaultKind::DoubleFree && !is_lost;
            if is_bypassed && (is_double || fault.kind == FaultKind::InteriorFree) {
                verdict.explained += fault.count;
            }
            continue;
        }
        let sites = [Some(fault.site), fault.allocated, fault.freed];
        let is_realloc = fault.manner.is_realloc();
        let key = (
            fault.kind,
            is_realloc,
            sites.map(|site| site.map(|site| places.frame(site).ok_or(site))),
        );
        let faults = &mut verdict.faults;
        let at = *index.entry(key).or_insert_with(|| {
            faults.push(Fault {
                kind: fault.kind,
                is_realloc,
                count: 0,
                ptr: fault.ptr,
                line: fault.line,
                size: None,
                inside: fault.inside,
                by: places.location(fault.site),
                allocated: fault.allocated.map(|site| places.location(site)),
                freed: fault.freed.map(|site| places.location(site)),
            });
            faults.len() - 1
        });
        // Of several, only the last can have ended the process.
        let is_unknown = fault.kind == FaultKind::UnknownFree;
        faults[at].count += if is_unknown { 1 } else { fault.count };
    }
    verdict
}
