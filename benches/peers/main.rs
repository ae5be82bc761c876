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
//! round. heaptrack stands there twice: `heaptrack` is its preload library writing a raw file, with
//! the CPU time of the application only; `full` is what a user runs, with the process that interprets
//! the raw data and the one that compresses it, from start to end (and so is the untraced run that
//! is taken off).
//! Slow tracers get fewer events. `x` is a tracer's figure divided by that of the compact trace;
//! `limit` is what heaptrack's has to be at least, or the figure itself at most.
//!
//! Cost without correctness is easy, so every trace that was timed is checked: as many events as the
//! program counted, none out of order (ours), stacks as deep as the program is. A failed check is
//! exit status 1; a missed limit is only shown.
//!
//! `--shm` puts the traces into /dev/shm, which takes the disk out; otherwise they are in target/tmp.

mod check;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../support/mod.rs"]
mod timing;
mod tracer;
mod workload;

use std::path::Path;
use std::process::ExitCode;

use check::{check_compact, check_peer, check_text, counted};
use support::*;
use timing::median;
use tracer::{Tracer, installed, run};
use workload::{Limit, Shape, Workload, workloads};

struct Options {
    rounds: usize,
    events: u64,
    peer_events: u64,
    memcheck_events: u64,
    only: Option<String>,
    shm: bool,
}

/// By tracer: added ns per event in each round (of [`Tracer::None`]: ns per event).
#[derive(Default)]
struct Figures {
    added: [Vec<f64>; Tracer::ALL.len()],
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
        "{:<14} {:>9} {:>9} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6} {:>9} {:>6} {:>12}  checks",
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
        "full",
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
        let (mut untraced, mut untraced_whole) = (f64::NAN, f64::NAN);
        for tracer in tracers {
            let events = match tracer {
                Tracer::None | Tracer::Compact | Tracer::Text | Tracer::Heaptrack => options.events,
                // Enough for its start, some 0.2 s, to count little.
                Tracer::HeaptrackFull => options.events / 10,
                Tracer::Mtrace => options.peer_events,
                Tracer::Memcheck => options.memcheck_events,
            };
            // glibc's tracer is switched on by the workload; these cannot.
            let is_called = matches!(workload.shape, Shape::Loop { .. } | Shape::Threads);
            if *tracer == Tracer::Mtrace && !is_called {
                continue;
            }
            let (output, cost) = run(workload, events, *tracer, &log);
            let (each, whole) = (cost.loop_ns / cost.events, cost.whole_ns / cost.events);
            let figure = match tracer {
                Tracer::None => {
                    (untraced, untraced_whole, figures.events) = (each, whole, cost.events);
                    each
                }
                Tracer::HeaptrackFull => whole - untraced_whole,
                _ => each - untraced,
            };
            figures.added[*tracer as usize].push(figure);
            let found = match tracer {
                Tracer::None => Ok(()),
                Tracer::Compact => check_compact(workload, &cost, around[0], &log, &mut figures),
                Tracer::Text => check_text(workload, &cost, around[1], &log),
                _ => check_peer(*tracer, &cost, &log, &output),
            };
            if let Err(why) = found {
                figures.failures.push(format!("{tracer:?}: {why}"));
            }
            let _ = std::fs::remove_file(&log);
        }
    }
    figures
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
        "{:<14} {:>9} {:>9.1} {:>9.1} {:>6} {} {} {} {} {} {:>12}  {}",
        workload.name,
        figures.events,
        figures.of(Tracer::None),
        compact,
        number(figures.bytes_per_event),
        pair(Tracer::Text),
        pair(Tracer::Mtrace),
        pair(Tracer::Heaptrack),
        pair(Tracer::HeaptrackFull),
        pair(Tracer::Memcheck),
        limit,
        if figures.failures.is_empty() { "passed" } else { "FAILED" }
    );
}
