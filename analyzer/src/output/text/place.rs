//! A place, and the call stack that led to it.

use std::io::{self, Write};

use super::name::shortened;
use super::path::{Item, Own, items, relation_to};
use super::{Options, printable, shown};
use crate::output::number::thousands;
use crate::profile::{Certainty, Frame, Location, Place, StackId, Stacks};

/// What stands in front of lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead<'a> {
    /// Of the first one.
    pub(super) first: &'a str,
    /// Of all others.
    pub(super) others: &'a str,
}

/// How the length of a recursion is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Counts {
    #[default]
    Exact,
    /// The stack stands for others, whose recursion is shorter.
    UpTo,
    /// It does not matter.
    Hidden,
}

/// What has been written of a place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    /// Frames were left out because there are more than [`Options::depth`].
    pub(super) is_cut: bool,
    /// Recursions that were shown once.
    pub(super) recursions: u64,
    /// How many times more they go round.
    pub(super) times: u64,
}

/// One line for each frame, the one of the allocation site first.
pub(super) fn write(
    location: &Location,
    (stack, counts): (Option<StackId>, Counts),
    stacks: &Stacks,
    lead: Lead<'_>,
    options: &Options,
    out: &mut impl Write,
) -> io::Result<Written> {
    let mut lines = Lines { lead, is_first: true, options, out };
    if let Some(stack) = stack.filter(|_| stacks.are_whole)
        && stacks.site(stack).is_some()
    {
        return whole(stack, counts, stacks, &mut lines);
    }
    let Some(site) = location.frame() else {
        let name = address(&location.place, &location.stated, options);
        lines.frame("", &name, None, mark(&location.place))?;
        return Ok(Written::default());
    };
    // Frames of a runtime that were inlined into the site tell nothing of the program.
    let place = &location.place;
    let begin = place.frames.iter().position(|frame| std::ptr::eq(frame, site)).unwrap_or(0);
    let mut relation = "";
    for frame in &place.frames[begin..] {
        let at = source(frame, options);
        let at = at.unwrap_or_else(|| address(place, &location.stated, options));
        lines.frame(relation, &function(frame), Some(&at), mark(place))?;
        relation = relation_to(Some(frame));
    }
    Ok(Written::default())
}

/// A whole stack: the program's own frames from the allocation site outwards, and between them the
/// function of a runtime through which one reached the other. Where all of it belongs to runtimes,
/// their frames.
fn whole(
    stack: StackId,
    counts: Counts,
    stacks: &Stacks,
    lines: &mut Lines<'_, impl Write>,
) -> io::Result<Written> {
    let mut written = Written::default();
    let mut shown = 0;
    for item in items(stack, stacks) {
        if let Item::Again { frames, times } = item {
            written.recursions += 1;
            written.times += times;
            lines.remark(&again(frames, times, counts), "")?;
            continue;
        }
        if shown >= lines.options.depth.max(1) {
            return Ok(Written { is_cut: true, ..written });
        }
        match item {
            Item::Own(own) => {
                lines.own(&own)?;
                shown += 1;
            }
            Item::Ended => lines.remark("... what called this is not known ...", "")?,
            Item::Cut | Item::Again { .. } => lines.remark("... frames left out ...", "")?,
        }
    }
    Ok(written)
}

/// What stands for the frames of a recursion behind the first ones.
fn again(frames: usize, times: u64, counts: Counts) -> String {
    let times = match counts {
        Counts::Exact => format!("{} more", thousands(times)),
        Counts::UpTo => format!("up to {} more", thousands(times)),
        Counts::Hidden => "more".into(),
    };
    match frames {
        1 => format!("(recursion: {times} frames)"),
        _ => format!("(recursion: these {frames} frames {times} times)"),
    }
}

/// Where lines go.
struct Lines<'a, W> {
    lead: Lead<'a>,
    is_first: bool,
    options: &'a Options,
    out: &'a mut W,
}

impl<W: Write> Lines<'_, W> {
    /// A frame of a whole stack, and below it what it passed through.
    fn own(&mut self, own: &Own<'_>) -> io::Result<()> {
        let call = own.frame.call;
        let place = &call.place;
        let unnamed = || address(place, &call.stated, self.options);
        match own.frame.frame {
            Some(named) => {
                let at = source(named, self.options).unwrap_or_else(unnamed);
                self.frame(own.relation, &function(named), Some(&at), mark(place))?;
            }
            None => self.frame(own.relation, &unnamed(), None, mark(place))?,
        }
        match own.through {
            Some(function) => self.remark("  through ", &printable(function.as_bytes())),
            None => Ok(()),
        }
    }

    /// A frame and where it is, on one line if there is room.
    fn frame(
        &mut self,
        relation: &str,
        name: &str,
        at: Option<&str>,
        mark: &str,
    ) -> io::Result<()> {
        let lead = if self.is_first { self.lead.first } else { self.lead.others };
        self.is_first = false;
        let Some(at) = at else { return writeln!(self.out, "{lead}{relation}{name}{mark}") };
        let front = lead.len() + relation.len();
        let back = 4 + at.chars().count() + mark.len();
        if front + name.chars().count() + back <= self.options.columns() {
            return writeln!(self.out, "{lead}{relation}{name} at {at}{mark}");
        }
        writeln!(self.out, "{lead}{relation}{}", self.fitting(name, front))?;
        writeln!(self.out, "{}  at {at}{mark}", self.lead.others)
    }

    fn remark(&mut self, text: &str, name: &str) -> io::Result<()> {
        let indent = self.lead.others;
        writeln!(self.out, "{indent}{text}{}", self.fitting(name, indent.len() + text.len()))
    }

    /// A name that has to share its line with as many other columns.
    fn fitting(&self, name: &str, others: usize) -> String {
        let room = self.options.width.map_or(usize::MAX, |width| width.saturating_sub(others));
        shortened(name, room)
    }
}

fn mark(place: &Place) -> &'static str {
    if place.certainty == Certainty::Inferred { " (inferred)" } else { "" }
}

/// File and line of a frame.
fn source(frame: &Frame, options: &Options) -> Option<String> {
    let file = shown(frame.file.as_ref()?, options);
    Some(match frame.line {
        Some(line) => format!("{file}:{line}"),
        None => file,
    })
}

/// A place of which nothing but the address is known.
fn address(place: &Place, stated: &str, options: &Options) -> String {
    match (&place.module, place.svma) {
        (Some(module), Some(svma)) => format!("{}+{svma:#x}", shown(module, options)),
        _ => printable(stated.as_bytes()),
    }
}

fn function(frame: &Frame) -> String {
    printable(frame.function.as_deref().unwrap_or("??").as_bytes())
}
