//! What the reader of a report has to know about its trace.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use mtr_format::tail;

use super::Blind;
use crate::output::number::counted;
use crate::profile::Ending;
use crate::read::{Damage, Log};
use crate::replay::{FaultKind, Outcome};

/// Frees of blocks that had been freed before, as far as the trace shows.
pub(super) fn double_frees(outcome: &Outcome) -> u64 {
    let faults = outcome.faults.iter().filter(|fault| fault.kind == FaultKind::DoubleFree);
    faults.map(|fault| fault.count).sum()
}

/// One sentence for each thing that is missing, odd or not what it seems.
pub(super) fn of(
    log: &Log,
    outcome: &Outcome,
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
    } else if log.records == 0 {
        let own = " It may have a malloc of its own linked into it, which cannot be traced.";
        let own = if damage.lost == 0 && log.header.version.is_some() { own } else { "" };
        notes.push(format!("The trace holds no records.{own}"));
    }
    match ending {
        Ending::Killed => {
            let how = match status.and_then(|status| status.signal()) {
                Some(signal) => format!("The program was ended by signal {signal}"),
                None => "The program ended by a signal, by _exit or by exec".into(),
            };
            notes.push(format!("{how}; what is counted as in use was so at its last record."));
        }
        Ending::Running => {
            notes.push("The program is running; it may free all of this yet.".into())
        }
        Ending::Exited | Ending::Unknown => {}
    }
    if totals.failed > 0 {
        notes.push(format!(
            "{} of {} failed; they are not counted as allocations.",
            counted(totals.failed, "call", "calls"),
            counted(totals.failed_bytes, "byte", "bytes"),
        ));
    }
    if totals.inherited_frees > 0 {
        notes.push(inherited(totals.inherited_frees));
    }
    if totals.unknown_frees > 0 {
        let blocks = counted(totals.unknown_frees, "block", "blocks");
        let were = if totals.unknown_frees == 1 { "was" } else { "were" };
        match blind {
            Blind::Never => {}
            Blind::BeforeFork => notes.push(inherited(totals.unknown_frees)),
            Blind::BeforeStart => notes.push(format!(
                "{blocks} allocated before tracing began (or while it was off) {were} freed."
            )),
            Blind::Lost => notes.push(format!(
                "{blocks} {were} freed whose allocations the trace does not show; they may be among \
                 what was lost."
            )),
        }
    }
    let again = double_frees(outcome);
    if again > 0 && damage.lost + damage.malformed >= again {
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
    if damage.torn > 0 {
        notes.push(format!(
            "{} only in part and not counted.",
            match log.is_compact {
                true => counted(damage.torn, "record was stored", "records were stored"),
                false => counted(damage.torn, "line was stored", "lines were stored"),
            },
        ));
    }
    if damage.cut {
        let what = if log.is_compact { "record" } else { "line" };
        notes.push(format!("The last {what} is truncated and not counted."));
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
    notes
}

fn inherited(frees: u64) -> String {
    let were = if frees == 1 { "was" } else { "were" };
    format!("{} inherited from the parent process {were} freed.", counted(frees, "block", "blocks"))
}

/// What was not recorded, since when and why.
fn loss(damage: &Damage) -> String {
    let records = counted(damage.lost, "record", "records");
    let are = if damage.lost == 1 { "is" } else { "are" };
    let since = damage.lost_since.map(|since| {
        format!(
            " from {}.{:03} s after the start on",
            since / NANOSECONDS,
            since / 1_000_000 % 1000
        )
    });
    let since = since.unwrap_or_default();
    match damage.lost_errno {
        tail::AT_MAX_SIZE => format!(
            "{records} {are} missing{since}: the trace had reached the size of --max-trace-size \
             (MTR_MAX_TRACE_SIZE). What is counted is what came before."
        ),
        tail::DISK_NEARLY_FULL => format!(
            "{records} {are} missing{since}: the disk was nearly full. What is counted is what came \
             before. --keep-free=0 (MTR_KEEP_FREE) goes on until it is full."
        ),
        errno => {
            let reason = std::io::Error::from_raw_os_error(errno);
            format!("{records} could not be written{since}: {reason}.")
        }
    }
}

const NANOSECONDS: u64 = 1_000_000_000;
