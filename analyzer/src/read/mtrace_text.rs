//! Lines of an mtrace log -> events and call sites.

use std::path::Path;

use mtr_format::text::decode::{Line, Op, begins_line};
use mtr_format::text::meta::Meta;

use super::damage::{BadLine, Damage};
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

/// A line of a log that has been taken in.
#[derive(Debug, Clone, Copy)]
pub struct Taken<'a> {
    /// What is there of it.
    pub bytes: &'a [u8],
    /// It is a line, and not what is left of one.
    pub is_line: bool,
    /// Something was missing in front of it or of it.
    pub has_gap: bool,
    /// What happened.
    pub event: Option<Event>,
    /// What is missing so far.
    pub damage: &'a Damage,
}

/// Reads a log from `input`; `path` is for messages.
pub fn read_from(
    input: impl Holed,
    path: &Path,
    chunk: usize,
    holes: Holes,
    mut each: impl FnMut(Event),
) -> Result<Log, Error> {
    read_lines(input, path, chunk, holes, |taken| {
        if let Some(event) = taken.event {
            each(event);
        }
        Ok::<(), Error>(())
    })
}

/// As [`read_from`], line by line. Stops at the first error of `each`.
pub fn read_lines<E: From<Error>>(
    input: impl Holed,
    path: &Path,
    chunk: usize,
    holes: Holes,
    mut each: impl FnMut(Taken<'_>) -> Result<(), E>,
) -> Result<Log, E> {
    enum Stop<E> {
        AtHole { line: u64 },
        Io(std::io::Error),
        NewerVersion { line: u64, found: u64 },
        Other(E),
    }
    impl<E> From<std::io::Error> for Stop<E> {
        fn from(error: std::io::Error) -> Stop<E> {
            Stop::Io(error)
        }
    }

    let mut log = Log::default();
    let mut interner = Interner::default();
    let lines = lines::split(input, chunk, |raw| {
        let RawLine { bytes, number, at, gap, complete } = raw;
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
            log.damage.add_hole(gap.bytes, (number, gap.at));
        }
        let mut is_line = true;
        let parsed = match gap {
            // Nobody knows how much of it is missing.
            _ if !complete => {
                // Of a line that its process was storing when it died the beginning is not there yet.
                let is_cut = !gap.seen || begins_line(bytes);
                log.damage.cut |= is_cut;
                log.damage.torn += u64::from(!is_cut && !is_hole);
                is_line = false;
                Line::Blank
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
                is_line = !rest && !matches!(parsed, Line::Unpublished { .. });
                if rest { Line::Blank } else { parsed }
            }
        };
        let mut event = None;
        match parsed {
            Line::Record { place, op } => {
                let site = interner.site(place, op);
                log.records += 1;
                log.record_bytes += bytes.len() as u64 + 1;
                event = Some(Event::Record { op, site, thread: 0, line: number, by: By::Unknown });
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
                event = Some(Event::Unpublished { ptr, call });
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
                log.state(meta, (number, at));
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
        let has_gap = gap.seen || !complete;
        each(Taken { bytes, is_line, has_gap, event, damage: &log.damage }).map_err(Stop::Other)
    });
    log.lines = match lines {
        Ok(lines) => lines,
        Err(Stop::AtHole { line }) => line - 1,
        Err(Stop::Io(source)) => {
            return Err(Error::Read { path: path.into(), position: 0, source }.into());
        }
        Err(Stop::NewerVersion { line, found }) => {
            let (path, line) = (path.into(), Some(line));
            return Err(Error::NewerVersion { path, line, found, newest: NEWEST }.into());
        }
        Err(Stop::Other(error)) => return Err(error),
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
