//! What the reader of a report has to know about its trace.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use hashbrown::HashSet;

use super::Blind;
use super::faults::{Verdict, double_frees};
use super::missing;
use crate::output::number::{counted, thousands};
use crate::output::signal::signal;
use crate::profile::{Ending, Site, is_runtime_module};
use crate::read::{Link, Log};
use crate::replay::Outcome;

/// One sentence for each thing that is missing, odd or not what it seems.
pub(super) fn of(
    log: &Log,
    outcome: &Outcome,
    verdict: &Verdict,
    blind: Blind,
    ending: Ending,
    status: Option<ExitStatus>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let (damage, totals) = (&log.damage, &outcome.totals);
    if log.header.start_by_mtrace == Some(true) && log.starts == 0 {
        notes.push(
            "The program decides by mtrace() when it is traced, and never called it. Run it with \
             MTR_START=process (mtr-run --start=process) to trace it from its first allocation."
                .into(),
        );
    } else if let Some(name) = &log.header.preceded {
        notes.push(format!(
            "Calls of malloc do not reach libmtr.so: {} defines it and stands before libmtr.so. What \
             it allocates cannot be recorded.",
            name.display()
        ));
    } else if log.records == 0 {
        notes.push(no_records(log, ending));
    }
    if log.header.caller_only {
        notes.push("Only the caller of each allocation was recorded (--stacks=caller).".into());
    }
    cut_stacks(log, outcome, &mut notes);
    match ending {
        Ending::Killed => {
            let how = match status.and_then(|status| status.signal()) {
                Some(number) => format!("The program was ended by {}", signal(number)),
                None => "The program ended by a signal, by _exit or by exec".into(),
            };
            notes.push(format!("{how}; what is counted as in use was so at its last record."));
        }
        Ending::Running => {
            notes.push("The program is running; it may free all of this yet.".into())
        }
        Ending::Unknown if damage.lost > 0 => notes.push(
            "How the program ended is not known, as the trace lacks its end; what is counted as in \
             use was so at its last record."
                .into(),
        ),
        Ending::Exited | Ending::Unknown => {}
    }
    if totals.failed > 0 {
        let size = counted(totals.largest_failed, "byte", "bytes");
        notes.push(match totals.failed {
            1 => format!("1 call for {size} failed; it is not counted as an allocation."),
            failed => format!(
                "{} calls failed, the largest for {size}; they are not counted as allocations.",
                thousands(failed)
            ),
        });
    }
    // What a child of fork frees and nobody knows is its parent's.
    let may_be_inherited = if blind == Blind::BeforeFork { totals.unknown_frees } else { 0 };
    let inherited_frees = totals.inherited_frees + may_be_inherited;
    if inherited_frees > 0 {
        notes.push(inherited(inherited_frees));
    }
    if totals.unknown_frees > 0 {
        let blocks = counted(totals.unknown_frees, "block", "blocks");
        let were = if totals.unknown_frees == 1 { "was" } else { "were" };
        match blind {
            Blind::Never | Blind::BeforeFork => {}
            Blind::BeforeStart => notes.push(format!(
                "{blocks} allocated before tracing began (or while it was off) {were} freed."
            )),
            Blind::Lost => notes.push(format!(
                "{blocks} {were} freed whose allocations the trace does not show; they may be among \
                 what was lost."
            )),
        }
    }
    bypasses(verdict, &mut notes);
    let again = double_frees(outcome);
    if again > 0 && damage.explains(again) {
        notes.push(format!(
            "{} again; the allocations in between may be among what was lost.",
            counted(again, "address was freed", "addresses were freed"),
        ));
    }
    if totals.implied_frees > 0 && blind == Blind::Lost {
        notes.push(format!(
            "{} again; the frees in between may be among what was lost.",
            counted(totals.implied_frees, "address was allocated", "addresses were allocated"),
        ));
    }
    if totals.late_frees > 0 {
        notes.push(format!(
            "{} behind the reuse of the block, as glibc writes them when threads race; they were \
             matched.",
            counted(totals.late_frees, "free stood", "frees stood"),
        ));
    }
    notes.extend(missing::of(log));
    if let (children @ 1.., errno) = log.untraced {
        let reason = match errno {
            libc::EXDEV => "the root folder was another by then".into(),
            errno => std::io::Error::from_raw_os_error(errno).to_string(),
        };
        notes.push(format!(
            "{} made by fork could not be traced: {reason}.",
            counted(children, "child", "children"),
        ));
    }
    if let programs @ 1.. = log.untraced_programs {
        notes.push(format!(
            "{} started untraced: LD_PRELOAD was taken out of the environment.",
            counted(programs, "program was", "programs were"),
        ));
    }
    if let Some(program) = &log.left_for {
        let name = if program.as_os_str().is_empty() {
            "another program".into()
        } else {
            program.display().to_string()
        };
        notes.push(format!(
            "The process went on untraced: it executed {name} with LD_PRELOAD taken out of the \
             environment.",
        ));
    }
    if log.streams > 1 && log.records > 0 {
        notes.push(
            "Events of different threads are in order where they have a block in common; else they \
             may be some microseconds off, and the peak by what was allocated meanwhile."
                .into(),
        );
    }
    notes
}

/// Allocations whose call stacks are not whole.
fn cut_stacks(log: &Log, outcome: &Outcome, notes: &mut Vec<String>) {
    // A stack stands behind the one that it continues.
    let mut marks: Vec<(bool, bool)> = Vec::with_capacity(log.sites.stacks.len());
    for node in &log.sites.stacks {
        let parent = node.parent.and_then(|parent| marks.get(parent as usize));
        let (is_cut, is_ended) = parent.copied().unwrap_or_default();
        marks.push((is_cut || node.link == Link::Cut, is_ended || node.link == Link::Ended));
    }
    let (mut cut, mut ended) = (0, 0);
    for (totals, (is_cut, is_ended)) in outcome.sites.iter().zip(marks) {
        cut += if is_cut { totals.allocs } else { 0 };
        ended += if is_ended { totals.allocs } else { 0 };
    }
    if cut > 0 {
        notes.push(format!(
            "{} had more than 4,096 frames on the call stack: the innermost 1,000 and the outermost 24 \
             are recorded.",
            counted(cut, "allocation", "allocations"),
        ));
    }
    if ended > 0 {
        notes.push(format!(
            "{} a call stack that ends before its root: a caller has no unwind information, or the stack \
             could not be read.",
            counted(ended, "allocation has", "allocations have"),
        ));
    }
}

/// Why there may be none, the likeliest first, as far as the trace tells.
fn no_records(log: &Log, ending: Ending) -> String {
    if log.damage.is_some() {
        return "The trace holds no records that can be read: what is missing is said below."
            .into();
    }
    if log.header.version.is_none() || log.header.start_by_mtrace == Some(true) {
        return "The trace holds no records: nothing was allocated or freed while tracing was on, which \
                is from mtrace() to muntrace() or the end of the program."
            .into();
    }
    let until = match ending {
        Ending::Exited => "up to its end",
        Ending::Running => "so far",
        Ending::Killed | Ending::Unknown => "before the trace ends",
    };
    format!(
        "The trace holds no records: the program called no function of libc's that allocates or frees \
         {until}. Small programs of C need none; one that has an allocator of its own linked into it \
         may call that, which cannot be traced."
    )
}

/// That blocks in use have no lines because the modules that allocated them have none.
pub(super) fn without_debug_info(sites: &[Site], modules: &HashSet<PathBuf>) -> Option<String> {
    /// Modules that are named.
    const NAMED: usize = 3;
    let mut names: Vec<String> = Vec::new();
    let is_found = |site: &&Site| site.stacks.iter().any(|s| s.live.blocks > 0 && !s.is_suppressed);
    let of_sites =
        sites.iter().filter(is_found).filter_map(|site| site.location.place.module.as_ref());
    for module in of_sites.filter(|module| modules.contains(*module) && !is_runtime_module(module))
    {
        let name = module.file_name().unwrap_or(module.as_os_str()).to_string_lossy();
        if !names.iter().any(|known| *known == name) {
            names.push(name.into_owned());
        }
    }
    if names.is_empty() {
        return None;
    }
    let more = match names.len() {
        ..=NAMED => String::new(),
        count => format!(" and {} more", count - NAMED),
    };
    names.truncate(NAMED);
    Some(format!(
        "No debug information in {}{more}, so lines are unknown there: compile with -g, or install \
         debug symbols.",
        names.join(", ")
    ))
}

/// What came or went past the library.
fn bypasses(verdict: &Verdict, notes: &mut Vec<String>) {
    const WHOSE: &str = "memory of code whose malloc or free is not the program's (RTLD_DEEPBIND, \
                         dlsym in libc, an allocator of its own)";
    let Verdict { never_seen, unseen_ends, explained, .. } = *verdict;
    if never_seen > 0 {
        notes.push(format!(
            "{} of blocks that tracing never saw: {WHOSE}.",
            counted(never_seen, "free", "frees")
        ));
    }
    if unseen_ends > 0 {
        notes.push(format!(
            "{} of an address whose block had not been freed as far as the trace shows, so tracing \
             did not see its end: {WHOSE}.",
            counted(unseen_ends, "duplicate allocation", "duplicate allocations")
        ));
    }
    if explained > 0 {
        notes.push(format!(
            "{} that would be faults if nothing had passed tracing by are not listed.",
            counted(explained, "free", "frees")
        ));
    }
}

fn inherited(frees: u64) -> String {
    let were = if frees == 1 { "was" } else { "were" };
    format!("{} inherited from the parent process {were} freed.", counted(frees, "block", "blocks"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Amount, Location, Place, SiteStack};

    #[test]
    fn only_modules_of_blocks_that_are_shown_are_said_to_have_no_lines() {
        let site = |module: &str, blocks, is_suppressed| {
            let live = Amount { bytes: blocks, blocks };
            let place = Place { module: Some(module.into()), ..Place::default() };
            let location = Location { place, stated: String::new(), stack: None };
            let stacks = vec![SiteStack { live, is_suppressed, ..SiteStack::default() }];
            Site { location, stacks, ..Site::default() }
        };
        let of = |sites: &[Site], modules: &[&str]| {
            without_debug_info(sites, &modules.iter().map(PathBuf::from).collect())
        };
        let hidden =
            [site("/freed", 0, false), site("/kept", 1, true), site("/lib/libc.so.6", 1, false)];
        assert_eq!(of(&hidden, &["/freed", "/kept", "/lib/libc.so.6"]), None);
        let shown =
            ["/b/t", "/a", "/lines", "/b/t", "/c", "/d"].map(|module| site(module, 1, false));
        let note = of(&shown, &["/a", "/b/t"]).unwrap();
        assert!(note.starts_with("No debug information in t, a, so lines"), "{note}");
        let note = of(&shown, &["/a", "/b/t", "/c", "/d"]).unwrap();
        assert!(note.starts_with("No debug information in t, a, c and 1 more, so"), "{note}");
    }
}
