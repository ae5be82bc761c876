//! What an event costs in instructions, counted by callgrind: the same for the same library and
//! program, whatever else the machine does. A gate, so that the hot path cannot rot.

mod support;

use support::*;

/// Instructions that a run of a workload takes, and how many events it has.
fn run(folder: &Folder, arguments: &[&str], size: &str, format: &str) -> (u64, u64) {
    let mut command = clean_command("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
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
    let number = |front: &str| {
        let rest = &text[text.find(front).expect(front) + front.len()..];
        let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit() && c != ',').next();
        digits.unwrap_or_default().replace(',', "").parse().expect("a number")
    };
    (number("refs:"), number("events="))
}

/// Checks how many instructions recording adds to an event of benches/workloads/`workload`.
fn check(title: &str, workload: &str, arguments: &[&str], format: &str, limit: f64) {
    if need("valgrind", title).is_none() {
        return;
    }
    let folder = Folder::new(title);
    let source = repository().join("benches/workloads").join(workload);
    // By the clock, the number of stamps would depend on how fast the machine is.
    let clock = program("counting_clock.c").into_os_string().into_string().expect("a name");
    compile(&folder, "w", &source, &["-O2", "-pthread", "-ldl", &clock]);
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
    check(title, "flat.c", &["-d", "1"], "compact", 145.0);
}

#[test]
fn twenty_unchanged_frames_take_few_instructions() {
    let title = "twenty_unchanged_frames_take_few_instructions";
    check(title, "flat.c", &["-d", "20"], "compact", 180.0);
}

#[test]
fn changing_stacks_take_few_instructions() {
    let title = "changing_stacks_take_few_instructions";
    check(title, "tree.c", &["-d", "8", "-l", "20000"], "compact", 475.0);
}

#[test]
fn changes_that_come_again_take_few_instructions() {
    let title = "changes_that_come_again_take_few_instructions";
    check(title, "stl.cpp", &[], "compact", 285.0);
}
