//! The tracers, and running a workload under one of them.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::*;
use crate::timing::{Cost, cost_of, run_timed};
use crate::workload::{Shape, Workload};

const HEAPTRACK: &str = "/usr/lib/heaptrack/libheaptrack_preload.so";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracer {
    None,
    Compact,
    Text,
    Mtrace,
    /// Its preload library alone.
    Heaptrack,
    /// What a user runs.
    HeaptrackFull,
    Memcheck,
}

impl Tracer {
    pub(crate) const ALL: [Tracer; 7] = [
        Tracer::None,
        Tracer::Compact,
        Tracer::Text,
        Tracer::Mtrace,
        Tracer::Heaptrack,
        Tracer::HeaptrackFull,
        Tracer::Memcheck,
    ];
}

/// Runs a workload once with about `events` events.
pub(crate) fn run(workload: &Workload, events: u64, tracer: Tracer, log: &Path) -> (Output, Cost) {
    let program = &workload.program;
    let mut command = match tracer {
        Tracer::Memcheck => {
            let mut valgrind = clean_command("valgrind");
            valgrind.arg(format!("--log-file={}", log.display())).arg(program);
            valgrind
        }
        Tracer::HeaptrackFull => {
            let mut heaptrack = clean_command("heaptrack");
            heaptrack.arg("--output").arg(log).arg(program);
            heaptrack
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
        Tracer::None | Tracer::HeaptrackFull | Tracer::Memcheck => {}
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
pub(crate) fn installed(folder: &Folder) -> Vec<Tracer> {
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
            Tracer::HeaptrackFull => (find_tool("heaptrack").is_some(), "heaptrack"),
            Tracer::Memcheck => (find_tool("valgrind").is_some(), "valgrind"),
        };
        if !is_there {
            skip(&format!("{tracer:?}"), &format!("{name} is not installed"));
        }
        is_there
    };
    Tracer::ALL.into_iter().filter(is_there).collect()
}
