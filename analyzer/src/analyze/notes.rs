//! What the reader of a report has to know about its trace.

use super::Blind;
use super::faults::{Verdict, double_frees};
use crate::output::number::counted;
use crate::profile::Ending;
use crate::read::Log;
use crate::replay::Outcome;

/// One sentence for each thing that is missing, odd or not what it seems.
pub(super) fn of(
    log: &Log,
    outcome: &Outcome,
    verdict: &Verdict,
    blind: Blind,
    ending: Ending,
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
        notes.push("The trace holds no records.".into());
    }
    match ending {
        Ending::Killed => notes.push(
            "The program did not end normally (killed, _exit or exec); what is counted as in use \
             was so at its last record."
                .into(),
        ),
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
    if totals.unknown_frees > 0 {
        let blocks = counted(totals.unknown_frees, "block", "blocks");
        let were = if totals.unknown_frees == 1 { "was" } else { "were" };
        match blind {
            Blind::Never => {}
            Blind::BeforeFork => {
                notes.push(format!("{blocks} inherited from the parent process {were} freed."));
            }
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
        let reason = std::io::Error::from_raw_os_error(damage.lost_errno);
        notes.push(format!(
            "{} could not be written: {reason}.",
            counted(damage.lost, "record", "records"),
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
