//! Lines of an mtrace log -> events and call sites.

use std::path::Path;

use mtr_format::text::decode::{Line, Op};
use mtr_format::text::meta::Meta;

use super::damage::BadLine;
use super::intern::Interner;
use super::lines::{self, Gap, Holed, RawLine};
use super::trace::{By, Event, Holes, Log, OpenCall};
use super::{Addressing, CallSites};
use crate::error::Error;

/// Newest version of our logs that is understood.
const NEWEST: u64 = 1;

/// More NULs in one place than the lines that threads had in hand when the process ended: this much was
/// cut off by somebody, or could not be written.
const HOLE: u64 = 4096;

/// Reads a log from `input`; `path` is for messages.
pub fn read_from(
    input: impl Holed,
    path: &Path,
    chunk: usize,
    holes: Holes,
    mut each: impl FnMut(Event),
) -> Result<Log, Error> {
    enum Stop {
        AtHole { line: u64 },
        Io(std::io::Error),
        NewerVersion { line: u64, found: u64 },
    }
    impl From<std::io::Error> for Stop {
        fn from(error: std::io::Error) -> Stop {
            Stop::Io(error)
        }
    }

    let mut log = Log::default();
    let mut interner = Interner::default();
    let lines = lines::split(input, chunk, |raw| {
        let RawLine { bytes, number, gap, complete } = raw;
        let is_hole = gap.bytes >= HOLE;
        if let Holes::AreTheEnd { from } = holes {
            let is_loss = is_hole && gap.at + gap.bytes <= from;
            if gap.seen && !is_loss {
                return Err(Stop::AtHole { line: number });
            }
            if !complete {
                return Ok(());
            }
        }
        if is_hole {
            log.damage.holes += 1;
            log.damage.hole_bytes += gap.bytes;
            log.damage.first_hole.get_or_insert((number, gap.at));
        }
        let parsed = match gap {
            // Nobody knows how much of it is missing.
            _ if !complete => {
                log.damage.cut = true;
                return Ok(());
            }
            Gap { seen: false, .. } => Line::parse(bytes),
            Gap { torn, .. } => {
                let parsed = Line::parse_after_gap(bytes);
                // Somebody truncated the log while it was written: its front is gone.
                let is_front = matches!(parsed, Line::Meta(Meta::Version(_)));
                let torn = torn || number == 1 && !is_front;
                // A rest that is no line by itself is what a gap left of one.
                let rest = matches!(parsed, Line::Malformed { .. });
                log.damage.torn += u64::from((torn || rest) && !is_hole);
                if rest { Line::Blank } else { parsed }
            }
        };
        match parsed {
            Line::Record { place, op } => {
                let site = interner.site(place, op);
                log.records += 1;
                log.record_bytes += bytes.len() as u64 + 1;
                each(Event::Record { op, site, thread: 0, line: number, by: By::Unknown });
            }
            Line::Unpublished { ptr, is_realloc, place } => {
                // What is left of a line that was cut off says the same of its block, but it may have
                // been whole.
                let is_open = !gap.torn && !is_hole;
                let op = if is_realloc { Op::ReallocFrom { ptr } } else { Op::Free { ptr } };
                let call = is_open.then(|| OpenCall {
                    is_realloc,
                    site: interner.site_of_rest(place, op),
                    line: number,
                });
                each(Event::Unpublished { ptr, call });
            }
            Line::Blank => {}
            Line::Start => log.switch(true),
            Line::End => log.switch(false),
            Line::Meta(meta) => {
                if let Meta::Version(found) = meta
                    && found > NEWEST
                {
                    return Err(Stop::NewerVersion { line: number, found });
                }
                match meta {
                    Meta::Module { .. } | Meta::Unload { .. } => interner.module(meta),
                    Meta::Version(_) => interner.state_ours(Addressing::Absolute),
                    Meta::RelativeAddresses(true) => interner.state_ours(Addressing::Relative),
                    _ => {}
                }
                log.state(meta);
            }
            Line::Malformed { expected, column } => {
                log.damage.malformed += 1;
                log.damage.first_malformed.get_or_insert_with(|| BadLine {
                    line: number,
                    column: column + 1,
                    expected,
                    text: shown(bytes),
                });
            }
        }
        Ok(())
    });
    log.lines = match lines {
        Ok(lines) => lines,
        Err(Stop::AtHole { line }) => line - 1,
        Err(Stop::Io(source)) => {
            return Err(Error::Read { path: path.into(), position: 0, source });
        }
        Err(Stop::NewerVersion { line, found }) => {
            let (path, line) = (path.into(), Some(line));
            return Err(Error::NewerVersion { path, line, found, newest: NEWEST });
        }
    };
    log.sites = CallSites {
        program: log.header.program.clone(),
        directory: log.header.directory.clone(),
        ..interner.finish()
    };
    Ok(log)
}

/// A line as a message can show it.
fn shown(line: &[u8]) -> String {
    const MOST: usize = 60;
    let cut = line.get(..MOST).unwrap_or(line);
    let dots = if cut.len() < line.len() { "..." } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

#[cfg(test)]
mod tests;
