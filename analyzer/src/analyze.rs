//! The stages in a row: the path of a trace -> its profile.

use std::path::{Path, PathBuf};

use hashbrown::HashMap;

use crate::error::Error;
use crate::profile::{Amount, Certainty, Ending, Fault, FaultKind, Location, Profile, Site};
use crate::read::sniff::Kind;
use crate::read::{self, CallSite, Log, SiteId};
use crate::replay::{Order, Outcome, Replay};
use crate::symbolize::{self, Resolved};

mod notes; // what the reader of the report has to know

/// Reads, replays and symbolizes the trace at `trace`. `programs` are ELF files that may be those
/// of the traced process.
pub fn analyze(trace: &Path, kind: Kind, programs: &[PathBuf]) -> Result<Profile, Error> {
    let order = if kind.is_ours() { Order::Kept } else { Order::Loose };
    let mut replay = Replay::new(order);
    let log = read::read_ahead(trace, |event| replay.event(event))?;
    let outcome = replay.finish();
    let options = symbolize::Options {
        programs: programs.to_vec(),
        trace_folder: trace.parent().map(Path::to_path_buf),
    };
    let resolved = symbolize::resolve(&log.sites, &options);
    Ok(profile(trace, &log, outcome, resolved, programs))
}

/// Puts together what the stages found.
fn profile(
    trace: &Path,
    log: &Log,
    outcome: Outcome,
    resolved: Resolved,
    programs: &[PathBuf],
) -> Profile {
    let places = Places { log, resolved: &resolved };
    let blind = Blind::of(log);
    let faults = outcome
        .faults
        .iter()
        .filter(|fault| match fault.kind {
            FaultKind::DoubleFree => true,
            FaultKind::UnknownFree => blind == Blind::Never,
            // While recording was off, or among what was lost, may be the free that is missing.
            FaultKind::DuplicateAlloc => {
                log.header.version.is_none() || matches!(blind, Blind::Never | Blind::BeforeFork)
            }
        })
        .map(|fault| Fault {
            kind: fault.kind,
            count: fault.count,
            ptr: fault.ptr,
            line: fault.line,
            by: places.location(fault.site),
            allocated: fault.allocated.map(|site| places.location(site)),
            freed: fault.freed.map(|site| places.location(site)),
        })
        .collect();
    let ending = match log {
        Log { running: true, .. } => Ending::Running,
        Log { exited: true, .. } => Ending::Exited,
        _ if log.header.version.is_some() => Ending::Killed,
        _ => Ending::Unknown,
    };
    let mut notes = notes::of(log, &outcome, blind, ending);
    notes.extend(resolved.notes.iter().cloned());
    let damage = &log.damage;
    Profile {
        trace: trace.to_path_buf(),
        program: log.header.program.clone().or_else(|| programs.first().cloned()),
        arguments: log.header.arguments.clone(),
        pid: log.header.pid,
        parent: log.header.parent.as_ref().map(|(pid, _)| *pid),
        ending,
        records: log.records,
        totals: outcome.totals,
        peak: Amount { bytes: outcome.peak.bytes, blocks: outcome.peak.blocks },
        sites: grouped(&outcome, &places),
        faults,
        notes,
        incomplete: damage.cut
            || damage.malformed + damage.torn + damage.lost > 0
            || damage.tail_ignored.is_some(),
    }
}

/// When the process allocated and freed without being recorded. A free of an unknown block is a
/// fault only when there was no such time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blind {
    /// Everything was recorded from the first allocation on.
    Never,
    /// The process inherited the heap of its parent.
    BeforeFork,
    /// Recording was switched on, or off and on, in the middle.
    BeforeStart,
    /// Records were lost.
    Lost,
}

impl Blind {
    fn of(log: &Log) -> Blind {
        let damage = &log.damage;
        if log.header.version.is_none()
            || log.header.start_by_mtrace == Some(true)
            || log.starts > 1
        {
            Blind::BeforeStart
        } else if damage.lost + damage.torn + damage.malformed > 0 || damage.tail_ignored.is_some()
        {
            Blind::Lost
        } else if log.header.parent.is_some() {
            Blind::BeforeFork
        } else {
            Blind::Never
        }
    }
}

/// Call sites and what symbolization found of them.
struct Places<'a> {
    log: &'a Log,
    resolved: &'a Resolved,
}

impl Places<'_> {
    fn location(&self, site: SiteId) -> Location {
        let stated = self.log.sites.sites.get(site as usize).map(stated).unwrap_or_default();
        let place = self.resolved.places.get(site as usize).cloned().unwrap_or_default();
        Location { place, stated }
    }
}

/// A call site as the trace states it.
fn stated(site: &CallSite) -> String {
    let object = site.object.as_deref().map(String::from_utf8_lossy);
    let symbol = site
        .symbol
        .as_ref()
        .map(|(name, offset)| format!("{}+{offset:#x}", String::from_utf8_lossy(name)));
    match (object, symbol, site.address) {
        (Some(object), Some(symbol), Some(address)) => format!("{object}({symbol})+{address:#x}"),
        (Some(object), None, Some(address)) => format!("{object}+{address:#x}"),
        (None, Some(symbol), Some(address)) => format!("{symbol} at {address:#x}"),
        (None, None, Some(address)) => format!("{address:#x}"),
        (Some(object), ..) => object.into_owned(),
        (None, ..) => "a place that the trace does not state".into(),
    }
}

/// Call sites put together that are the same line of the same function of the same module.
fn grouped(outcome: &Outcome, places: &Places<'_>) -> Vec<Site> {
    let mut index = HashMap::new();
    let mut sites: Vec<Site> = Vec::new();
    for (id, totals) in outcome.sites.iter().enumerate() {
        if totals.allocs == 0 {
            continue;
        }
        let location = places.location(id as SiteId);
        let key = match location.frame() {
            Some(frame) => (
                location.place.module.clone(),
                frame.function.clone().unwrap_or_default(),
                frame.file.clone(),
                // Without a line, the address is all that tells two places apart.
                frame.line.map_or(location.place.svma, |line| Some(line.into())),
            ),
            None => {
                let unresolved = location.place.certainty == Certainty::Unresolved;
                let stated = if unresolved { location.stated.clone() } else { String::new() };
                (location.place.module.clone(), stated, None, location.place.svma)
            }
        };
        let at = *index.entry(key).or_insert_with(|| {
            sites.push(Site { location, ..Site::default() });
            sites.len() - 1
        });
        let site = &mut sites[at];
        let add = |amount: &mut Amount, bytes: u64, blocks: u64| {
            amount.bytes = amount.bytes.saturating_add(bytes);
            amount.blocks += blocks;
        };
        add(&mut site.allocated, totals.bytes, totals.allocs);
        add(&mut site.peak, totals.peak_bytes, totals.peak_blocks);
        add(&mut site.live, totals.live_bytes, totals.live_blocks);
    }
    sites.sort_by_key(|site| std::cmp::Reverse((site.live.bytes, site.live.blocks)));
    sites
}

#[cfg(test)]
mod tests;
