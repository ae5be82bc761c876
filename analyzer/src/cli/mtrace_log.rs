//! `--format mtrace-log`: a compact trace as a log (docs/log-format.md), which glibc's script and
//! everything else that knows mtrace reads. Of each call stack the innermost call is left.

use std::io::{self, Write};
use std::path::Path;

use mtr_format::text::decode::Op;
use mtr_format::text::encode::{self, MAX_OP_TEXT, op_text};
use mtr_format::text::escape::{MAX_ESCAPED, escape};
use mtr_format::text::meta::Meta;

use super::mtrace::Stop;
use crate::error::Error;
use crate::read::compact::{Item, Stacks, read_items};
use crate::read::lines::{self, CHUNK};
use crate::read::{Event, Opened, StackId};

/// Writes the trace at `path` as a log. One that is a log already stays as it is.
pub fn convert(path: &Path, out: &mut impl Write) -> Result<(), Stop> {
    let trace = Opened::open(path).map_err(Stop::Log)?;
    let Some(chunks) = trace.chunks() else { return copy(trace, path, out) };
    let mut writer = Writer { out, line: Vec::new() };
    let mut log = read_items(chunks, path, |item, stacks| match item {
        Item::Event(event) => writer.event(event, stacks).map_err(Stop::Out),
        Item::Line(line) => writer.line(line).map_err(Stop::Out),
    })?;
    let stated = log.damage.lost;
    trace.complete(&mut log);
    if log.damage.lost > stated {
        let (lost, errno) = (log.damage.lost, log.damage.lost_errno);
        writeln!(out, "# lost {lost} {errno}").map_err(Stop::Out)?;
    }
    out.flush().map_err(Stop::Out)
}

/// Lines as they are, without what the process never stored.
fn copy(mut trace: Opened, path: &Path, out: &mut impl Write) -> Result<(), Stop> {
    let unreadable = |source| Error::Read { path: path.into(), position: 0, source };
    let mut written = Ok(());
    let read = lines::split(trace.input(), CHUNK, |raw| {
        let is_rest = raw.gap.seen && !raw.bytes.first().is_some_and(|b| b"@#=+-<>!".contains(b));
        if raw.complete && !is_rest {
            written = out.write_all(raw.bytes).and_then(|()| out.write_all(b"\n"));
        }
        if written.is_err() { Err(io::Error::other("the output failed")) } else { Ok(()) }
    });
    written.map_err(Stop::Out)?;
    read.map_err(|source| Stop::Log(unreadable(source)))?;
    out.flush().map_err(Stop::Out)
}

/// Where the log goes.
struct Writer<'a, W> {
    out: &'a mut W,
    /// The line that is being made.
    line: Vec<u8>,
}

impl<W: Write> Writer<'_, W> {
    /// A `#` or `=` line.
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match Meta::parse(line) {
            Ok(Meta::TraceVersion(_)) => writeln!(self.out, "# mtr log 1"),
            // What is said of chunks and stacks means nothing in a log.
            Ok(Meta::Closed(_) | Meta::CallerOnly) => Ok(()),
            // Positions in the parent's log are other ones.
            Ok(Meta::Parent { pid, path, .. }) => {
                write!(self.out, "# parent {pid} - ")?;
                self.out.write_all(path)?;
                self.out.write_all(b"\n")
            }
            _ => {
                self.out.write_all(line)?;
                self.out.write_all(b"\n")
            }
        }
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
        self.line.clear();
        self.place(site, stacks);
        let mut text = [0; MAX_OP_TEXT];
        let length = op_text(op, ptr, size, &mut text);
        self.line.extend_from_slice(&text[..length]);
        self.out.write_all(&self.line)
    }

    /// `@ FILE:[0xADDR] `, or nothing where the trace does not say.
    fn place(&mut self, stack: StackId, stacks: &Stacks) {
        let Some((site, module)) = stacks.innermost(stack) else { return };
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
mod tests {
    use hashbrown::HashMap;
    use mtr_format::compact::op::{Family, Outcome as Came};

    use super::*;
    use crate::read::compact::writer::Writer as Trace;
    use crate::read::{CallSites, Link, read};
    use crate::replay::{Order, Outcome, Replay};

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn sample() -> Trace {
        let mut trace = Trace::new();
        let main = trace.stack(&[0x401136, 0x401200]);
        let other = trace.stack(&[0x401136, 0x401300]);
        let unknown = trace.stack(&[0x9999_0000]);
        let infos = [(main, 100), (other, 0x40), (unknown, 0)]
            .map(|(node, size)| trace.info(node, size, Family::Malloc));
        let moved = trace.info(main, 300, Family::Realloc);
        trace.alloc(infos[0], 0x4052a0).alloc(infos[1], 0x405300).alloc(infos[2], 0x405400);
        trace.realloc_at(Came::Ended, 0x4052a0, main).alloc(moved, 0x405500);
        trace.failed(infos[0], 0).realloc(Came::Unchanged, 0x405500).failed(moved, 0x405500);
        trace.free(0x405300).free(0x405300).realloc(Came::Freed, 0x405400);
        trace.text(b"# lost 2 28\n# exit\n");
        trace
    }

    #[test]
    fn a_log_has_the_lines_of_the_trace_and_its_innermost_calls() {
        let mut log = Vec::new();
        convert(file(&sample().bytes()).path(), &mut log).unwrap();
        let log = String::from_utf8(log).unwrap();
        assert!(log.starts_with("# mtr log 1\n# id 1f2e3d4c5b6a7988\n"), "{log}");
        let expected = "= Start
@ ./t\\040x:[0x401136] + 0x4052a0 0x64
@ ./t\\040x:[0x401136] + 0x405300 0x40
@ [0x99990000] + 0x405400 0
@ ./t\\040x:[0x401136] < 0x4052a0
@ ./t\\040x:[0x401136] > 0x405500 0x12c
@ ./t\\040x:[0x401136] + (nil) 0x64
@ ./t\\040x:[0x401136] ! 0x405500 0x12c
- 0x405300
- 0x405300
- 0x405400
# lost 2 28
# exit
";
        assert!(log.ends_with(expected), "{log}");
    }

    /// Numbers of each call, by its address.
    type ByCall = Vec<(Option<u64>, [u64; 6])>;

    /// What a replay says of a trace and of each call.
    fn numbers(path: &Path) -> (Outcome, ByCall) {
        let mut replay = Replay::new(Order::Kept);
        let CallSites { sites, stacks, .. } =
            read(path, |event| replay.event(event)).unwrap().sites;
        let outcome = replay.finish();
        let mut by_call: HashMap<Option<u64>, [u64; 6]> = HashMap::new();
        for (id, t) in outcome.sites.iter().enumerate().filter(|(_, t)| t.allocs > 0) {
            let site = match stacks.get(id).map(|node| node.link) {
                None => Some(id as u32),
                Some(Link::Call(site)) => Some(site),
                Some(_) => None,
            };
            let address = site.and_then(|site| sites[site as usize].address);
            let all = [t.allocs, t.bytes, t.live_blocks, t.live_bytes, t.peak_blocks, t.peak_bytes];
            let sum = by_call.entry(address).or_default();
            sum.iter_mut().zip(all).for_each(|(sum, value)| *sum += value);
        }
        let mut by_call: Vec<_> = by_call.into_iter().collect();
        by_call.sort_unstable();
        (outcome, by_call)
    }

    #[test]
    fn what_is_converted_has_the_same_totals_peak_faults_and_sites() {
        let trace = file(&sample().bytes());
        let mut text = Vec::new();
        convert(trace.path(), &mut text).unwrap();
        let log = file(&text);
        let ((ours, our_sites), (theirs, their_sites)) =
            (numbers(trace.path()), numbers(log.path()));
        assert_eq!(ours.totals, theirs.totals);
        assert_eq!((ours.peak.bytes, ours.peak.blocks), (theirs.peak.bytes, theirs.peak.blocks));
        assert_eq!(our_sites, their_sites);
        let kinds = |outcome: &Outcome| -> Vec<_> {
            outcome.faults.iter().map(|fault| (fault.kind, fault.ptr, fault.count)).collect()
        };
        assert_eq!(kinds(&ours), kinds(&theirs));
    }

    #[test]
    fn the_script_s_output_is_that_of_the_converted_log() {
        let trace = file(&sample().bytes());
        let mut text = Vec::new();
        convert(trace.path(), &mut text).unwrap();
        let report = |path: &Path| {
            let mut out = Vec::new();
            let left = crate::cli::mtrace::run(&[], path, &mut out).unwrap();
            (left, String::from_utf8(out).unwrap())
        };
        let (left, of_trace) = report(trace.path());
        assert!(left && of_trace.contains("Memory not freed"), "{of_trace}");
        assert_eq!(of_trace, report(file(&text).path()).1);
    }

    #[test]
    fn a_log_stays_as_it_is() {
        let text = b"# mtr log 1\n@ ./t:[0x1] + 0x10 0x20\n";
        let mut copied = Vec::new();
        convert(file(text).path(), &mut copied).unwrap();
        assert_eq!(copied, text);
    }
}
