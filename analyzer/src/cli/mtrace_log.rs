//! `--format mtrace-log`: a compact trace as a log (docs/log-format.md), which glibc's script and
//! everything else that knows mtrace reads. Of each call stack one call is left.

mod said; // what is missing from the trace, in lines of the log

use std::io::{self, Write};
use std::path::Path;

use clap::ValueEnum;
use mtr_format::text::decode::{Line, Op};
use mtr_format::text::encode::{self, MAX_OP_TEXT, op_text};
use mtr_format::text::escape::{MAX_ESCAPED, escape};
use mtr_format::text::meta::Meta;

use super::mtrace::Stop;
use crate::profile::is_runtime_module;
use crate::read::compact::{Item, Stacks, read_items};
use crate::read::lines::CHUNK;
use crate::read::mtrace_text::read_lines;
use crate::read::{Damage, Event, Log, Opened, StackId};

/// Whose call each record names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Caller {
    /// The caller of malloc or free
    #[default]
    Direct,
    /// The first frame outside libc, libstdc++, libgcc and the like
    User,
}

/// Writes the trace at `path` as a log. One that is a log already stays as it is. What is missing is
/// said in the log, so that reading it says the same as what is returned here.
pub fn convert(path: &Path, caller: Caller, out: &mut impl Write) -> Result<Log, Stop> {
    let trace = Opened::open(path).map_err(Stop::Log)?;
    let Some(chunks) = trace.chunks() else { return copy(trace, path, out) };
    let (line, told, has_begun) = (Vec::new(), Damage::default(), false);
    // The line that says so in the trace may be among what is missing.
    writeln!(out, "# mtr log 1").map_err(Stop::Out)?;
    let mut writer = Writer { out, line, told, has_begun, caller };
    let mut log = read_items(chunks, path, |item, stacks| {
        match item {
            Item::Event(event) => writer.event(event, stacks),
            Item::Line(line) => writer.line(line),
            Item::Gap(damage) => said::say(damage, &mut writer.told, writer.out),
        }
        .map_err(Stop::Out)
    })?;
    trace.complete(&mut log);
    let told = writer.told;
    end(&log, told, out).map_err(Stop::Out)?;
    Ok(log)
}

/// Lines as they are, without what the process never stored.
fn copy(mut trace: Opened, path: &Path, out: &mut impl Write) -> Result<Log, Stop> {
    let (holes, mut told) = (trace.holes(), Damage::default());
    let mut log = read_lines(trace.input(), path, CHUNK, holes, |taken| {
        let mut write = || {
            if taken.has_gap {
                said::say(taken.damage, &mut told, out)?;
            }
            if !taken.is_line {
                return Ok(());
            }
            if taken.bytes.starts_with(b"#") {
                told.state(Meta::parse(taken.bytes).unwrap_or(Meta::Unknown), (0, 0));
            }
            out.write_all(taken.bytes)?;
            out.write_all(b"\n")
        };
        write().map_err(Stop::Out)
    })?;
    trace.complete(&mut log);
    end(&log, told, out).map_err(Stop::Out)?;
    Ok(log)
}

/// What is known when all has been read.
fn end(log: &Log, mut told: Damage, out: &mut impl Write) -> io::Result<()> {
    said::say(&log.damage, &mut told, out)?;
    if log.is_compact && log.streams > 1 {
        writeln!(out, "# streams {}", log.streams)?;
    }
    if log.running {
        writeln!(out, "# running")?;
    }
    out.flush()
}

/// Where the log goes.
struct Writer<'a, W> {
    out: &'a mut W,
    /// The line that is being made.
    line: Vec<u8>,
    /// What the log says is missing.
    told: Damage,
    /// There was a record.
    has_begun: bool,
    caller: Caller,
}

impl<W: Write> Writer<'_, W> {
    /// A `#` or `=` line.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        // One that is damaged is counted, if it means something.
        let is_text = line.iter().all(|byte| *byte >= b' ');
        let meta = match Line::parse(line) {
            Line::Meta(meta) if is_text => meta,
            Line::Start | Line::End => Meta::Unknown,
            _ => return Ok(()),
        };
        match meta {
            // What is said of chunks and stacks means nothing in a log.
            Meta::TraceVersion(_) | Meta::Closed(_) | Meta::CallerOnly | Meta::Source(_) => {
                return Ok(());
            }
            // The first chunk has the number of the end. It is said where records are missing.
            Meta::Lost { records: 1.., .. } if !self.has_begun => return Ok(()),
            // Positions in the parent's log are other ones.
            Meta::Parent { pid, path, .. } => {
                write!(self.out, "# parent {pid} - ")?;
                self.out.write_all(path)?;
            }
            _ => self.out.write_all(line)?,
        }
        self.told.state(meta, (0, 0));
        self.out.write_all(b"\n")
    }

    fn event(&mut self, event: Event, stacks: &Stacks) -> io::Result<()> {
        let Event::Record { op, site, .. } = event else { return Ok(()) };
        let (op, ptr, size) = match op {
            Op::Alloc { ptr, size } => (encode::Op::Alloc, ptr, size),
            Op::Free { ptr } => (encode::Op::Free, ptr, 0),
            Op::ReallocFrom { ptr } => (encode::Op::ReallocOld, ptr, 0),
            Op::ReallocTo { ptr, size } => (encode::Op::ReallocNew, ptr, size),
            Op::ReallocFailed { ptr, size } => (encode::Op::ReallocFailed, ptr, size),
        };
        self.has_begun = true;
        self.line.clear();
        self.place(site, stacks);
        let mut text = [0; MAX_OP_TEXT];
        let length = op_text(op, ptr, size, &mut text);
        self.line.extend_from_slice(&text[..length]);
        self.out.write_all(&self.line)
    }

    /// `@ FILE:[0xADDR] `, or nothing where the trace does not say.
    fn place(&mut self, stack: StackId, stacks: &Stacks) {
        let mut calls = stacks.calls(stack);
        let Some(direct) = calls.next() else { return };
        let is_user = |(_, module): &(_, Option<&crate::read::Module>)| {
            !module.is_some_and(|module| is_runtime_module(&module.path))
        };
        let (site, module) = match self.caller {
            // All of it may be the runtime's own doing.
            Caller::User if !is_user(&direct) => calls.find(is_user).unwrap_or(direct),
            _ => direct,
        };
        self.line.extend_from_slice(b"@ ");
        if let Some(module) = module {
            let begin = self.line.len();
            self.line.resize(begin + module.name.len() * MAX_ESCAPED, 0);
            let length = escape(&module.name, &mut self.line[begin..]);
            self.line.truncate(begin + length);
            self.line.push(b':');
        }
        let mut digits = [0; 16];
        let length = encode::hex(site.address.unwrap_or(0), &mut digits);
        self.line.extend_from_slice(b"[0x");
        self.line.extend_from_slice(&digits[..length]);
        self.line.extend_from_slice(b"] ");
    }
}

#[cfg(test)]
mod tests;
