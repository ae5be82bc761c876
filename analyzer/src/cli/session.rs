//! The report of a run of `mtr-run`.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitStatus;

use super::quote::quoted;
use super::report::Found;
use crate::analyze::analyze_ended;
use crate::error::Error;
use crate::launch::session::{Session, Trace};
use crate::output::number::counted;
use crate::output::{processes, text};
use crate::profile::{Ending, Part};
use crate::read::{self, Log, sniff::Kind, tail};
use crate::replay::{Order, Replay};

/// Processes besides the program that are shown with a line of their own.
const SHOWN: usize = 5;

/// Writes the report of the program, which ended with that status, a line for each of the largest other processes, and the command
/// that looks closer.
pub fn report(
    session: &Session,
    ended: ExitStatus,
    options: &text::Options,
    out: &mut impl Write,
    mut failed: impl FnMut(&Error),
) -> io::Result<Found> {
    let mut found = Found::default();
    let tail = |trace: &Trace| {
        let (_, reason) = session.with_tail.iter().find(|(path, _)| *path == trace.path)?;
        let name = shown(&tail::tail_path(&trace.path), options.folder.as_deref());
        Some(format!("The last records stay in {name}, beside the trace: {reason}."))
    };
    if let Some(trace) = &session.program {
        match analyze_ended(&trace.path, Kind::OurLog, &[], Some(ended)) {
            Ok(mut profile) => {
                profile.notes.extend(tail(trace));
                text::write(&profile, options, out)?;
                found = Found::of(&profile);
            }
            Err(error) => failed(&error),
        }
    }
    let program = session.program.as_ref().map(|trace| trace.pid);
    let (images, others): (Vec<_>, Vec<_>) =
        session.others.iter().partition(|trace| Some(trace.pid) == program);
    let (one, many) =
        ("earlier image of this process, before an exec", "earlier images of this process");
    let pids: Vec<_> = others.iter().map(|trace| Some(trace.pid)).collect();
    let titles = [
        (counted(images.len() as u64, one, many), images),
        (processes::title(&pids, "other process", "other processes"), others),
    ];
    for (title, traces) in titles.into_iter().filter(|(_, traces)| !traces.is_empty()) {
        writeln!(out, "\n{title}:\n")?;
        for trace in traces.iter().take(SHOWN) {
            match part(trace) {
                Ok((part, log)) => {
                    writeln!(out, "  {}", processes::line(&part, options.columns() - 2))?;
                    if let Some(program) = log.left_for {
                        writeln!(out, "    went on untraced as {}", shown(&program, None))?;
                    }
                    if log.damage.is_some() {
                        let name = shown(&trace.path, options.folder.as_deref());
                        writeln!(out, "    not all of it: mtr-report {name} says what is missing")?;
                    }
                    if let Some(note) = tail(trace) {
                        writeln!(out, "    {note}")?;
                    }
                }
                Err(error) => failed(&error),
            }
        }
        if traces.len() > SHOWN {
            writeln!(out, "  ... and {} with smaller traces", traces.len() - SHOWN)?;
        }
    }
    if let Some(trace) = session.program.as_ref().or(session.others.first()) {
        let name = shown(&trace.path, options.folder.as_deref());
        let program = mtr_report(options.folder.as_deref());
        writeln!(out, "\nTo look closer:\n\n  {program} --top 1000 {name}")?;
    }
    out.flush()?;
    Ok(found)
}

/// What one line says of a trace, and the rest of it.
fn part(trace: &Trace) -> Result<(Part, Log), Error> {
    let mut replay = Replay::new(Order::Kept);
    let log = read::read(&trace.path, |event| replay.event(event))?;
    let part = Part {
        trace: trace.path.clone(),
        program: log.header.program.clone(),
        arguments: log.header.arguments.clone(),
        pid: Some(trace.pid),
        ending: if log.running { Ending::Running } else { Ending::Exited },
        totals: replay.finish().totals,
    };
    Ok((part, log))
}

/// `mtr-report` as it can be typed: by name where the shell finds it, else beside `mtr-run`.
fn mtr_report(folder: Option<&Path>) -> String {
    const NAME: &str = "mtr-report";
    let search = env::var_os("PATH").unwrap_or_default();
    let beside = env::current_exe().map(|own| own.with_file_name(NAME)).unwrap_or_default();
    let is_found = env::split_paths(&search).any(|folder| folder.join(NAME).is_file());
    if is_found || !beside.is_file() { NAME.into() } else { shown(&beside, folder) }
}

/// A path as it can be typed where the user is.
fn shown(path: &Path, folder: Option<&Path>) -> String {
    let below = folder.and_then(|folder| path.strip_prefix(folder).ok());
    match below {
        // A name that begins with a dash would be an option.
        Some(name) if !name.to_string_lossy().starts_with('-') => quoted(name.as_os_str()),
        _ => quoted(path.as_os_str()),
    }
}
