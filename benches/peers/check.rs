//! Is a trace that was timed complete and in order?

use std::path::Path;
use std::process::Output;

use crate::Figures;
use crate::support::*;
use crate::timing::Cost;
use crate::tracer::Tracer;
use crate::workload::{Shape, Workload};

/// Allocations and frees in one of our own traces.
pub(crate) fn counted(tracer: Tracer, log: &Path) -> (u64, u64) {
    if tracer == Tracer::Compact {
        let count = check_trace_order(log);
        (count.allocations, count.frees)
    } else {
        let count = check_order(log, "");
        (count.allocations, count.frees)
    }
}

/// As many events as the program says.
pub(crate) fn compare(
    workload: &Workload,
    cost: &Cost,
    around: (u64, u64),
    found: (u64, u64),
) -> Result<(), String> {
    match workload.shape {
        Shape::Loop { .. } => {
            let expected = (cost.allocations + around.0, cost.allocations + around.1);
            if found != expected {
                return Err(format!("{found:?} allocations and frees, {expected:?} were made"));
            }
        }
        // Beside its rounds the interpreter starts and ends.
        Shape::Python { .. } => {
            let events = (found.0 + found.1) as f64;
            if events < cost.events || events > cost.events * 1.1 + 500_000.0 {
                return Err(format!("{events} events, {} in the rounds alone", cost.events));
            }
        }
        // Ten blocks and the thread's own.
        Shape::Threads => {
            let least = 10 * cost.events as u64;
            if found.0 < least || found.1 < least {
                return Err(format!("{found:?} allocations and frees, {least} by threads"));
            }
        }
        Shape::Start => {}
    }
    Ok(())
}

pub(crate) fn check_compact(
    workload: &Workload,
    cost: &Cost,
    around: (u64, u64),
    log: &Path,
    figures: &mut Figures,
) -> Result<(), String> {
    let count = check_trace_order(log);
    compare(workload, cost, around, (count.allocations, count.frees))?;
    let wrong = (count.duplicates, count.unknown_frees, count.damaged);
    if wrong != (0, 0, 0) {
        return Err(format!("{wrong:?} duplicates, unknown frees, damaged: {:#?}", count.examples));
    }
    if count.allocations > 0 && !workload.depth.contains(&count.depth()) {
        return Err(format!("{:.1} frames, not {:?}", count.depth(), workload.depth));
    }
    let events = (count.allocations + count.frees) as f64;
    figures.bytes_per_event = if events > 0.0 { count.length as f64 / events } else { f64::NAN };
    Ok(())
}

pub(crate) fn check_text(
    workload: &Workload,
    cost: &Cost,
    around: (u64, u64),
    log: &Path,
) -> Result<(), String> {
    let count = check_order(log, "");
    compare(workload, cost, around, (count.allocations, count.frees))?;
    let wrong = (count.duplicates, count.unknown_frees, count.damaged);
    match wrong {
        (0, 0, 0) => Ok(()),
        _ => Err(format!("{wrong:?} duplicates, unknown frees, damaged: {:#?}", count.examples)),
    }
}

/// A peer has seen the allocations of the workload at least.
pub(crate) fn check_peer(
    tracer: Tracer,
    cost: &Cost,
    log: &Path,
    output: &Output,
) -> Result<(), String> {
    let read = || std::fs::read(log).map_err(|e| format!("{}: {e}", log.display()));
    let lines_with = |is_wanted: fn(&[u8]) -> bool| -> Result<u64, String> {
        Ok(read()?.split(|b| *b == b'\n').filter(|line| is_wanted(line)).count() as u64)
    };
    let number_behind = |text: &[u8], title: &str| {
        let text = String::from_utf8_lossy(text).into_owned();
        let mut words = text.split(title).nth(1).unwrap_or_default().split_whitespace();
        words.next().and_then(|word| word.replace(',', "").parse().ok()).unwrap_or(0)
    };
    let found = match tracer {
        Tracer::Mtrace => lines_with(|line| line.windows(3).any(|w| w == b" + "))?,
        Tracer::Heaptrack => lines_with(|line| line.starts_with(b"+"))?,
        Tracer::HeaptrackFull => {
            // It adds the name of its compression.
            let _ = std::fs::remove_file(log.with_extension("zst"));
            let _ = std::fs::remove_file(log.with_extension("gz"));
            let text = [&*output.stdout, &*output.stderr].concat();
            number_behind(&text, "\tallocations:")
        }
        Tracer::Memcheck => number_behind(&read()?, "total heap usage: "),
        _ => unreachable!("{tracer:?} is no peer"),
    };
    if found < cost.allocations {
        return Err(format!("{found} allocations, {} were made", cost.allocations));
    }
    Ok(())
}
