//! `mtr-run`: runs a program under libmtr.so, then reports.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::Context;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, ValueEnum};
use mtr_analyzer::cli::report::ReportOptions;
use mtr_analyzer::cli::session;
use mtr_analyzer::launch::output::Template;
use mtr_analyzer::launch::session::{Session, collect, is_in_the_way, new_id};
use mtr_analyzer::launch::{child, file_size, library, program};

/// Run a program, trace its heap, and report on stderr what it still held at its end.
///
/// The exit status is that of the program (128+N when signal N killed it); 125 when mtr-run itself
/// failed, 126 when the program cannot be executed, 127 when it is not found.
#[derive(Parser)]
#[command(name = "mtr-run", version, max_term_width = 100)]
struct Arguments {
    /// Name of the traces: %p pid, %e program, %t time, %h host, %n number, %q{VAR}, %%
    /// [default: mtr.%e.%p.mtrace or mtr.%e.%p.mtr]
    #[arg(short, long, value_name = "TEMPLATE", env = "MTR_OUTPUT",
        value_parser = OsStringValueParser::new().try_map(Template::parse))]
    output: Option<PathBuf>,
    /// Format of the traces: mtrace's text with one caller per record, or compact with whole call
    /// stacks
    #[arg(long, value_enum, default_value_t = DEFAULT_FORMAT, env = "MTR_TRACE_FORMAT")]
    trace_format: TraceFormat,
    /// Write the report to FILE instead of stderr
    #[arg(long, value_name = "FILE", env = "MTR_REPORT_FILE")]
    report_file: Option<PathBuf>,
    /// Write over a trace that another run left
    #[arg(long, env = "MTR_FORCE")]
    force: bool,
    /// Record whole call stacks, or the caller of each allocation only
    #[arg(long, value_enum, env = "MTR_STACKS")]
    stacks: Option<Stacks>,
    /// What switches tracing on: the first allocation, or the program's own mtrace()
    #[arg(long, value_enum, env = "MTR_START")]
    start: Option<Start>,
    /// Trace the children of the program, too
    #[arg(long, value_enum, default_value_t = YesNo::Yes, env = "MTR_TRACE_CHILDREN")]
    trace_children: YesNo,
    /// Addresses in the trace: as in the process, or relative to their module
    #[arg(long, value_enum, env = "MTR_ADDRESSES")]
    addresses: Option<Addresses>,
    /// End a trace when it has this size (K, M, G for KiB, MiB, GiB); what comes later is counted
    #[arg(long, value_name = "SIZE", value_parser = size_of_trace, env = "MTR_MAX_TRACE_SIZE")]
    #[arg(allow_negative_numbers = true)]
    max_trace_size: Option<u64>,
    /// End a trace when the disk has no more than this left; 0 goes on until it is full
    /// [default: 64M, or 5 % of a small disk]
    #[arg(long, value_name = "SIZE", value_parser = size, env = "MTR_KEEP_FREE")]
    #[arg(allow_negative_numbers = true)]
    keep_free: Option<u64>,
    #[command(flatten)]
    report: ReportOptions,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

/// A number of bytes, times 1024 for each step of a K, M or G behind it.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err("expected a number of bytes, or one with K, M or G behind it".into());
    }
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| "expected less than 16 EiB".into())
}

/// The same, of a trace that can hold something.
fn size_of_trace(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("expected a size above 0: nothing would be recorded".into()),
        size => Ok(size),
    }
}

/// What is written when nothing else is asked for.
const DEFAULT_FORMAT: TraceFormat = TraceFormat::Compact;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum TraceFormat {
    Mtrace,
    Compact,
}

impl TraceFormat {
    /// Value of MTR_TRACE_FORMAT.
    fn value(self) -> &'static str {
        match self {
            TraceFormat::Mtrace => "mtrace",
            TraceFormat::Compact => "compact",
        }
    }

    /// Name of a trace when none is asked for.
    fn default_name(self) -> &'static str {
        match self {
            TraceFormat::Mtrace => "mtr.%e.%p.mtrace",
            TraceFormat::Compact => "mtr.%e.%p.mtr",
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Start {
    Process,
    Mtrace,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum YesNo {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Stacks {
    Full,
    Caller,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Addresses {
    Absolute,
    Relative,
}

/// Status of our own failures.
const OURS: u8 = 125;

fn main() -> ExitCode {
    file_size::survive_limit();
    let arguments = Arguments::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { OURS.into() } else { 0 })
    });
    let status = run(&arguments).unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        OURS
    });
    ExitCode::from(status)
}

fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let path = match program::find(&arguments.command[0]) {
        Ok(path) => path,
        Err(refusal) => {
            complain(&refusal.message);
            return Ok(refusal.status);
        }
    };
    let folder = env::current_dir().context("cannot tell the current folder")?;
    let default = Path::new(arguments.trace_format.default_name());
    let template = Template::new(arguments.output.as_deref().unwrap_or(default), &folder);
    if let Some(folder) = template.fixed().filter(|name| name.is_dir()) {
        anyhow::bail!("{}: expected the name of a file, got that of a folder", folder.display());
    }
    if let Some(fixed) = template.fixed().filter(|_| !arguments.force)
        && is_in_the_way(&fixed).with_context(|| fixed.display().to_string())?
    {
        anyhow::bail!("{} exists already; --force writes over it", fixed.display());
    }
    let report_file = match &arguments.report_file {
        Some(path) => Some(open_report(path).with_context(|| path.display().to_string())?),
        None => None,
    };
    let library = library::unpack().context("libmtr.so cannot be unpacked")?;
    let id = new_id();
    let mut command = Command::new(&path);
    prepare(&mut command, arguments, &template, library.into(), id);
    let mut running = match child::start(command) {
        Ok(running) => running,
        Err(error) => {
            complain(&format!("{}: {error}", path.display()));
            return Ok(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let pid = running.pid();
    let ended = running.wait().context("cannot wait for the program")?;
    let status = child::shell_status(ended);
    let session = collect(&template, id, pid, arguments.max_trace_size.unwrap_or(u64::MAX));
    if session.program.is_none() && session.others.is_empty() {
        complain(&format!(
            "{} wrote no trace to {}",
            path.display(),
            template.as_os_str().display()
        ));
        return Ok(if status == 0 { OURS } else { status });
    }
    match report(arguments, &session, ended, report_file) {
        Ok(true) => Ok(arguments.report.status_of_findings().unwrap_or(status)),
        Ok(false) => Ok(status),
        Err(error) if status != 0 => {
            complain(&format!("{error:#}"));
            Ok(status)
        }
        Err(error) => Err(error),
    }
}

/// Arguments and environment of the program.
fn prepare(
    command: &mut Command,
    arguments: &Arguments,
    template: &Template,
    mut preload: OsString,
    id: u64,
) {
    use std::os::unix::process::CommandExt;
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    command
        .arg0(&arguments.command[0])
        .args(&arguments.command[1..])
        .env("LD_PRELOAD", preload)
        .env("MTR_OUTPUT", template.as_os_str())
        .env("MTR_SESSION", format!("{id:016x}"))
        .env("MTR_TRACE_FORMAT", arguments.trace_format.value())
        .env("MTR_RUN_PID", std::process::id().to_string());
    if arguments.trace_children == YesNo::No {
        command.env("MTR_TRACE_CHILDREN", "no");
    }
    let sizes =
        [("MTR_MAX_TRACE_SIZE", arguments.max_trace_size), ("MTR_KEEP_FREE", arguments.keep_free)];
    for (name, size) in sizes {
        if let Some(size) = size {
            command.env(name, size.to_string());
        }
    }
    match arguments.start {
        Some(Start::Process) => command.env("MTR_START", "process"),
        Some(Start::Mtrace) => command.env("MTR_START", "mtrace"),
        None => command,
    };
    match arguments.stacks {
        Some(Stacks::Full) => command.env("MTR_STACKS", "full"),
        Some(Stacks::Caller) => command.env("MTR_STACKS", "caller"),
        None => command,
    };
    match arguments.addresses {
        Some(Addresses::Absolute) => command.env("MTR_ADDRESSES", "absolute"),
        Some(Addresses::Relative) => command.env("MTR_ADDRESSES", "relative"),
        None => command,
    };
}

/// Opens the file for the report. What it holds stays there until there is a report.
fn open_report(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path)
}

/// Reports and says whether there are findings.
fn report(
    arguments: &Arguments,
    session: &Session,
    ended: ExitStatus,
    file: Option<File>,
) -> anyhow::Result<bool> {
    let options = match &file {
        Some(file) => arguments.report.text(file),
        None => arguments.report.text(io::stderr()),
    };
    let mut out: BufWriter<Box<dyn Write>> = BufWriter::new(match file {
        Some(file) => {
            // A pipe or a terminal has no length.
            if file.metadata().is_ok_and(|found| found.is_file()) {
                file.set_len(0).context("cannot write the report")?;
            }
            Box::new(file)
        }
        None => Box::new(io::stderr()),
    });
    let mut error = None;
    let found = session::report(session, ended, &options, &mut out, |failed| {
        error = Some(failed.to_string());
    })
    .context("cannot write the report")?;
    match error {
        Some(error) => anyhow::bail!(error),
        None => Ok(found.findings),
    }
}

fn complain(message: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr(), "mtr-run: {message}");
}
