//! What is missing from a trace, in words.

use mtr_format::tail;

use crate::output::number::{counted, thousands};
use crate::read::{Damage, Log};

/// One sentence for each kind of thing that is missing.
pub fn of(log: &Log) -> Vec<String> {
    let (mut notes, damage) = (Vec::new(), &log.damage);
    // A log has neither.
    let is_of_trace =
        damage.missing + damage.damaged > 0 || damage.chunk_cut || damage.tail_missing;
    if !log.is_compact && is_of_trace {
        notes.push(
            "This log was made from a compact trace, which was not whole. That is what is meant by the \
             trace, its chunks and its tail."
                .into(),
        );
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
    if damage.torn > 0 {
        notes.push(format!(
            "{} only in part and not counted.",
            counted(damage.torn, "line was stored", "lines were stored"),
        ));
    }
    cuts(damage, &mut notes);
    if damage.damaged > 0 {
        notes.push(format!(
            "{} of the trace {} damaged: about {} cannot be read.",
            counted(damage.damaged, "chunk", "chunks"),
            if damage.damaged == 1 { "is" } else { "are" },
            counted(damage.damaged_bytes, "byte", "bytes"),
        ));
    }
    if damage.meaningless > 0 {
        notes.push(format!(
            "{} nothing: what they refer to is missing, or they are damaged.",
            counted(damage.meaningless, "record means", "records mean"),
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

/// Where the end of the trace is not there.
fn cuts(damage: &Damage, notes: &mut Vec<String>) {
    match damage.short {
        Some((there, whole)) => notes.push(format!(
            "The trace is cut off: {} of {} are there.",
            thousands(there),
            counted(whole, "byte", "bytes"),
        )),
        None if damage.chunk_cut => {
            notes.push("The trace is cut off inside of a chunk.".into());
        }
        None => {}
    }
    if damage.cut {
        notes.push("The last line is truncated and not counted.".into());
    }
    if damage.tail_missing {
        notes.push(
            "The tail of the trace is missing (the file of its name with .tail behind it): the \
             process did not write out the last of its records, so what is counted is too little."
                .into(),
        );
    }
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
