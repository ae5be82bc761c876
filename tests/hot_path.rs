//! What an event costs in instructions, counted by callgrind: the same for the same library and
//! program, whatever else the machine does. A gate, so that the hot path cannot rot.

mod support;

use support::*;

/// Instructions that a run of `flat` takes for `steps` frees and allocations.
fn instructions(folder: &Folder, depth: &str, steps: u64, format: &str) -> u64 {
    let mut command = clean_command("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        // A short name, because every line of the log has it.
        .arg("./flat")
        .current_dir(folder.path())
        .args(["-n", &steps.to_string(), "-d", depth]);
    if !format.is_empty() {
        command
            .env("LD_PRELOAD", library())
            .env("MTR_TRACE_FORMAT", format)
            .env("MTR_OUTPUT", folder.join("trace.%p"));
    }
    let output = command.output().expect("valgrind");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let line = text.lines().find(|line| line.contains("Collected :")).expect("a count");
    line.rsplit(' ').next().unwrap().parse().expect("a number")
}

/// Instructions that recording adds to an event of the flat loop (benches/workloads/flat.c).
fn added_per_event(folder: &Folder, depth: &str, format: &str) -> f64 {
    let source = repository().join("benches/workloads/flat.c");
    compile(folder, "flat", &source, &["-O2", "-pthread", "-ldl"]);
    // The difference of two runs is free of start and end.
    let (few, many) = (20_000, 120_000);
    let per_event = |format: &str| {
        let run = |steps| instructions(folder, depth, steps, format);
        (run(many) - run(few)) as f64 / (2 * (many - few)) as f64
    };
    per_event(format) - per_event("")
}

fn check(title: &str, depth: &str, format: &str, limit: f64) {
    if need("valgrind", title).is_none() {
        return;
    }
    let folder = Folder::new(title);
    let added = added_per_event(&folder, depth, format);
    println!("{title}: {added:.1} instructions added per event, at most {limit} expected");
    assert!(added > 20.0, "{added}: nothing seems to be recorded");
    assert!(added <= limit, "{added:.1} instructions per event, at most {limit} expected");
}

#[test]
fn a_line_of_the_log_takes_few_instructions() {
    check("a_line_of_the_log_takes_few_instructions", "1", "mtrace", 200.0);
}

#[test]
fn an_event_with_an_unchanged_stack_takes_few_instructions() {
    check("an_event_with_an_unchanged_stack_takes_few_instructions", "1", "compact", 185.0);
}

#[test]
fn twenty_unchanged_frames_take_few_instructions() {
    check("twenty_unchanged_frames_take_few_instructions", "20", "compact", 220.0);
}
