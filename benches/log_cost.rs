//! What the mtrace log of libmtr.so costs: added CPU time per event, against the untraced program
//! and against glibc's own mtrace.
//!
//!     cargo bench --bench log_cost
//!     cargo bench --bench log_cost -- --rounds 9 --events 5000000 --peer-events 200000 --shm
//!
//! Three workloads: a flat malloc/free loop on one and on two threads, and C++ containers. A round
//! runs each of them untraced, under libmtr.so and under glibc's tracer, one after the other, so
//! that a busy moment of the machine hits all three. The figures are medians over the rounds of the
//! differences within a round. `whole` is the CPU time of the entire process, start and end of the
//! library included; `loop` is that of the workload alone, as it measures itself.
//!
//! Cost without correctness is easy, so every log that was timed is checked: as many records as the
//! program counted events, and none out of order. A failed check is exit status 1.
//!
//! `--shm` puts the logs into /dev/shm, which takes the disk out; otherwise they are in target/tmp.

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/mod.rs"]
mod timing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use support::*;
use timing::{Cost, cost_of, median, run_timed};

struct Options {
    rounds: usize,
    events: u64,
    peer_events: u64,
    shm: bool,
}

struct Workload {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    /// Arguments of glibc's run and of the untraced run it is compared with.
    peer_arguments: Vec<String>,
    /// glibc's cost divided by ours, at least.
    target: f64,
}

#[derive(Default)]
struct Figures {
    untraced: Vec<f64>,
    ours: Vec<f64>,
    ours_whole: Vec<f64>,
    peer: Vec<f64>,
    bytes_per_record: f64,
    failures: Vec<String>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("log_cost: {message}");
            return ExitCode::from(2);
        }
    };
    let folder = match options.shm {
        true => Folder::below(Path::new("/dev/shm"), "mtr-log-cost"),
        false => Folder::new("log-cost"),
    };
    let workloads = workloads(&folder, &options);
    let with_peer = has_peer(&folder, &workloads[0]);
    if !with_peer {
        skip("glibc's mtrace", "libc_malloc_debug.so.0 is not installed");
    }

    println!(
        "logs in {}, {} rounds, ns of CPU per event (median [least..most])",
        folder.path().display(),
        options.rounds
    );
    println!(
        "{:<12} {:>9} {:>22} {:>7} {:>24} {:>7} {:>7} {:>9}  checks",
        "workload", "untraced", "+mtr loop", "whole", "+mtrace", "ratio", "target", "B/record"
    );
    let mut sound = true;
    for workload in &workloads {
        let figures = measure(workload, &folder, &options, with_peer);
        print(workload, &figures);
        for failure in &figures.failures {
            println!("  FAILED {failure}");
        }
        sound &= figures.failures.is_empty();
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { rounds: 5, events: 5_000_000, peer_events: 200_000, shm: false };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or(format!("{argument} needs a number"))?;
            value.parse::<u64>().map_err(|e| format!("{argument} {value}: {e}"))
        };
        match &*argument {
            "--bench" => {} // cargo's
            "--shm" => options.shm = true,
            "--rounds" => options.rounds = number()?.max(1) as usize,
            "--events" => options.events = number()?.max(1000),
            "--peer-events" => options.peer_events = number()?.max(1000),
            other => return Err(format!("{other}: no such option")),
        }
    }
    Ok(options)
}

fn workloads(folder: &Folder, options: &Options) -> Vec<Workload> {
    let source = |name: &str| repository().join("benches/workloads").join(name);
    let flat = compile(folder, "flat", &source("flat.c"), &["-O2", "-pthread", "-ldl"]);
    let stl = compile(folder, "stl", &source("stl.cpp"), &["-O2", "-pthread", "-ldl"]);
    let arguments = |words: &[(&str, u64)]| {
        words.iter().flat_map(|(flag, n)| [flag.to_string(), n.to_string()]).collect::<Vec<_>>()
    };
    let flat_on = |name, threads: u64, target| {
        let arguments = arguments(&[("-n", options.events / 2 / threads), ("-t", threads)]);
        Workload {
            name,
            program: flat.clone(),
            peer_arguments: arguments.clone(),
            arguments,
            target,
        }
    };
    vec![
        flat_on("flat", 1, 6.0),
        flat_on("flat, 2 thr", 2, 2.0),
        Workload {
            name: "stl",
            program: stl,
            arguments: arguments(&[("-n", options.events)]),
            peer_arguments: arguments(&[("-n", options.peer_events)]),
            target: 80.0,
        },
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tracer {
    None,
    Ours,
    Peer,
}

/// Runs a workload once.
fn run(workload: &Workload, arguments: &[String], tracer: Tracer, log: &Path) -> Cost {
    // A short argv[0], as a user would type it: it stands in every line.
    let program = Path::new(".").join(workload.program.file_name().expect("its name"));
    let mut command = clean_command(program);
    command.args(arguments).current_dir(workload.program.parent().expect("its folder"));
    match tracer {
        Tracer::None => {}
        Tracer::Ours => {
            command.env("LD_PRELOAD", library()).env("MALLOC_TRACE", log);
        }
        Tracer::Peer => {
            command.env("LD_PRELOAD", "libc_malloc_debug.so.0");
            command.env("MALLOC_TRACE", log).env("BENCH_MTRACE", "1");
        }
    }
    let (output, whole_ns) = run_timed(&mut command);
    cost_of(&output, whole_ns)
}

fn has_peer(folder: &Folder, workload: &Workload) -> bool {
    let log = folder.join("peer.log");
    run(workload, &["-n".into(), "10".into()], Tracer::Peer, &log);
    std::fs::remove_file(log).is_ok()
}

fn measure(workload: &Workload, folder: &Folder, options: &Options, with_peer: bool) -> Figures {
    let mut figures = Figures::default();
    let log = folder.join("trace.log");
    let around = records_around(workload, &log);
    for _ in 0..options.rounds {
        let off = run(workload, &workload.arguments, Tracer::None, &log);
        let ours = run(workload, &workload.arguments, Tracer::Ours, &log);
        let per_event = |with: f64, without: f64| (with - without) / off.events;
        figures.untraced.push(off.loop_ns / off.events);
        figures.ours.push(per_event(ours.loop_ns, off.loop_ns));
        figures.ours_whole.push(per_event(ours.whole_ns, off.whole_ns));
        check(&ours, around, &log, &mut figures);
        if with_peer {
            let off = run(workload, &workload.peer_arguments, Tracer::None, &log);
            let peer = run(workload, &workload.peer_arguments, Tracer::Peer, &log);
            figures.peer.push((peer.loop_ns - off.loop_ns) / off.events);
            let _ = std::fs::remove_file(&log);
        }
    }
    figures
}

/// (allocations, frees) of a run that are not of its loop: those of the start, of threads, of the
/// result. They do not depend on the number of events. The loops free every block they allocate
/// (and flat counts calls of free(NULL) among its events, which leave no record).
fn records_around(workload: &Workload, log: &Path) -> (u64, u64) {
    let mut arguments = workload.arguments.clone();
    arguments[1] = "1000".into(); // the value of -n
    let cost = run(workload, &arguments, Tracer::Ours, log);
    let count = check_order(log, "");
    (count.allocations - cost.allocations, count.frees - cost.allocations)
}

fn check(ours: &Cost, around: (u64, u64), log: &Path, figures: &mut Figures) {
    if tail_of(log).exists() {
        figures.failures.push("a tail was left after a normal end".into());
        return;
    }
    let count = check_order(log, "");
    let (allocations, frees) = (count.allocations - around.0, count.frees - around.1);
    if (allocations, frees) != (ours.allocations, ours.allocations) {
        figures.failures.push(format!(
            "{allocations} allocations and {frees} frees in the log, {} of each made",
            ours.allocations
        ));
    }
    let wrong = (count.duplicates, count.unknown_frees, count.damaged);
    if wrong != (0, 0, 0) {
        let examples = count.examples.join("\n    ");
        figures.failures.push(format!(
            "{} duplicates, {} unknown frees, {} damaged lines\n    {examples}",
            wrong.0, wrong.1, wrong.2
        ));
    }
    figures.bytes_per_record = count.length as f64 / (count.allocations + count.frees) as f64;
    std::fs::remove_file(log).unwrap();
}

fn print(workload: &Workload, figures: &Figures) {
    let spread = |values: &[f64]| match values {
        [] => "-".to_owned(),
        _ => {
            let (least, most) = values
                .iter()
                .fold((f64::MAX, f64::MIN), |(least, most), v| (least.min(*v), most.max(*v)));
            format!("{:.1} [{least:.1}..{most:.1}]", median(values))
        }
    };
    let ratio = match figures.peer.is_empty() {
        true => "-".to_owned(),
        false => format!("{:.1}", median(&figures.peer) / median(&figures.ours)),
    };
    println!(
        "{:<12} {:>9.1} {:>22} {:>7.1} {:>24} {:>7} {:>7} {:>9.1}  {}",
        workload.name,
        median(&figures.untraced),
        spread(&figures.ours),
        median(&figures.ours_whole),
        spread(&figures.peer),
        ratio,
        format!(">={:.0}", workload.target),
        figures.bytes_per_record,
        if figures.failures.is_empty() { "passed" } else { "FAILED" }
    );
}
