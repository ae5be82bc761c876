//! A place, and the call stack that led to it.

use std::io::{self, Write};

use super::name::shortened;
use super::{Options, printable, shown};
use crate::profile::{Certainty, Frame, Location, Place, StackFrame, StackId, Stacks, Step};

/// What stands in front of lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lead<'a> {
    /// Of the first one.
    pub(super) first: &'a str,
    /// Of all others.
    pub(super) others: &'a str,
}

/// One line for each frame, the one of the allocation site first, and says whether frames were
/// left out because there are more than [`Options::depth`].
pub(super) fn write(
    location: &Location,
    stack: Option<StackId>,
    stacks: &Stacks,
    lead: Lead<'_>,
    options: &Options,
    out: &mut impl Write,
) -> io::Result<bool> {
    let mut lines = Lines { lead, is_first: true, options, out };
    if let Some(stack) = stack.filter(|_| stacks.are_whole)
        && stacks.site(stack).is_some()
    {
        return whole(stack, stacks, &mut lines);
    }
    let Some(site) = location.frame() else {
        let name = address(&location.place, &location.stated, options);
        lines.frame("", &name, None, mark(&location.place))?;
        return Ok(false);
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
    Ok(false)
}

/// A whole stack: the program's own frames from the allocation site outwards, and between them the
/// function of a runtime through which one reached the other. Where all of it belongs to runtimes,
/// their frames.
fn whole(stack: StackId, stacks: &Stacks, lines: &mut Lines<'_, impl Write>) -> io::Result<bool> {
    let site = stacks.site(stack);
    let has_no_own = site.is_some_and(|site| site.is_runtime);
    let mut shown = 0;
    let mut inner: Option<StackFrame<'_>> = None;
    // The last frame of a runtime, which the next one of the program called.
    let mut through: Option<StackFrame<'_>> = None;
    for step in stacks.steps(stack) {
        let frame = match step {
            Step::Frame(frame) => frame,
            _ if shown == 0 => continue,
            _ if shown >= lines.options.depth.max(1) => return Ok(true),
            Step::Cut => {
                lines.remark("... frames left out ...", "")?;
                inner = None;
                continue;
            }
            Step::Ended => {
                lines.remark("... what called this is not known ...", "")?;
                continue;
            }
        };
        let is_site = shown == 0 && site == Some(frame);
        if !is_site && (shown == 0 || frame.is_runtime && !has_no_own) {
            through = Some(frame);
            continue;
        }
        if shown >= lines.options.depth.max(1) {
            return Ok(true);
        }
        let relation = match (shown, through) {
            (0, _) => "",
            (_, Some(_)) => "called from ",
            (_, None) => relation_to(inner.and_then(|inner| inner.frame)),
        };
        let place = &frame.call.place;
        match frame.frame {
            Some(named) => {
                let at = source(named, lines.options);
                let at = at.unwrap_or_else(|| address(place, &frame.call.stated, lines.options));
                lines.frame(relation, &function(named), Some(&at), mark(place))?;
            }
            None => {
                let name = address(place, &frame.call.stated, lines.options);
                lines.frame(relation, &name, None, mark(place))?;
            }
        }
        if let Some(function) = through.and_then(|frame| frame.frame?.function.as_deref()) {
            lines.remark("  through ", &printable(function.as_bytes()))?;
        }
        (inner, through) = (Some(frame), None);
        shown += 1;
    }
    Ok(false)
}

/// Where lines go.
struct Lines<'a, W> {
    lead: Lead<'a>,
    is_first: bool,
    options: &'a Options,
    out: &'a mut W,
}

impl<W: Write> Lines<'_, W> {
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

/// How the next frame outwards stands to this one.
fn relation_to(inner: Option<&Frame>) -> &'static str {
    match inner {
        Some(Frame { inlined: true, .. }) => "inlined into ",
        _ => "called from ",
    }
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
