//! Threads, forks, execs, signals, plugins and all kinds of allocations at once: every trace has what
//! the program has counted itself, to the block, and nothing is called a fault.
//!
//! Longer with MTR_STRESS_SEEDS=FIRST..END and MTR_STRESS_STEPS (tests/long/stress.sh).

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use support::*;

const CLASSES: u64 = 20;
const SLOTS: usize = 1000;

/// What a process has counted (tests/programs/stress.cpp).
struct Slot {
    pid: u64,
    is_exec: bool,
    inherited_frees: u64,
    /// It has come to its end by exit().
    finished: bool,
    /// Allocations and frees by size.
    counts: BTreeMap<u64, (u64, u64)>,
}

fn read_slots(path: &Path) -> Vec<Slot> {
    let bytes = std::fs::read(path).unwrap();
    let words: Vec<u64> =
        bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let used = (words[0] as usize).min(SLOTS);
    let slot = |words: &[u64]| Slot {
        pid: words[0],
        is_exec: words[1] != 0,
        inherited_frees: words[2],
        finished: words[3] != 0,
        counts: (0..CLASSES)
            .map(|c| (1001 + 994 * c, (words[4 + 2 * c as usize], words[5 + 2 * c as usize])))
            .collect(),
    };
    words[1..].chunks(4 + 2 * CLASSES as usize).take(used).map(slot).collect()
}

/// What a trace has of the same.
struct Seen {
    path: PathBuf,
    pid: u64,
    is_exec: bool,
    is_first: bool,
    allocations: u64,
    unknown_frees: u64,
    counts: BTreeMap<u64, (u64, u64)>,
}

impl Seen {
    fn new(path: &Path, pid: u32, is_exec: bool, is_first: bool) -> Seen {
        let counts = (0..CLASSES).map(|c| (1001 + 994 * c, (0, 0))).collect();
        let (allocations, unknown_frees) = (0, 0);
        Seen {
            path: path.to_owned(),
            pid: pid.into(),
            is_exec,
            is_first,
            allocations,
            unknown_frees,
            counts,
        }
    }

    /// Takes in the events: what each has freed and what it has allocated.
    fn take_in(mut self, events: impl Iterator<Item = (Option<u64>, Option<(u64, u64)>)>) -> Self {
        let mut live = HashMap::new();
        for (freed, allocated) in events {
            if let Some(address) = freed {
                match live.remove(&address) {
                    Some(size) => self.counts.entry(size).and_modify(|count| count.1 += 1),
                    None => {
                        self.unknown_frees += 1;
                        continue;
                    }
                };
            }
            if let Some((address, size)) = allocated {
                self.allocations += 1;
                self.counts.entry(size).and_modify(|count| count.0 += 1);
                let twice = live.insert(address, size);
                assert!(twice.is_none(), "{}: {address:#x} twice", self.path.display());
            }
        }
        self
    }
}

fn seen_in(folder: &Folder, is_compact: bool) -> Vec<Seen> {
    let name = if is_compact { "trace.mtr" } else { "trace.log" };
    if is_compact {
        let of = |trace: Trace| {
            trace.is_sound();
            let [is_exec, is_child] = ["earlier", "parent"].map(|key| !trace.notes(key).is_empty());
            Seen::new(&trace.path, trace.pid(), is_exec, !is_exec && !is_child)
                .take_in(trace.events.iter().map(|event| (event.freed(), event.allocated())))
        };
        return traces_beside(&folder.join(name)).into_iter().map(of).collect();
    }
    let of = |log: Log| {
        log.is_sound();
        let [is_exec, is_child] = ["earlier", "parent"].map(|key| !log.notes(key).is_empty());
        Seen::new(&log.path, log.pid(), is_exec, !is_exec && !is_child)
            .take_in(log.records().map(|record| (record.freed(), record.allocated())))
    };
    logs_beside(&folder.join(name)).into_iter().map(of).collect()
}

/// Runs the program with a seed and compares; the number of its blocks, and of its processes.
#[track_caller]
fn check(seed: u64, steps: u64, is_compact: bool) -> (u64, usize) {
    let folder = Folder::new("stress");
    let shared = ["-O1", "-shared", "-fPIC"];
    compile(&folder, "plugin.so", &program("stress_plugin.c"), &shared);
    let flags = ["-O1", "-pthread", "-ldl"];
    let program = compile(&folder, "stress", &program("stress.cpp"), &flags);
    let counters = folder.join("counters");
    std::fs::write(&counters, vec![0; 8 + SLOTS * 8 * (4 + 2 * CLASSES as usize)]).unwrap();
    let traced = match is_compact {
        true => Traced::compact(&folder, &program),
        false => Traced::new(&folder, &program),
    };
    let run = traced.args(&[&seed.to_string(), &steps.to_string()]).arg(&counters);
    run.arg(folder.join("plugin.so")).run().succeeded();

    let slots = read_slots(&counters);
    let seen = seen_in(&folder, is_compact);
    let mut blocks = 0;
    for (index, slot) in slots.iter().enumerate() {
        let what = format!("seed {seed}, {steps} steps, compact {is_compact}: slot {index}");
        let own: u64 = slot.counts.values().map(|count| count.0 + count.1).sum();
        let mut found = seen.iter().filter(|s| (s.pid, s.is_exec) == (slot.pid, slot.is_exec));
        let Some(trace) = found.next() else {
            assert_eq!(own + slot.inherited_frees, 0, "{what}: no trace of {}", slot.pid);
            continue;
        };
        assert!(found.next().is_none(), "{what}: two traces of {}", slot.pid);
        assert_eq!(trace.counts, slot.counts, "{what}: {}", trace.path.display());
        assert!(trace.unknown_frees >= slot.inherited_frees, "{what}: {}", trace.path.display());
        assert_eq!(trace.is_first, index == 0, "{what}: {}", trace.path.display());
        if trace.is_first || trace.is_exec {
            assert_eq!(trace.unknown_frees, 0, "{what}: {}", trace.path.display());
        }
        let report = mtr_report([&trace.path]).without_faults();
        assert_eq!(report.summary().allocations, trace.allocations, "{what}");
        let has_tail = tail_of(&trace.path).exists();
        assert!(!(slot.finished && has_tail), "{what}: {}", trace.path.display());
        blocks += own;
    }
    assert!(slots[0].finished);
    (blocks, slots.len())
}

fn check_seeds(is_compact: bool) {
    let variable = |name| std::env::var(name).ok();
    let seeds = variable("MTR_STRESS_SEEDS").unwrap_or("1..4".into());
    let (first, end) = seeds.split_once("..").expect("MTR_STRESS_SEEDS=FIRST..END");
    let steps = variable("MTR_STRESS_STEPS").map_or(3000, |steps| steps.parse().unwrap());
    let (mut blocks, mut processes) = (0, 0);
    for seed in first.parse().unwrap()..end.parse().unwrap() {
        let counts = check(seed, steps, is_compact);
        (blocks, processes) = (blocks + counts.0, processes + counts.1);
    }
    println!("seeds {seeds}, {steps} steps: {blocks} events of {processes} processes");
    assert!(processes > 3, "only {processes} processes");
}

#[test]
fn compact_traces_have_what_the_program_has_counted() {
    check_seeds(true);
}

#[test]
fn logs_have_what_the_program_has_counted() {
    check_seeds(false);
}
