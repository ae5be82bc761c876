//! What the benchmarks share: running a workload once, and medians.
#![allow(dead_code)] // each benchmark uses its part

use std::process::{Command, Output};

/// What a workload prints about itself, and what the kernel says of its process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// The workload's own counts.
    pub(crate) events: f64,
    pub(crate) allocations: u64,
    /// CPU time of the workload itself.
    pub(crate) loop_ns: f64,
    /// CPU time of the process, start and end of the library included.
    pub(crate) whole_ns: f64,
}

/// Runs `command`; returns its CPU time as well.
pub(crate) fn run_timed(command: &mut Command) -> (Output, f64) {
    let before = cpu_of_children();
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let whole_ns = cpu_of_children() - before;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    (output, whole_ns)
}

/// What the RESULT line of a workload says (workloads/common.h).
pub(crate) fn cost_of(output: &Output, whole_ns: f64) -> Cost {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().find(|line| line.starts_with("RESULT ")).expect("its RESULT line");
    let field = |name: &str| -> u64 {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no {name}: {line}"))
    };
    Cost {
        events: field("events") as f64,
        allocations: field("allocs"),
        loop_ns: field("cpu_ns") as f64,
        whole_ns,
    }
}

/// CPU time, in ns, of all children that have been waited for.
fn cpu_of_children() -> f64 {
    // SAFETY: all zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a place for one rusage.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) }, 0);
    let ns = |t: libc::timeval| t.tv_sec as f64 * 1e9 + t.tv_usec as f64 * 1e3;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}
