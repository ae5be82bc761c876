//! The report for a terminal of 80 columns.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::number::{counted, thousands};
use crate::profile::{Amount, Certainty, Ending, Fault, FaultKind, Frame, Location, Profile, Site};

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

/// What the report shows.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most allocation sites shown. Default: 10.
    pub top: usize,
    /// Their order. Default: by live bytes.
    pub sort: Sort,
    /// Paths below this folder are shown relative to it. Default: none.
    pub folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options { top: 10, sort: Sort::Live, folder: None }
    }
}

/// Columns of a line that can be broken.
const WIDTH: usize = 80;

/// Writes the report of one trace.
pub fn write(profile: &Profile, options: &Options, out: &mut impl Write) -> io::Result<()> {
    header(profile, options, out)?;
    summary(profile, out)?;
    sites(profile, options, out)?;
    faults(profile, options, out)?;
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
    let command = match &profile.arguments[..] {
        [] => profile.program.as_deref().map(|program| shown(program, options)),
        arguments => Some(arguments.iter().map(|a| printable(a)).collect::<Vec<_>>().join(" ")),
    };
    if let Some(command) = command {
        writeln!(out, "program: {}", cut(&command, WIDTH - 9))?;
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
    writeln!(
        out,
        "{when}: {} bytes in {} blocks",
        thousands(totals.live_bytes),
        thousands(totals.live_blocks)
    )?;
    writeln!(
        out,
        "total heap usage: {} allocs, {} frees, {} bytes allocated",
        thousands(totals.allocs),
        thousands(totals.frees),
        thousands(totals.bytes)
    )?;
    let Amount { bytes, blocks } = profile.peak;
    writeln!(out, "peak: {} bytes in {} blocks", thousands(bytes), thousands(blocks))
}

/// The allocation sites.
fn sites(profile: &Profile, options: &Options, out: &mut impl Write) -> io::Result<()> {
    let amount = |site: &Site| match options.sort {
        Sort::Live => site.live,
        Sort::Peak => site.peak,
        Sort::Bytes | Sort::Calls => site.allocated,
    };
    let title = match (options.sort, profile.ending) {
        (Sort::Live, Ending::Running) => "Live now",
        (Sort::Live, _) => "Still allocated at exit",
        (Sort::Peak, _) => "Live at the peak",
        (Sort::Bytes | Sort::Calls, _) => "Allocated in all",
    };
    let mut sites: Vec<(Amount, &Site)> =
        profile.sites.iter().map(|site| (amount(site), site)).collect();
    sites.retain(|(amount, _)| amount.blocks > 0);
    sites.sort_by_key(|(Amount { bytes, blocks }, _)| {
        std::cmp::Reverse(match options.sort {
            Sort::Calls => (*blocks, *bytes),
            _ => (*bytes, *blocks),
        })
    });
    if sites.is_empty() {
        if options.sort == Sort::Live && profile.totals.allocs > 0 {
            writeln!(out, "\nAll blocks were freed.")?;
        }
        return Ok(());
    }
    writeln!(out, "\n{title}, by allocation site:\n")?;
    let (first, rest) = sites.split_at(options.top.min(sites.len()));
    for (Amount { bytes, blocks }, site) in first {
        let amount = format!(
            "{} in {}",
            counted(*bytes, "byte", "bytes"),
            counted(*blocks, "block", "blocks")
        );
        writeln!(out, "  {amount}")?;
        location(&site.location, "    ", "    ", options, out)?;
    }
    if !rest.is_empty() {
        let bytes = rest.iter().map(|(amount, _)| amount.bytes).sum();
        let blocks = rest.iter().map(|(amount, _)| amount.blocks).sum();
        writeln!(
            out,
            "  ... and {} with {} in {}\n  (--top {} shows all)",
            counted(rest.len() as u64, "more site", "more sites"),
            counted(bytes, "byte", "bytes"),
            counted(blocks, "block", "blocks"),
            sites.len()
        )?;
    }
    Ok(())
}

/// The faults.
fn faults(profile: &Profile, options: &Options, out: &mut impl Write) -> io::Result<()> {
    if profile.faults.is_empty() {
        return Ok(());
    }
    let all = profile.faults.iter().map(|fault| fault.count).sum();
    writeln!(out, "\n{}:\n", counted(all, "fault", "faults"))?;
    for fault in profile.faults.iter().take(options.top) {
        let Fault { kind, count, ptr, line, .. } = fault;
        let what = match kind {
            FaultKind::DoubleFree => "Double free of",
            FaultKind::UnknownFree => "Free of an address that was never allocated,",
            FaultKind::DuplicateAlloc => "Duplicate allocation of a live address,",
        };
        write!(out, "  {what} {ptr:#x} (line {} of the trace", thousands(*line))?;
        match count {
            1 => writeln!(out, ")")?,
            count => writeln!(out, ", {} times)", thousands(*count))?,
        }
        let by = if *kind == FaultKind::DuplicateAlloc { "by" } else { "freed by" };
        let first = "first freed by";
        let roles = [
            (by, Some(&fault.by)),
            (first, fault.freed.as_ref()),
            ("allocated by", fault.allocated.as_ref()),
        ];
        let width = roles.iter().filter(|(_, at)| at.is_some()).map(|(role, _)| role.len()).max();
        let width = width.unwrap_or(0);
        for (role, at) in roles {
            if let Some(at) = at {
                let lead = format!("    {role:width$} ");
                location(at, &lead, &" ".repeat(lead.len()), options, out)?;
            }
        }
    }
    if profile.faults.len() > options.top {
        writeln!(
            out,
            "  ... and {} at other places (--top {} shows all)",
            counted((profile.faults.len() - options.top) as u64, "fault", "faults"),
            profile.faults.len()
        )?;
    }
    Ok(())
}

/// One line for each frame, the one of the allocation site first.
fn location(
    location: &Location,
    lead: &str,
    indent: &str,
    options: &Options,
    out: &mut impl Write,
) -> io::Result<()> {
    let place = &location.place;
    let mark = if place.certainty == Certainty::Inferred { " (inferred)" } else { "" };
    let Some(site) = location.frame() else {
        let name = address(location, options);
        return writeln!(out, "{lead}{name}{mark}");
    };
    // Frames of a runtime that were inlined into the site tell nothing of the program.
    let begin = place.frames.iter().position(|frame| std::ptr::eq(frame, site)).unwrap_or(0);
    let mut lead = lead;
    let mut relation = "";
    for frame in &place.frames[begin..] {
        let text = format!("{relation}{}", function(frame));
        let at = match (&frame.file, &place.module) {
            (Some(file), _) => match frame.line {
                Some(line) => format!("{}:{line}", shown(file, options)),
                None => shown(file, options),
            },
            (None, _) => address(location, options),
        };
        if lead.len() + text.chars().count() + 4 + at.chars().count() + mark.len() <= WIDTH {
            writeln!(out, "{lead}{text} at {at}{mark}")?;
        } else {
            writeln!(out, "{lead}{}", cut(&text, WIDTH - lead.len()))?;
            writeln!(out, "{indent}  at {at}{mark}")?;
        }
        lead = indent;
        relation = if frame.inlined { "inlined into " } else { "called from " };
    }
    Ok(())
}

/// A place of which nothing but the address is known.
fn address(location: &Location, options: &Options) -> String {
    match (&location.place.module, location.place.svma) {
        (Some(module), Some(svma)) => format!("{}+{svma:#x}", shown(module, options)),
        _ => printable(location.stated.as_bytes()),
    }
}

fn function(frame: &Frame) -> String {
    printable(frame.function.as_deref().unwrap_or("??").as_bytes())
}

/// A path as the reader would type it.
fn shown(path: &Path, options: &Options) -> String {
    use std::os::unix::ffi::OsStrExt;
    let below = options.folder.as_deref().and_then(|folder| path.strip_prefix(folder).ok());
    printable(below.filter(|p| !p.as_os_str().is_empty()).unwrap_or(path).as_os_str().as_bytes())
}

/// A name in which nothing can move the cursor: it comes from the traced program.
fn printable(name: &[u8]) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    String::from_utf8_lossy(name).chars().map(escape).collect()
}

/// The front of a text that is too long for `width` columns.
fn cut(text: &str, width: usize) -> String {
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
