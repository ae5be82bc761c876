//! What the reader of a report has to know about its trace.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use mtr_format::tail;

use super::Blind;
use super::faults::{Verdict, double_frees};
use crate::output::number::{counted, thousands};
use crate::output::signal::signal;
use crate::profile::Ending;
use crate::read::{Damage, Link, Log};
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
    if totals.late_frees > 0 {
        notes.push(format!(
            "{} behind the reuse of the block, as glibc writes them when threads race; they were \
             matched.",
            counted(totals.late_frees, "free stood", "frees stood"),
        ));
    }
    if damage.lost > 0 {
        notes.push(loss(damage));
    }
    if damage.missing > 0 {
        notes.push(format!(
            "{} of the trace {} missing{}: {CHANGED}.",
            counted(damage.missing, "chunk", "chunks"),
            if damage.missing == 1 { "is" } else { "are" },
            since(damage.missing_since),
        ));
    }
    if let Some((line, position)) = damage.first_hole {
        notes.extend(hole(log, line, position));
    }
    match damage.unsaved {
        0 => {}
        u64::MAX => notes.push(
            "What was recorded last is missing, up to 32 KiB of each thread: there was no room for it \
             in a file beside the trace."
                .into(),
        ),
        streams => notes.push(format!(
            "What {} recorded last is missing, up to 32 KiB of each: there was no room for it in the \
             file beside the trace.",
            counted(streams, "thread", "threads"),
        )),
    }
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
    if damage.torn > 0 {
        notes.push(format!(
            "{} only in part and not counted.",
            match log.is_compact {
                true => counted(damage.torn, "record was stored", "records were stored"),
                false => counted(damage.torn, "line was stored", "lines were stored"),
            },
        ));
    }
    cuts(log, &mut notes);
    if damage.damaged > 0 {
        notes.push(format!(
            "{} of the trace {} damaged: about {} cannot be read.",
            counted(damage.damaged, "chunk", "chunks"),
            if damage.damaged == 1 { "is" } else { "are" },
            counted(damage.damaged_bytes, "byte", "bytes"),
        ));
    }
    if log.is_compact && damage.malformed > 0 {
        notes.push(format!(
            "{} nothing: what they refer to is missing, or they are damaged.",
            counted(damage.malformed, "record means", "records mean"),
        ));
    }
    if let Some(bad) = &damage.first_malformed {
        notes.push(format!(
            "{} and not counted; the first is line {}: expected {} in column {}, got \"{}\".",
            counted(damage.malformed, "line could not be read", "lines could not be read"),
            bad.line,
            bad.expected,
            bad.column,
            bad.text,
        ));
    }
    if let Some(reason) = &damage.tail_ignored {
        notes.push(format!("The tail beside the trace was not used: {reason}."));
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

/// Where the end of the trace is not there.
fn cuts(log: &Log, notes: &mut Vec<String>) {
    let damage = &log.damage;
    match damage.short {
        Some((there, whole)) => notes.push(format!(
            "The trace is cut off: {} of {} are there.",
            thousands(there),
            counted(whole, "byte", "bytes"),
        )),
        None if damage.cut && log.is_compact => {
            notes.push("The trace is cut off inside of a chunk.".into());
        }
        None if damage.cut => notes.push("The last line is truncated and not counted.".into()),
        None => {}
    }
    if damage.tail_missing {
        notes.push(
            "The tail of the trace is missing (the file of its name with .tail behind it): the \
             process did not write out the last of its records, so what is counted is too little."
                .into(),
        );
    }
}

/// Why there may be none, the likeliest first, as far as the trace tells.
fn no_records(log: &Log, ending: Ending) -> String {
    if log.damage.hides_records() || log.damage.cut {
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

/// From when on something is missing; nothing is said of what was from the beginning on.
fn since(nanoseconds: Option<u64>) -> String {
    nanoseconds.filter(|time| *time > 0).map_or(String::new(), |since| {
        let (seconds, rest) = (since / NANOSECONDS, since / 1_000_000 % 1000);
        format!(" from {seconds}.{rest:03} s after the start on")
    })
}

/// Why a part in the middle is missing.
const CHANGED: &str = "somebody changed the file, or it could not be written";

/// A part of a log that is missing; the first such is in this line, at this position. `None` where the
/// records that could not be written, which are counted, were so long.
fn hole(log: &Log, line: u64, position: u64) -> Option<String> {
    let Damage { holes, hole_bytes, lost, .. } = log.damage;
    let place = match line {
        1 => "from its beginning on".into(),
        _ => format!("behind line {} (byte {})", thousands(line - 1), thousands(position)),
    };
    let place = match holes {
        1 => place,
        holes => format!("in {} places, the first {place}", thousands(holes)),
    };
    // By the length of the others.
    let records = u128::from(hole_bytes) * u128::from(log.records);
    let records = records.checked_div(log.record_bytes.into()).unwrap_or(0) as u64;
    let records = match lost {
        0 if records > 0 => {
            format!(", some {} records by the length of the others", thousands(rounded(records)))
        }
        0 => String::new(),
        _ if lost >= records / 4 * 3 => return None,
        _ => String::new(),
    };
    Some(format!(
        "{} of the trace are missing {place}{records}: {CHANGED}.",
        counted(hole_bytes, "byte", "bytes")
    ))
}

/// A number of which only the first two digits are known.
fn rounded(number: u64) -> u64 {
    let unit = 10u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    (number + unit / 2) / unit * unit
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

/// What was not recorded, since when and why.
fn loss(damage: &Damage) -> String {
    let records = counted(damage.lost, "record", "records");
    let are = if damage.lost == 1 { "is" } else { "are" };
    let since = since(damage.lost_since);
    match damage.lost_errno {
        tail::AT_MAX_SIZE => format!(
            "{records} {are} missing{since}: the trace had reached the size of --max-trace-size \
             (MTR_MAX_TRACE_SIZE). What is counted is what came before."
        ),
        tail::DISK_NEARLY_FULL => format!(
            "{records} {are} missing{since}: the disk was nearly full. What is counted is what came \
             before. --keep-free=0 (MTR_KEEP_FREE) goes on until it is full."
        ),
        0 => format!("{records} could not be written{since}."),
        errno => {
            let reason = std::io::Error::from_raw_os_error(errno);
            format!("{records} could not be written{since}: {reason}.")
        }
    }
}

const NANOSECONDS: u64 = 1_000_000_000;
