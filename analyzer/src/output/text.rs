//! The report for a terminal of 80 columns.

mod entries; // what the list of allocations has entries for
mod faults; // what was done wrongly
mod name; // names that are longer than the line
mod path; // what is shown of a call stack
mod place; // a place and the call stack that led to it

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use entries::{Entry, entries};

use super::number::counted;
use super::processes;
use crate::profile::{Amount, Ending, Profile};

/// By what the allocation sites are ordered, largest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Bytes still allocated at the end.
    #[default]
    Live,
    /// Bytes allocated at the peak.
    Peak,
    /// Bytes of all allocations.
    Bytes,
    /// Number of allocations.
    Calls,
}

/// What has a place of its own in the list of allocations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Each allocation site, with its largest call stack.
    #[default]
    Site,
    /// Each call stack.
    Stack,
}

/// What the report shows.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most allocation sites shown. Default: 10.
    pub top: usize,
    /// Their order. Default: by live bytes.
    pub sort: Sort,
    /// What is listed. Default: allocation sites.
    pub group_by: GroupBy,
    /// Most frames shown of a call stack, those of runtimes not counted. Default: 5.
    pub depth: usize,
    /// What is suppressed is listed, too. Default: no.
    pub shows_suppressed: bool,
    /// Columns of a line, in which names are shortened. Default: none, so all names are whole.
    pub width: Option<usize>,
    /// Paths below this folder are shown relative to it. Default: none.
    pub folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            top: 10,
            sort: Sort::Live,
            group_by: GroupBy::Site,
            depth: 5,
            shows_suppressed: false,
            width: None,
            folder: None,
        }
    }
}

impl Options {
    /// Columns of a line that can be broken.
    pub fn columns(&self) -> usize {
        self.width.unwrap_or(WIDTH)
    }
}

/// Columns of a line that can be broken, where nothing else is asked for.
pub const WIDTH: usize = 80;

/// Writes the report of one trace.
pub fn write(profile: &Profile, options: &Options, out: &mut impl Write) -> io::Result<()> {
    header(profile, options, out)?;
    summary(profile, out)?;
    sites(profile, options, out)?;
    faults::write(profile, options, out)?;
    if !profile.notes.is_empty() {
        writeln!(out, "\nNotes:\n")?;
        for note in &profile.notes {
            paragraph(note, out)?;
        }
    }
    Ok(())
}

/// Program, process, trace.
fn header(profile: &Profile, options: &Options, out: &mut impl Write) -> io::Result<()> {
    if !profile.parts.is_empty() {
        return processes::list(&profile.parts, options.top, options.columns(), out);
    }
    let command = match &profile.arguments[..] {
        [] => profile.program.as_deref().map(|program| shown(program, options)),
        arguments => Some(arguments.iter().map(|a| printable(a)).collect::<Vec<_>>().join(" ")),
    };
    if let Some(command) = command {
        let room = options.width.map_or(usize::MAX, |width| width.saturating_sub(9));
        writeln!(out, "program: {}", cut(&command, room))?;
    }
    if let Some(pid) = profile.pid {
        write!(out, "pid:     {pid}")?;
        if let Some(parent) = profile.parent {
            write!(out, ", forked from {parent}")?;
        }
        if profile.ending == Ending::Running {
            write!(out, ", running")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "trace:   {}\n", shown(&profile.trace, options))
}

/// The numbers, in valgrind's words.
fn summary(profile: &Profile, out: &mut impl Write) -> io::Result<()> {
    let totals = &profile.totals;
    let when = if profile.ending == Ending::Running { "live now" } else { "in use at exit" };
    let in_use = Amount { bytes: totals.live_bytes, blocks: totals.live_blocks };
    writeln!(out, "{when}: {}", held_in(in_use))?;
    if profile.suppressed.blocks > 0 {
        writeln!(
            out,
            "suppressed: {} that runtimes keep until exit by design",
            held_in(profile.suppressed)
        )?;
    }
    writeln!(
        out,
        "total heap usage: {}, {}, {} allocated",
        counted(totals.allocs, "alloc", "allocs"),
        counted(totals.frees, "free", "frees"),
        counted(totals.bytes, "byte", "bytes")
    )?;
    write!(out, "peak: {}", held_in(profile.peak))?;
    if let Some(time) = profile.peak_time {
        write!(out, ", {} s after the start", moment(time, profile.peak_until))?;
    }
    if totals.resident > 0 {
        // Between samples there may have been more.
        let resident = counted(totals.resident, "byte", "bytes");
        write!(out, "\nresident memory: {resident} in the largest sample")?;
    }
    writeln!(out)
}

/// Seconds of something that happened between two samples of the time, of which the second may be
/// missing.
fn moment(time: u64, until: Option<u64>) -> String {
    /// Nanoseconds of which nothing is said.
    const CLOSE: u64 = 10_000_000;
    let seconds = |time| format!("{}.{:03}", time / 1_000_000_000, time / 1_000_000 % 1000);
    match until {
        Some(until) if until.saturating_sub(time) > CLOSE => {
            format!("{} to {}", seconds(time), seconds(until))
        }
        Some(_) => seconds(time),
        None => format!("at least {}", seconds(time)),
    }
}

/// The allocation sites or call stacks.
fn sites(profile: &Profile, options: &Options, out: &mut impl Write) -> io::Result<()> {
    let title = match (options.sort, profile.ending) {
        (Sort::Live, Ending::Running) => "Live now",
        (Sort::Live, _) => "Still allocated at exit",
        (Sort::Peak, _) => "Live at the peak",
        (Sort::Bytes | Sort::Calls, _) => "Allocated in all",
    };
    let entries = entries(profile, options);
    if entries.is_empty() {
        if options.sort == Sort::Live && profile.totals.allocs > 0 {
            let other = if profile.suppressed.blocks > 0 { "other " } else { "" };
            writeln!(out, "\nAll {other}blocks were freed.")?;
        }
        return Ok(());
    }
    let by_stack = options.group_by == GroupBy::Stack && profile.stacks.are_whole;
    let (group, noun, nouns) = match by_stack {
        true => ("call stack", "more stack", "more stacks"),
        false => ("allocation site", "more site", "more sites"),
    };
    // All allocations have two orders; in that of what is live, bytes go without saying.
    let order = match options.sort {
        Sort::Live | Sort::Peak => "",
        Sort::Bytes => ", most bytes first",
        Sort::Calls => ", most allocations first",
    };
    writeln!(out, "\n{title}, by {group}{order}:\n")?;
    let (first, rest) = entries.split_at(options.top.min(entries.len()));
    let (mut is_cut, mut has_others) = (false, false);
    for Entry { amount, site, stack, others: (others, held), is_suppressed } in first {
        let runtime = stack.0.and_then(|stack| profile.stacks.runtime_alone(stack));
        let mark = match (is_suppressed, runtime) {
            (true, _) => " (suppressed)".into(),
            (false, Some(runtime)) => format!(" (by {runtime} itself)"),
            (false, None) => String::new(),
        };
        writeln!(out, "  {}{mark}", held_in(*amount))?;
        let lead = place::Lead { first: "    ", others: "    " };
        is_cut |= place::write(&site.location, *stack, &profile.stacks, lead, options, out)?.is_cut;
        if *others > 0 {
            let others = counted(*others, "more stack", "more stacks");
            writeln!(out, "    ... and {others} with {}", held_in(*held))?;
            has_others = true;
        }
    }
    if !rest.is_empty() {
        let bytes = rest.iter().map(|entry| entry.amount.bytes).sum();
        let blocks = rest.iter().map(|entry| entry.amount.blocks).sum();
        writeln!(
            out,
            "  ... and {} with {}\n  (--top {} shows all)",
            counted(rest.len() as u64, noun, nouns),
            held_in(Amount { bytes, blocks }),
            entries.len()
        )?;
    }
    if has_others {
        writeln!(out, "  (--group-by stack shows each stack)")?;
    }
    if !profile.stacks.are_whole && first.iter().any(|entry| is_runtime(entry, profile)) {
        writeln!(out, "  (a log names callers only; mtr-run by default records whole stacks)")?;
    }
    if is_cut {
        writeln!(
            out,
            "  (--depth {} shows more of the stacks)",
            options.depth.max(1).saturating_mul(4)
        )?;
    }
    Ok(())
}

/// Whether the place of an entry is a runtime's, so that it does not tell what the program did.
fn is_runtime(entry: &Entry<'_>, profile: &Profile) -> bool {
    let stack = entry.site.location.stack;
    stack.and_then(|stack| profile.stacks.site(stack)).is_some_and(|site| site.is_runtime)
}

fn held_in(Amount { bytes, blocks }: Amount) -> String {
    format!("{} in {}", counted(bytes, "byte", "bytes"), counted(blocks, "block", "blocks"))
}

/// A path as the reader would type it.
fn shown(path: &Path, options: &Options) -> String {
    use std::os::unix::ffi::OsStrExt;
    let below = options.folder.as_deref().and_then(|folder| path.strip_prefix(folder).ok());
    printable(below.filter(|p| !p.as_os_str().is_empty()).unwrap_or(path).as_os_str().as_bytes())
}

/// A name in which nothing can move the cursor: it comes from the traced program.
pub(super) fn printable(name: &[u8]) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    String::from_utf8_lossy(name).chars().map(escape).collect()
}

/// The front of a text that is too long for `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect(),
        false => text.into(),
    }
}

/// A text broken into lines.
fn paragraph(text: &str, out: &mut impl Write) -> io::Result<()> {
    let mut column = 3;
    write!(out, "  -")?;
    for word in text.split_whitespace() {
        let length = word.chars().count() + 1;
        if column + length > WIDTH && column > 3 {
            write!(out, "\n   ")?;
            column = 3;
        }
        write!(out, " {}", printable(word.as_bytes()))?;
        column += length;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests;
