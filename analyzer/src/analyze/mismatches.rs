//! Blocks that were freed by a function that is none for what allocated them.
//!
//! The trace says by which function a block was freed, and of an allocation the function of the C
//! library with the call stack. That it was operator new is seen from the stack: its innermost frames
//! are the C++ runtime's operator. `new[]` jumps to `new` there and leaves no frame, so the call
//! instruction of the frame behind tells the two apart.
//!
//! A mismatch is claimed only where nothing can excuse it: the operators are a C++ runtime's or an
//! allocator's, no frame of the stack is an operator of anybody else's, and the innermost function
//! has a name. That memory of new was freed with free is claimed only where, besides, no module of the
//! trace can have an operator delete of its own, since that would end in the same free.

use hashbrown::HashSet;

use super::places::Places;
use crate::profile::{
    AllocatedBy, Fault, FaultKind, FreeKind, Step, is_cpp_runtime, is_operator_new,
    is_runtime_module,
};
use crate::read::{CallSites, Link, Log, ModuleId, SiteId};
use crate::replay::{End, Outcome};
use crate::symbolize::Resolved;
use mtr_format::compact::op::Family;

const NEW: [Family; 2] = [Family::New, Family::AlignedNew];
const NEW_ARRAY: [Family; 2] = [Family::NewArray, Family::AlignedNewArray];
const LIBC: [Family; 8] = [
    Family::Malloc,
    Family::Calloc,
    Family::Realloc,
    Family::PosixMemalign,
    Family::AlignedAlloc,
    Family::Memalign,
    Family::Valloc,
    Family::Pvalloc,
];

/// Frames that operator new and the forms that it calls have at most, and one behind.
const OPERATOR_FRAMES: usize = 4;

/// The call sites whose call has to be looked at: those that may have called operator new for a block
/// that was freed with a form of delete.
pub(super) fn call_sites(log: &Log, outcome: &Outcome) -> HashSet<SiteId> {
    let ends = outcome.ends.iter().filter(|end| log.header.standard_operators && is_delete(end));
    let nodes = &log.sites.stacks;
    let mut found = HashSet::new();
    for end in ends {
        let mut node = nodes.get(end.allocated as usize);
        for _ in 0..OPERATOR_FRAMES {
            let Some(this) = node else { break };
            if let Link::Call(site) = this.link {
                found.insert(site);
            }
            node = this.parent.and_then(|parent| nodes.get(parent as usize));
        }
    }
    found
}

/// The modules that could excuse a free of memory of new, where there was a free at all.
pub(super) fn modules(log: &Log, outcome: &Outcome) -> Vec<ModuleId> {
    let is_free = |end: &End| end.kind == FreeKind::Free;
    if !log.header.standard_operators || !outcome.ends.iter().any(is_free) {
        return Vec::new();
    }
    let CallSites { modules, .. } = &log.sites;
    (0..modules.len() as ModuleId)
        .filter(|id| !is_runtime_module(&modules[*id as usize].path))
        .collect()
}

fn is_delete(end: &End) -> bool {
    matches!(end.kind, FreeKind::Delete | FreeKind::DeleteArray)
}

/// The mismatched frees of a trace.
pub(super) fn find(
    log: &Log,
    outcome: &Outcome,
    places: &Places,
    resolved: &Resolved,
) -> Vec<Fault> {
    if !log.header.standard_operators {
        return Vec::new();
    }
    let mut faults: Vec<Fault> = Vec::new();
    for end in &outcome.ends {
        let Some(site) = outcome.sites.get(end.allocated as usize) else { continue };
        let allocated = match site.families {
            families if families.are_among(&NEW) => Some(AllocatedBy::New),
            families if families.are_among(&NEW_ARRAY) => Some(AllocatedBy::NewArray),
            families if families.are_among(&LIBC) => by_stack(end.allocated, places, resolved),
            _ => None,
        };
        let Some(allocated) = allocated.filter(|allocated| {
            is_mismatch(*allocated, end.kind)
                && (end.kind != FreeKind::Free || !resolved.may_define_delete)
        }) else {
            continue;
        };
        let kind = FaultKind::MismatchedFree { allocated, freed: end.kind };
        let count = site.ended_by.get(end.kind as usize).copied().unwrap_or(1);
        let frame = places.frame(end.allocated);
        let same = |fault: &&mut Fault| {
            let stack = fault.allocated.as_ref().and_then(|location| location.stack);
            let other = stack.and_then(|stack| places.stacks.site(stack));
            fault.kind == kind && frame.is_some() && other.map(|s| (s.call_id, s.index)) == frame
        };
        match faults.iter_mut().find(same) {
            Some(fault) => fault.count += count,
            None => faults.push(Fault {
                kind,
                is_realloc: false,
                count,
                ptr: end.ptr,
                line: end.line,
                size: Some(end.size),
                inside: None,
                by: places.location(end.site),
                allocated: Some(places.location(end.allocated)),
                freed: None,
            }),
        }
    }
    faults
}

fn is_mismatch(allocated: AllocatedBy, freed: FreeKind) -> bool {
    match (allocated, freed) {
        (_, FreeKind::Unknown) => false,
        (AllocatedBy::Malloc, freed) => freed != FreeKind::Free,
        (_, FreeKind::Free) => true,
        (AllocatedBy::New, freed) => freed == FreeKind::DeleteArray,
        (AllocatedBy::NewArray, freed) => freed == FreeKind::Delete,
        (AllocatedBy::AnyNew, _) => false,
    }
}

/// What the stack of a call of malloc says of who wanted the block; `None` where it is not certain.
fn by_stack(id: SiteId, places: &Places, resolved: &Resolved) -> Option<AllocatedBy> {
    /// How far the stack has been looked through.
    enum Seen {
        Nothing,
        /// Only the runtime's operator new; one was `new[]`.
        Operator {
            is_array: bool,
        },
        /// Who wanted the block.
        All(AllocatedBy),
    }
    let mut seen = Seen::Nothing;
    for step in places.stacks.steps(places.stack(id)?) {
        let frame = match step {
            Step::Frame(frame) => frame,
            Step::Cut | Step::Ended => break,
        };
        let module = frame.call.place.module.as_deref();
        let name = frame.frame.and_then(|frame| frame.function.as_deref());
        let is_operator = name.is_some_and(|name| name.contains("operator new"));
        let is_runtimes = name.is_some_and(is_operator_new) && module.is_some_and(is_cpp_runtime);
        seen = match seen {
            // Of a class, of the program, of a library; or a new handler is at work.
            Seen::All(AllocatedBy::Malloc) if is_operator => return None,
            _ if is_operator && !is_runtimes => return None,
            Seen::All(found) => Seen::All(found),
            Seen::Nothing | Seen::Operator { .. } if is_operator => {
                let was_array = matches!(seen, Seen::Operator { is_array: true });
                let is_array = name.is_some_and(|name| name.starts_with("operator new[]"));
                Seen::Operator { is_array: is_array || was_array }
            }
            Seen::Operator { is_array: true } => Seen::All(AllocatedBy::NewArray),
            Seen::Operator { is_array: false } => {
                let target = resolved.call_targets.get(&frame.call_id).map(String::as_str);
                Seen::All(match target.unwrap_or_default() {
                    target if target.starts_with("_Zna") => AllocatedBy::NewArray,
                    target if target.starts_with("_Znw") => AllocatedBy::New,
                    _ => AllocatedBy::AnyNew,
                })
            }
            // A function without a name may be anything, an operator new included.
            Seen::Nothing if name.is_none() && !module.is_some_and(is_runtime_module) => {
                return None;
            }
            Seen::Nothing => Seen::All(AllocatedBy::Malloc),
        };
    }
    match seen {
        Seen::All(found) => Some(found),
        Seen::Operator { .. } => Some(AllocatedBy::AnyNew),
        Seen::Nothing => None,
    }
}
