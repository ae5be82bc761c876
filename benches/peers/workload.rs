//! The programs that are measured, and what is expected of them.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::support::*;
use crate::tracer::{Tracer, run};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
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
pub(crate) enum Limit {
    None,
    /// Heaptrack's figure is at least this many times ours.
    Ratio(f64),
    /// Ours is at most so many ns.
    Nanoseconds(f64),
    /// glibc mtrace's figure is at least this many times ours.
    RatioToMtrace(f64),
}

pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) shape: Shape,
    /// Frames of an allocation, on average.
    pub(crate) depth: RangeInclusive<f64>,
    pub(crate) limit: Limit,
    /// The compact trace has callers only.
    pub(crate) callers: bool,
}

/// Those whose name contains `only`.
pub(crate) fn workloads(folder: &Folder, only: Option<&str>) -> Vec<Workload> {
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
