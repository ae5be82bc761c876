//! The stages in a row: the path of a trace -> its profile.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::error::Error;
use crate::profile::{Amount, Ending, Profile};
use crate::read::sniff::Kind;
use crate::read::{self, Log};
use crate::replay::{Order, Outcome, Replay};
use crate::symbolize::{self, Resolved};
use places::Places;

mod faults; // which faults are certain
mod inherited; // what a child of fork has from its parent
mod mismatches; // blocks freed by the wrong function
pub mod missing; // what a trace lacks
mod notes; // what the reader of the report has to know
mod places; // what became of call sites and call stacks
mod sites; // call stacks -> allocation sites
mod suppressions; // what runtimes keep until exit by design

/// Reads, replays and symbolizes the trace at `trace`. `programs` are ELF files that may be those
/// of the traced process.
pub fn analyze(trace: &Path, kind: Kind, programs: &[PathBuf]) -> Result<Profile, Error> {
    analyze_ended(trace, kind, programs, None)
}

/// As [`analyze`], for a process whose exit status is known.
pub fn analyze_ended(
    trace: &Path,
    kind: Kind,
    programs: &[PathBuf],
    status: Option<ExitStatus>,
) -> Result<Profile, Error> {
    let order = if kind.is_ours() { Order::Kept } else { Order::Loose };
    let mut replay = Replay::new(order);
    let inherited = inherited::of_child(trace);
    let knows_inherited = inherited.as_ref().is_some_and(|inherited| inherited.is_certain);
    if let Some(inherited) = inherited {
        replay.inherit(inherited.blocks);
    }
    let log = read::read_ahead(trace, |event| replay.event(event))?;
    if !trace.is_file()
        && let Some(found) = foreign(&log)
    {
        return Err(Error::NotATrace { path: trace.into(), found: found.into() });
    }
    let outcome = replay.finish();
    let options = symbolize::Options {
        programs: programs.to_vec(),
        trace_folder: trace.parent().map(Path::to_path_buf),
        call_targets: mismatches::call_sites(&log, &outcome),
        deletes_in: mismatches::modules(&log, &outcome),
    };
    let resolved = symbolize::resolve(&log.sites, &options);
    Ok(profile(trace, &log, outcome, knows_inherited, resolved, programs, status))
}

/// What came out of a pipe if it was no trace. Of a file, its first bytes have told.
fn foreign(log: &Log) -> Option<&'static str> {
    let has_begun = log.header.version.is_some() || log.starts > 0 || log.ended;
    if log.is_compact || has_begun || log.records > 0 {
        return None;
    }
    let is_empty = log.lines == 0 && !log.damage.cut;
    Some(if is_empty { "nothing" } else { "something else" })
}

/// Puts together what the stages found.
fn profile(
    trace: &Path,
    log: &Log,
    outcome: Outcome,
    knows_inherited: bool,
    mut resolved: Resolved,
    programs: &[PathBuf],
    status: Option<ExitStatus>,
) -> Profile {
    let places = Places::new(&log.sites, std::mem::take(&mut resolved.places));
    let blind = Blind::of(log, knows_inherited);
    let ending = match log {
        Log { running: true, .. } => Ending::Running,
        Log { exited: true, .. } => Ending::Exited,
        // By _exit, as shells do.
        _ if status.is_some_and(|status| status.code().is_some()) => Ending::Exited,
        // What says how may be among what was lost.
        _ if status.is_none() && log.damage.lost > 0 => Ending::Unknown,
        _ if log.header.version.is_some() => Ending::Killed,
        _ => Ending::Unknown,
    };
    let mut verdict = faults::judge(log, &outcome, &places, blind, ending);
    // A block can have ended and another begun unseen at its address: two records.
    if !verdict.is_bypassed() && !log.damage.explains(2) {
        verdict.faults.extend(mismatches::find(log, &outcome, &places, &resolved));
    }
    let mut notes = notes::of(log, &outcome, &verdict, blind, ending, status);
    notes.extend(resolved.notes);
    let damage = &log.damage;
    let mut sites = sites::grouped(&outcome, &places);
    let suppressed = suppressions::mark(&mut sites, &places);
    notes.extend(notes::without_debug_info(&sites, &resolved.without_debug_info));
    Profile {
        trace: trace.to_path_buf(),
        program: log.header.program.clone().or_else(|| programs.first().cloned()),
        arguments: log.header.arguments.clone(),
        pid: log.header.pid,
        parent: log.header.parent.as_ref().map(|(pid, _)| *pid),
        ending,
        is_compact: log.is_compact,
        records: log.records,
        totals: outcome.totals,
        peak: Amount { bytes: outcome.peak.bytes, blocks: outcome.peak.blocks },
        peak_time: outcome.peak.time,
        peak_until: outcome.peak.until,
        suppressed,
        sites,
        stacks: places.stacks,
        faults: verdict.faults,
        notes,
        incomplete: damage.is_some(),
        parts: Vec::new(),
    }
}

/// When the process allocated and freed without being recorded. A free of an unknown block can be a
/// fault only when there was no such time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blind {
    /// Everything was recorded from the first allocation on.
    Never,
    /// The process inherited a heap of its parent's that is not known, or not for sure.
    BeforeFork,
    /// Recording was switched on, or off and on, in the middle.
    BeforeStart,
    /// Records were lost.
    Lost,
}

impl Blind {
    fn of(log: &Log, knows_inherited: bool) -> Blind {
        let damage = &log.damage;
        if damage.has_gaps() {
            Blind::Lost
        } else if log.header.version.is_none()
            || log.header.start_by_mtrace == Some(true)
            || log.starts > 1
        {
            Blind::BeforeStart
        } else if damage.hides_records() {
            Blind::Lost
        } else if log.header.parent.is_some() && !knows_inherited {
            Blind::BeforeFork
        } else {
            Blind::Never
        }
    }
}

#[cfg(test)]
mod tests;
