//! The lines that say what a log is (docs/log-format.md).

use core::sync::atomic::{AtomicU64, Ordering};

use mtr_format::compact::op::FIRST_LINE;

use super::closed::{self, Closed};
use super::process::Process;
use super::{earlier, file, id, ring};
use crate::global::{Path, Scratch, Text};
use crate::record::compact;
use crate::sys::{self, Result};
use crate::{config, operators};

/// Where a fork's child comes from.
pub(crate) struct Parent<'a> {
    pub(crate) pid: i32,
    /// It had other threads at the fork.
    pub(crate) had_threads: bool,
    /// Length of its log at the fork.
    pub(crate) position: Option<u64>,
    /// Its log.
    pub(crate) path: &'a Path,
}

const NANOSECONDS: u64 = 1_000_000_000;

/// When the log began, in nanoseconds since 1970.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// When the log began, in nanoseconds since 1970.
pub(crate) fn started() -> u64 {
    STARTED.load(Ordering::Relaxed)
}

/// What a new log begins with in its file before it has its name: the lines that tell whose it is.
/// The log begins now.
pub(super) fn first_bytes<const N: usize>(this: Process, id: u64, out: &mut Text<N>) {
    let (seconds, nanoseconds) = sys::wall_clock();
    STARTED.store(seconds * NANOSECONDS + nanoseconds, Ordering::Relaxed);
    let Some(mut text) = Scratch::<512>::new() else { return };
    whose(this, id, &mut text);
    push_as_stored(id, text.as_bytes(), out);
}

/// Appends lines as the file holds them.
fn push_as_stored<const N: usize>(id: u64, lines: &[u8], out: &mut Text<N>) {
    if config::get().is_compact {
        compact::push_first_chunk(id, lines, out);
    } else {
        out.push(lines);
    }
}

/// The lines that tell whose log it is.
fn whose<const N: usize>(this: Process, id: u64, text: &mut Text<N>) {
    let config = config::get();
    text.push(if config.is_compact { FIRST_LINE } else { b"# mtr log 1\n" });
    text.push(b"# id ");
    text.push_hex(id, 16);
    text.push(b"\n# session ");
    text.push_hex(config.session, 16);
    text.push(b"\n# pid ");
    text.push_decimal(this.pid as u64);
    text.push(b"\n# started ");
    text.push_decimal(started() / NANOSECONDS);
    text.push(b".");
    let nanoseconds = started() % NANOSECONDS;
    let digits = nanoseconds.max(1).ilog10() + 1;
    (digits..9).for_each(|_| text.push(b"0"));
    text.push_decimal(nanoseconds);
    text.push(b" ");
    text.push_decimal(this.ticks);
    text.push(b"\n");
}

/// The lines that tell what it is a log of.
fn of_what<const N: usize>(
    by_mtrace: bool,
    parent: Option<Parent<'_>>,
    text: &mut Text<N>,
) -> Option<()> {
    let config = config::get();
    let mut buffer = Scratch::<{ libc::PATH_MAX as usize }>::new()?;
    if let Ok(program) = sys::readlink(c"/proc/self/exe", buffer.space()) {
        text.push(b"# program ");
        text.push_escaped(program);
        text.push(b"\n");
    }
    if let Ok(arguments) = sys::read_file(c"/proc/self/cmdline", buffer.space()) {
        text.push(b"# arguments");
        let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
        for argument in arguments.split(|byte| *byte == 0) {
            text.push(b" ");
            text.push_escaped(argument);
        }
        text.push(b"\n");
    }
    text.push(b"# directory ");
    match sys::getcwd(buffer.space()) {
        Ok(folder) => text.push_escaped(folder),
        Err(_) => text.push_escaped(config.directory.as_bytes()),
    }
    text.push(b"\n# addresses ");
    text.push(if config.relative_addresses { b"relative" } else { b"absolute" });
    text.push(b"\n# start ");
    text.push(if by_mtrace { b"mtrace" } else { b"process" });
    if config.is_compact && config.caller_only {
        text.push(b"\n# stacks caller");
    }
    if !file::is_tail_file() {
        text.push(b"\n# unsaved all");
    }
    if let Some(module) = operators::malloc_before_us() {
        text.push(b"\n# preceded ");
        text.push_escaped(module.name());
    }
    if operators::are_standard() {
        text.push(b"\n# operators standard");
    }
    if let Some(parent) = parent {
        text.push(b"\n# parent ");
        text.push_decimal(parent.pid as u64);
        text.push(b" ");
        match parent.position {
            None => text.push(b"-"),
            Some(position) => text.push_decimal(position),
        }
        text.push(b" ");
        text.push_escaped(parent.path.as_bytes());
        if parent.had_threads {
            text.push(b"\n# forked beside threads");
        }
    } else if !earlier().as_bytes().is_empty() {
        text.push(b"\n# earlier ");
        text.push_escaped(earlier().as_bytes());
    }
    text.push(b"\n");
    Some(())
}

/// Writes the first lines of the log, into the file as well: a reader finds them there from the
/// start.
pub(crate) fn write_header(
    this: Process,
    by_mtrace: bool,
    parent: Option<Parent<'_>>,
) -> Result<()> {
    let no_memory = Err(libc::ENOMEM);
    let Some(mut whose_lines) = Scratch::<512>::new() else { return no_memory };
    let Some(mut other_lines) = Scratch::<32768>::new() else { return no_memory };
    whose(this, id(), &mut whose_lines);
    of_what(by_mtrace, parent, &mut other_lines).ok_or(libc::ENOMEM)?;
    let mut line = Text::<192>::EMPTY;
    file::push_lost_line(0, 0, 0, &mut line);
    line.push(file::OPEN);
    if config::get().is_compact {
        compact::text(&[whose_lines.as_bytes()]);
        let lost_len = line.as_bytes().len() as u64;
        closed::push_line(&Closed::default(), &mut line);
        // A record of its own, so that its place is known.
        let lost_at = compact::text_in_front(line.as_bytes());
        closed::open(if lost_at == 0 { 0 } else { lost_at + lost_len });
        compact::text(&[other_lines.as_bytes()]);
        let mut written = Err(libc::ENOMEM);
        compact::with_front(|bytes| written = file::write_header(bytes, lost_at));
        return written;
    }
    let lost_at = whose_lines.as_bytes().len() as u64;
    whose_lines.push(line.as_bytes());
    let Some(mut bytes) = Scratch::<40960>::new() else { return no_memory };
    for lines in [whose_lines.as_bytes(), other_lines.as_bytes()] {
        bytes.push(lines);
        ring::put(ring::reserve(lines.len()), &[lines]);
    }
    file::write_header(bytes.as_bytes(), lost_at)
}
