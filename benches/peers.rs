//! What full call stacks cost: the compact trace of libmtr.so against its text log, glibc's mtrace,
//! heaptrack and memcheck, as far as they are installed.
//!
//!     cargo bench --bench peers
//!     cargo bench --bench peers -- --rounds 9 --events 5000000 --peer-events 200000 \
//!         --memcheck-events 100000 --only flat --shm
//!
//! A round runs a workload untraced and under each tracer, one after the other, so that a busy moment
//! of the machine hits all of them. A figure is the median over the rounds of added CPU time per
//! event: of the workload's own loop, all threads together, minus that of the untraced run of the
//! round. For heaptrack that is the application only, not the process that interprets its raw data.
//! Slow tracers get fewer events. `x` is a tracer's figure divided by that of the compact trace;
//! `limit` is what heaptrack's has to be at least, or the figure itself at most.
//!
//! Cost without correctness is easy, so every trace that was timed is checked: as many events as the
//! program counted, none out of order (ours), stacks as deep as the program is. A failed check is
//! exit status 1; a missed limit is only shown.
//!
//! `--shm` puts the traces into /dev/shm, which takes the disk out; otherwise they are in target/tmp.

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/mod.rs"]
mod timing;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use support::*;
use timing::{Cost, cost_of, median, run_timed};

const HEAPTRACK: &str = "/usr/lib/heaptrack/libheaptrack_preload.so";

struct Options {
    rounds: usize,
    events: u64,
    peer_events: u64,
    memcheck_events: u64,
    only: Option<String>,
    shm: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tracer {
    None,
    Compact,
    Text,
    Mtrace,
    Heaptrack,
    Memcheck,
}

impl Tracer {
    const ALL: [Tracer; 6] = [
        Tracer::None,
        Tracer::Compact,
        Tracer::Text,
        Tracer::Mtrace,
        Tracer::Heaptrack,
        Tracer::Memcheck,
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Prints a RESULT line; `-n` takes events divided by this.
    Loop { events_per_n: u64 },
    /// workloads/pyjson.py: a round of it makes this many events, as counted before.
    Python { events_per_round: u64 },
    /// workloads/thr.c: an "event" is a thread.
    Threads,
    /// An "event" is a process.
    Start,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    None,
    /// Heaptrack's figure is at least this many times ours.
    Ratio(f64),
    /// Ours is at most so many ns.
    Nanoseconds(f64),
    /// glibc mtrace's figure is at least this many times ours.
    RatioToMtrace(f64),
}

struct Workload {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    shape: Shape,
    /// Frames of an allocation, on average.
    depth: RangeInclusive<f64>,
    limit: Limit,
    /// The compact trace has callers only.
    callers: bool,
}

/// By tracer: added ns per event in each round (of [`Tracer::None`]: ns per event).
#[derive(Default)]
struct Figures {
    added: [Vec<f64>; 6],
    events: f64,
    bytes_per_event: f64,
    failures: Vec<String>,
}

impl Figures {
    fn of(&self, tracer: Tracer) -> f64 {
        median(&self.added[tracer as usize])
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("peers: {message}");
            return ExitCode::from(2);
        }
    };
    let folder = match options.shm {
        true => Folder::below(Path::new("/dev/shm"), "mtr-peers"),
        false => Folder::new("peers"),
    };
    let workloads = workloads(&folder, options.only.as_deref());
    let tracers = installed(&folder);

    println!(
        "traces in {}, medians of {} rounds, added ns of CPU per event",
        folder.path().display(),
        options.rounds
    );
    println!(
        "{:<14} {:>9} {:>9} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6} {:>12}  checks",
        "workload",
        "events",
        "untraced",
        "compact",
        "B/ev",
        "text",
        "x",
        "mtrace",
        "x",
        "heaptrack",
        "x",
        "memcheck",
        "x",
        "limit",
    );
    let mut sound = true;
    let mut all: Vec<(&str, f64)> = Vec::new();
    for workload in &workloads {
        let figures = measure(workload, &folder, &options, &tracers);
        print(workload, &figures);
        for failure in &figures.failures {
            println!("  FAILED {failure}");
        }
        sound &= figures.failures.is_empty();
        all.push((workload.name, figures.of(Tracer::Compact)));
    }
    let compact = |name| all.iter().find(|(n, _)| *n == name).map(|(_, figure)| *figure);
    if let (Some(one), Some(two)) = (compact("flat 20"), compact("flat 20, 2thr")) {
        println!("two threads cost {:.2} times one thread (limit 1.2)", two / one);
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        rounds: 5,
        events: 10_000_000,
        peer_events: 200_000,
        memcheck_events: 100_000,
        only: None,
        shm: false,
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let mut number = || {
            let value = value()?;
            value.parse::<u64>().map_err(|e| format!("{argument} {value}: {e}"))
        };
        match &*argument {
            "--bench" => {} // cargo's
            "--shm" => options.shm = true,
            "--rounds" => options.rounds = number()?.max(1) as usize,
            "--events" => options.events = number()?.max(1000),
            "--peer-events" => options.peer_events = number()?.max(1000),
            "--memcheck-events" => options.memcheck_events = number()?.max(1000),
            "--only" => options.only = Some(value()?),
            other => return Err(format!("{other}: no such option")),
        }
    }
    Ok(options)
}

/// Those whose name contains `only`.
fn workloads(folder: &Folder, only: Option<&str>) -> Vec<Workload> {
    let source = |name: &str| repository().join("benches/workloads").join(name);
    let build = |name: &str| {
        let output = name.split('.').next().unwrap();
        // No -Wall: these are kept as they were when the limits were measured.
        compile(folder, output, &source(name), &["-O2", "-w", "-pthread", "-ldl"])
    };
    let (flat, tree) = (build("flat.c"), build("tree.c"));
    let workload = |name, program: &Path, arguments: &str, events_per_n, depth, limit| Workload {
        name,
        program: program.to_owned(),
        arguments: arguments.split_whitespace().map(str::to_owned).collect(),
        shape: Shape::Loop { events_per_n },
        depth,
        limit: if limit == 0.0 { Limit::None } else { Limit::Ratio(limit) },
        callers: false,
    };
    let mut all = vec![
        workload("flat 1", &flat, "-d 1", 2, 4.0..=10.0, 6.0),
        workload("flat 20", &flat, "-d 20", 2, 22.0..=30.0, 10.0),
        workload("flat 60", &flat, "-d 60", 2, 62.0..=70.0, 12.0),
        workload("flat 20, 2thr", &flat, "-d 20 -t 2", 4, 22.0..=30.0, 18.0),
        workload("tree 8", &tree, "-d 8", 1, 10.0..=60.0, 6.0),
        workload("tree 20", &tree, "-d 20", 1, 20.0..=120.0, 8.0),
        workload("stl", &build("stl.cpp"), "", 1, 5.0..=30.0, 3.5),
        workload("prodcons", &build("prodcons.c"), "", 2, 3.0..=6.0, 0.0),
    ];
    all.push(Workload {
        limit: Limit::RatioToMtrace(30.0),
        callers: true,
        ..workload("flat, callers", &flat, "-d 1", 2, 1.0..=1.0, 0.0)
    });
    all.push(Workload {
        shape: Shape::Threads,
        limit: Limit::Nanoseconds(10_000.0),
        ..workload("threads", &build("thr.c"), "", 1, 2.0..=30.0, 0.0)
    });
    all.push(Workload {
        shape: Shape::Start,
        limit: Limit::Nanoseconds(2e6),
        ..workload("start", &build("empty.c"), "", 1, 0.0..=60.0, 0.0)
    });
    all.retain(|workload| only.is_none_or(|only| workload.name.contains(only)));
    if only.is_none_or(|only| "python".contains(only))
        && let Some(python) = need_elf("python3", "the workload in CPython")
    {
        let script = source("pyjson.py").to_str().expect("a path in UTF-8").to_owned();
        let mut workload = workload("python", &python, &script, 1, 12.0..=40.0, 5.0);
        let log = folder.join("count.mtr");
        let mut events_of = |rounds| {
            workload.shape = Shape::Python { events_per_round: 1 };
            run(&workload, rounds, Tracer::Compact, &log);
            let count = check_trace_order(&log);
            count.allocations + count.frees
        };
        let events_per_round = events_of(2) - events_of(1);
        workload.shape = Shape::Python { events_per_round };
        all.push(workload);
    }
    all
}

/// Runs a workload once with about `events` events.
fn run(workload: &Workload, events: u64, tracer: Tracer, log: &Path) -> (Output, Cost) {
    let program = &workload.program;
    let mut command = match tracer {
        Tracer::Memcheck => {
            let mut valgrind = clean_command("valgrind");
            valgrind.arg(format!("--log-file={}", log.display())).arg(program);
            valgrind
        }
        _ => clean_command(program),
    };
    command.args(&workload.arguments).current_dir(log.parent().expect("its folder"));
    trace(&mut command, tracer, log);
    if workload.callers && tracer == Tracer::Compact {
        command.env("MTR_STACKS", "caller");
    }
    match workload.shape {
        Shape::Loop { events_per_n } => {
            command.arg("-n").arg((events / events_per_n).max(64).to_string());
            let (output, whole_ns) = run_timed(&mut command);
            let cost = cost_of(&output, whole_ns);
            (output, cost)
        }
        Shape::Threads => {
            // A thread takes as long as some hundreds of events.
            command.arg("-n").arg((events / 400).max(10).to_string());
            let (output, whole_ns) = run_timed(&mut command);
            let cost = cost_of(&output, whole_ns);
            (output, cost)
        }
        Shape::Python { events_per_round } => {
            let rounds = (events / events_per_round).max(1);
            command.arg(rounds.to_string()).arg("1");
            command.env("PYTHONMALLOC", "malloc").env("PYTHONHASHSEED", "0");
            let (output, whole_ns) = run_timed(&mut command);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut words = stderr.split_whitespace().skip_while(|word| *word != "cpu").skip(1);
            let seconds: f64 = words.next().and_then(|w| w.parse().ok()).expect("its PY line");
            let events = (rounds * events_per_round) as f64;
            let cost = Cost { events, allocations: 0, loop_ns: seconds * 1e9, whole_ns };
            (output, cost)
        }
        Shape::Start => {
            let times = (events / 100_000).clamp(1, 20);
            let (mut output, mut whole_ns) = run_timed(&mut command);
            for _ in 1..times {
                let (next, ns) = run_timed(&mut command);
                (output, whole_ns) = (next, whole_ns + ns);
            }
            let events = times as f64;
            (output, Cost { events, allocations: 0, loop_ns: whole_ns, whole_ns })
        }
    }
}

fn trace(command: &mut Command, tracer: Tracer, log: &Path) {
    match tracer {
        Tracer::None | Tracer::Memcheck => {}
        Tracer::Compact => {
            command.env("LD_PRELOAD", library()).env("MTR_TRACE_FORMAT", "compact");
            command.env("MTR_OUTPUT", log);
        }
        Tracer::Text => {
            command.env("LD_PRELOAD", library()).env("MTR_OUTPUT", log);
        }
        Tracer::Mtrace => {
            command.env("LD_PRELOAD", "libc_malloc_debug.so.0");
            command.env("MALLOC_TRACE", log).env("BENCH_MTRACE", "1");
        }
        Tracer::Heaptrack => {
            command.env("LD_PRELOAD", HEAPTRACK).env("DUMP_HEAPTRACK_OUTPUT", log);
        }
    }
}

/// The tracers that are there.
fn installed(folder: &Folder) -> Vec<Tracer> {
    let source = repository().join("benches/workloads/flat.c");
    let program = compile(folder, "probe", &source, &["-O2", "-w", "-pthread", "-ldl"]);
    let is_there = |tracer: &Tracer| {
        let log = folder.join("probe.log");
        let (is_there, name) = match tracer {
            Tracer::None | Tracer::Compact | Tracer::Text => return true,
            Tracer::Mtrace => {
                let mut command = clean_command(&program);
                command.args(["-n", "10"]);
                trace(&mut command, Tracer::Mtrace, &log);
                command.output().expect("a workload");
                (std::fs::remove_file(&log).is_ok(), "libc_malloc_debug.so.0")
            }
            Tracer::Heaptrack => (Path::new(HEAPTRACK).is_file(), HEAPTRACK),
            Tracer::Memcheck => (find_tool("valgrind").is_some(), "valgrind"),
        };
        if !is_there {
            skip(&format!("{tracer:?}"), &format!("{name} is not installed"));
        }
        is_there
    };
    Tracer::ALL.into_iter().filter(is_there).collect()
}

fn measure(workload: &Workload, folder: &Folder, options: &Options, tracers: &[Tracer]) -> Figures {
    let mut figures = Figures::default();
    let log = folder.join("trace");
    let around = match workload.shape {
        Shape::Loop { .. } => [Tracer::Compact, Tracer::Text].map(|tracer| {
            let (_, cost) = run(workload, 1000, tracer, &log);
            let (allocations, frees) = counted(tracer, &log);
            // The loops free every block that they allocate.
            (allocations - cost.allocations, frees - cost.allocations)
        }),
        _ => [(0, 0); 2],
    };
    for _ in 0..options.rounds {
        let mut untraced = f64::NAN;
        for tracer in tracers {
            let events = match tracer {
                Tracer::None | Tracer::Compact | Tracer::Text | Tracer::Heaptrack => options.events,
                Tracer::Mtrace => options.peer_events,
                Tracer::Memcheck => options.memcheck_events,
            };
            // glibc's tracer is switched on by the workload; these cannot.
            let is_called = matches!(workload.shape, Shape::Loop { .. } | Shape::Threads);
            if *tracer == Tracer::Mtrace && !is_called {
                continue;
            }
            let (_, cost) = run(workload, events, *tracer, &log);
            let each = cost.loop_ns / cost.events;
            let figure = match tracer {
                Tracer::None => {
                    (untraced, figures.events) = (each, cost.events);
                    each
                }
                _ => each - untraced,
            };
            figures.added[*tracer as usize].push(figure);
            let found = match tracer {
                Tracer::None => Ok(()),
                Tracer::Compact => check_compact(workload, &cost, around[0], &log, &mut figures),
                Tracer::Text => check_text(workload, &cost, around[1], &log),
                _ => check_peer(*tracer, &cost, &log),
            };
            if let Err(why) = found {
                figures.failures.push(format!("{tracer:?}: {why}"));
            }
            let _ = std::fs::remove_file(&log);
        }
    }
    figures
}

/// Allocations and frees in one of our own traces.
fn counted(tracer: Tracer, log: &Path) -> (u64, u64) {
    if tracer == Tracer::Compact {
        let count = check_trace_order(log);
        (count.allocations, count.frees)
    } else {
        let count = check_order(log, "");
        (count.allocations, count.frees)
    }
}

/// As many events as the program says.
fn compare(
    workload: &Workload,
    cost: &Cost,
    around: (u64, u64),
    found: (u64, u64),
) -> Result<(), String> {
    match workload.shape {
        Shape::Loop { .. } => {
            let expected = (cost.allocations + around.0, cost.allocations + around.1);
            if found != expected {
                return Err(format!("{found:?} allocations and frees, {expected:?} were made"));
            }
        }
        // Beside its rounds the interpreter starts and ends.
        Shape::Python { .. } => {
            let events = (found.0 + found.1) as f64;
            if events < cost.events || events > cost.events * 1.1 + 500_000.0 {
                return Err(format!("{events} events, {} in the rounds alone", cost.events));
            }
        }
        // Ten blocks and the thread's own.
        Shape::Threads => {
            let least = 10 * cost.events as u64;
            if found.0 < least || found.1 < least {
                return Err(format!("{found:?} allocations and frees, {least} by threads"));
            }
        }
        Shape::Start => {}
    }
    Ok(())
}

fn check_compact(
    workload: &Workload,
    cost: &Cost,
    around: (u64, u64),
    log: &Path,
    figures: &mut Figures,
) -> Result<(), String> {
    let count = check_trace_order(log);
    compare(workload, cost, around, (count.allocations, count.frees))?;
    let wrong = (count.duplicates, count.unknown_frees, count.damaged);
    if wrong != (0, 0, 0) {
        return Err(format!("{wrong:?} duplicates, unknown frees, damaged: {:#?}", count.examples));
    }
    if count.allocations > 0 && !workload.depth.contains(&count.depth()) {
        return Err(format!("{:.1} frames, not {:?}", count.depth(), workload.depth));
    }
    let events = (count.allocations + count.frees) as f64;
    figures.bytes_per_event = if events > 0.0 { count.length as f64 / events } else { f64::NAN };
    Ok(())
}

fn check_text(
    workload: &Workload,
    cost: &Cost,
    around: (u64, u64),
    log: &Path,
) -> Result<(), String> {
    let count = check_order(log, "");
    compare(workload, cost, around, (count.allocations, count.frees))?;
    let wrong = (count.duplicates, count.unknown_frees, count.damaged);
    match wrong {
        (0, 0, 0) => Ok(()),
        _ => Err(format!("{wrong:?} duplicates, unknown frees, damaged: {:#?}", count.examples)),
    }
}

/// A peer has seen the allocations of the workload at least.
fn check_peer(tracer: Tracer, cost: &Cost, log: &Path) -> Result<(), String> {
    let bytes = std::fs::read(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let lines = || bytes.split(|b| *b == b'\n');
    let found = match tracer {
        Tracer::Mtrace => lines().filter(|l| l.windows(3).any(|w| w == b" + ")).count() as u64,
        Tracer::Heaptrack => lines().filter(|line| line.starts_with(b"+")).count() as u64,
        Tracer::Memcheck => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let usage = text.split("total heap usage: ").nth(1);
            let number = usage.and_then(|rest| rest.split(' ').next()).unwrap_or("0");
            number.replace(',', "").parse().unwrap_or(0)
        }
        _ => unreachable!("{tracer:?} is no peer"),
    };
    if found < cost.allocations {
        return Err(format!("{found} allocations, {} were made", cost.allocations));
    }
    Ok(())
}

fn print(workload: &Workload, figures: &Figures) {
    let compact = figures.of(Tracer::Compact);
    let number = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.1}") };
    let pair = |tracer| {
        let figure = figures.of(tracer);
        format!("{:>9} {:>6}", number(figure), number(figure / compact))
    };
    let ratio = figures.of(Tracer::Heaptrack) / compact;
    let verdict = |is_kept: bool| if is_kept { "kept" } else { "OVER" };
    let limit = match workload.limit {
        Limit::None => "-".to_owned(),
        Limit::Ratio(least) if ratio.is_nan() => format!("x>={least}"),
        Limit::Ratio(least) => format!("x>={least} {}", verdict(ratio >= least)),
        Limit::RatioToMtrace(least) => {
            let ratio = figures.of(Tracer::Mtrace) / compact;
            format!("m/c>={least} {}", verdict(ratio >= least))
        }
        Limit::Nanoseconds(most) => format!("<={most:.0} {}", verdict(compact <= most)),
    };
    println!(
        "{:<14} {:>9} {:>9.1} {:>9.1} {:>6} {} {} {} {} {:>12}  {}",
        workload.name,
        figures.events,
        figures.of(Tracer::None),
        compact,
        number(figures.bytes_per_event),
        pair(Tracer::Text),
        pair(Tracer::Mtrace),
        pair(Tracer::Heaptrack),
        pair(Tracer::Memcheck),
        limit,
        if figures.failures.is_empty() { "passed" } else { "FAILED" }
    );
}
