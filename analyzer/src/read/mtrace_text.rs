//! Lines of an mtrace log -> events and call sites.

use std::io::Read;
use std::path::Path;

use mtr_format::text::decode::Line;
use mtr_format::text::meta::Meta;

use super::intern::Interner;
use super::lines::{self, RawLine};
use super::trace::{BadLine, By, Event, Holes, Log};
use super::{Addressing, CallSites};
use crate::error::Error;

/// Newest version of our logs that is understood.
const NEWEST: u64 = 1;

/// Reads a log from `input`; `path` is for messages.
pub fn read_from(
    input: impl Read,
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
        let parsed = match raw {
            RawLine { after_gap: true, number, .. } if holes == Holes::AreTheEnd => {
                return Err(Stop::AtHole { line: number });
            }
            RawLine { complete: false, .. } if holes == Holes::AreTheEnd => return Ok(()),
            // Nobody knows how much of it is missing.
            RawLine { complete: false, .. } => {
                log.damage.cut = true;
                return Ok(());
            }
            RawLine { bytes, after_gap: false, .. } => Line::parse(bytes),
            RawLine { bytes, torn, .. } => {
                let parsed = Line::parse_after_gap(bytes);
                // Somebody truncated the log while it was written: its front is gone.
                let is_front = matches!(parsed, Line::Meta(Meta::Version(_)));
                let torn = torn || raw.number == 1 && !is_front;
                // A rest that is no line by itself is what a gap left of one.
                let rest = matches!(parsed, Line::Malformed { .. });
                log.damage.torn += u64::from(torn || rest);
                if rest { Line::Blank } else { parsed }
            }
        };
        match parsed {
            Line::Record { place, op } => {
                let site = interner.site(place, op);
                log.records += 1;
                each(Event::Record { op, site, thread: 0, line: raw.number, by: By::Unknown });
            }
            Line::Unpublished { ptr } => each(Event::Unpublished { ptr }),
            Line::Blank => {}
            Line::Start => log.switch(true),
            Line::End => log.switch(false),
            Line::Meta(meta) => {
                if let Meta::Version(found) = meta
                    && found > NEWEST
                {
                    return Err(Stop::NewerVersion { line: raw.number, found });
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
                    line: raw.number,
                    column: column + 1,
                    expected,
                    text: shown(raw.bytes),
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
            return Err(Error::NewerVersion { path: path.into(), line, found, newest: NEWEST });
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
