//! What an event costs in instructions, counted by callgrind: the same for the same library and
//! program, whatever else the machine does. A gate, so that the hot path cannot rot.

mod support;

use support::*;

/// Functions that take stamps. How often they are called depends on the time that passes between
/// events: under callgrind at each, else once in 64.
const TIMED: &str = "::stamp_";

/// Instructions in a file of callgrind's (its manual, "Callgrind Format Specification"), without those
/// of functions that are called by the clock.
fn untimed_instructions(file: &str) -> u64 {
    let mut names = std::collections::HashMap::new();
    let (mut is_timed, mut is_call, mut sum) = (false, false, 0);
    for line in file.lines() {
        if let Some(name) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            // A name stands behind its number only the first time.
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            let is_this_timed = *names.entry(number).or_insert_with(|| name.contains(TIMED));
            if line.starts_with("fn=") {
                is_timed = is_this_timed;
            }
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            // The line behind a call has what the function called took: it has lines of its own.
            if !std::mem::take(&mut is_call) && !is_timed {
                let cost = line.split(' ').nth(1).expect("a position and a cost");
                sum += cost.parse::<u64>().expect("a number");
            }
        }
    }
    sum
}

/// Instructions that a run of a workload takes, and how many events it has.
fn run(folder: &Folder, arguments: &[&str], size: &str, format: &str) -> (u64, u64) {
    let mut command = clean_command("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=callgrind.out"])
        // A short name, because every line of the log has it.
        .arg("./w")
        .current_dir(folder.path())
        .args(arguments)
        .args(["-n", size]);
    if !format.is_empty() {
        command
            .env("LD_PRELOAD", library())
            .env("MTR_TRACE_FORMAT", format)
            .env("MTR_OUTPUT", folder.join("trace.%p"));
    }
    let output = command.output().expect("valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let file = std::fs::read_to_string(folder.join("callgrind.out")).expect("its output");
    let instructions = untimed_instructions(&file);
    let events = text.split(' ').find_map(|word| word.strip_prefix("events=")).expect("events");
    (instructions, events.parse().expect("a number"))
}

/// Checks how many instructions recording adds to an event of benches/workloads/`workload`.
fn check(title: &str, workload: &str, arguments: &[&str], format: &str, limit: f64) {
    if need("valgrind", title).is_none() {
        return;
    }
    let folder = Folder::new(title);
    let source = repository().join("benches/workloads").join(workload);
    compile(&folder, "w", &source, &["-O2", "-pthread", "-ldl"]);
    // The difference of two runs is free of start and end.
    let per_event = |format: &str| {
        let few = run(&folder, arguments, "40000", format);
        let many = run(&folder, arguments, "200000", format);
        (many.0 - few.0) as f64 / (many.1 - few.1) as f64
    };
    let added = per_event(format) - per_event("");
    println!("{title}: {added:.1} instructions added per event, at most {limit} expected");
    assert!(added > 20.0, "{added}: nothing seems to be recorded");
    assert!(added <= limit, "{added:.1} instructions per event, at most {limit} expected");
}

#[test]
fn a_line_of_the_log_takes_few_instructions() {
    let title = "a_line_of_the_log_takes_few_instructions";
    check(title, "flat.c", &["-d", "1"], "mtrace", 200.0);
}

#[test]
fn an_event_with_an_unchanged_stack_takes_few_instructions() {
    let title = "an_event_with_an_unchanged_stack_takes_few_instructions";
    check(title, "flat.c", &["-d", "1"], "compact", 180.0);
}

#[test]
fn twenty_unchanged_frames_take_few_instructions() {
    let title = "twenty_unchanged_frames_take_few_instructions";
    check(title, "flat.c", &["-d", "20"], "compact", 215.0);
}

#[test]
fn changing_stacks_take_few_instructions() {
    let title = "changing_stacks_take_few_instructions";
    check(title, "tree.c", &["-d", "8", "-l", "20000"], "compact", 490.0);
}
