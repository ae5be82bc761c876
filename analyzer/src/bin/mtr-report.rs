//! `mtr-report`: reads traces and reports.

use std::cell::Cell;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use mtr_analyzer::analyze::missing;
use mtr_analyzer::cli::mtrace;
use mtr_analyzer::cli::mtrace_log::{self, Caller};
use mtr_analyzer::cli::report::{Files, ReportOptions, report_all, report_merged};
use mtr_analyzer::launch::file_size;
use mtr_analyzer::read::Log;

/// Report what a traced program allocated, still held at its end and freed wrongly.
///
/// FILES are traces of libmtr.so or of glibc's mtrace, and programs; which is which is told by
/// their content; - is standard input. A trace of libmtr.so carries all that is needed, one of glibc
/// needs the program.
///
/// Exit status: 0 reported, 2 something could not be reported, 3 a trace is incomplete (--strict).
#[derive(Parser)]
#[command(name = "mtr-report", version, max_term_width = 100)]
struct Arguments {
    /// [PROGRAM] TRACE...
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,
    /// `mtrace` prints what glibc's mtrace script prints; `mtrace-log` turns a compact trace into a
    /// log that this script reads
    #[arg(long, value_enum, default_value_t = Format::Text, env = "MTR_FORMAT")]
    format: Format,
    /// Call that `mtrace` and `mtrace-log` name of each stack of a compact trace
    #[arg(long, value_enum, default_value_t = Caller::Direct, env = "MTR_CALLER")]
    caller: Caller,
    /// Report all traces as one: the processes of a run together, each event once
    #[arg(long, env = "MTR_MERGE")]
    merge: bool,
    /// Exit with 3 when a trace is incomplete
    #[arg(long, env = "MTR_STRICT")]
    strict: bool,
    #[command(flatten)]
    report: ReportOptions,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Mtrace,
    MtraceLog,
}

const FAILED: u8 = 2;
const INCOMPLETE: u8 = 3;

fn main() -> ExitCode {
    file_size::survive_limit();
    match run(&Arguments::parse()) {
        Ok(status) => ExitCode::from(status),
        // Who reads has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let mut files = Files::sort(&arguments.files);
    if arguments.format == Format::Mtrace {
        files.take_anything();
    }
    let failed = Cell::new(false);
    let fail = |message: &dyn std::fmt::Display| {
        failed.set(true);
        complain(&message.to_string());
    };
    files.failed.iter().for_each(|error| fail(error));
    if files.traces.is_empty() && !failed.get() {
        anyhow::bail!("expected a trace, got only programs: {}", arguments.files[0].display());
    }
    let mut out = BufWriter::new(io::stdout().lock());
    if arguments.format != Format::Text && !failed.get() {
        let (mut left, mut incomplete) = (false, false);
        for (trace, _) in &files.traces {
            let done = match arguments.format {
                Format::MtraceLog => mtrace_log::convert(trace, arguments.caller, &mut out),
                _ => mtrace::run(&files.programs, trace, arguments.caller, &mut out).map(|ran| {
                    left |= ran.left;
                    ran.log
                }),
            };
            match done {
                Ok(log) => {
                    incomplete |= log.damage.is_some();
                    say_missing(trace, &log);
                }
                Err(mtrace::Stop::Log(error)) => fail(&error),
                Err(mtrace::Stop::Out(error)) => return Err(error).context("cannot write"),
            }
        }
        return Ok(match left {
            _ if failed.get() => FAILED,
            _ if arguments.strict && incomplete => INCOMPLETE,
            left => left.into(),
        });
    }
    let options = arguments.report.text(io::stdout());
    let found = match arguments.merge {
        true => report_merged(&files, &options, &mut out, |error| fail(error)),
        false => report_all(&files, &options, &mut out, |error| fail(error)),
    };
    let found = found.context("cannot write the report")?;
    Ok(match arguments.report.status_of_findings() {
        _ if failed.get() => FAILED,
        _ if arguments.strict && found.incomplete => INCOMPLETE,
        Some(status) if found.findings => status,
        _ => 0,
    })
}

/// Says what is missing from a trace of ours, as the report does in its notes. What glibc's script makes
/// of a log of glibc's is its own affair.
fn say_missing(trace: &Path, log: &Log) {
    if log.header.version.is_some() {
        for note in missing::of(log) {
            complain(&format!("{}: {note}", trace.display()));
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

fn complain(message: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr(), "mtr-report: {message}");
}
