//! Control flow that passes hooks by: jumps, exceptions, coroutines, signals.

mod support;

use std::path::PathBuf;
use support::*;

fn build(folder: &Folder, name: &str, flags: &[&str]) -> PathBuf {
    let output = name.split('.').next().unwrap();
    compile(folder, output, &program(name), flags)
}

/// A program that prints the same each time, and behaves the same in each build.
#[track_caller]
fn is_recorded(name: &str, builds: &[&[&str]]) {
    let folder = Folder::new(name);
    for flags in builds {
        let program = build(&folder, name, flags);
        Hazard::new(&program, &[]).is_recorded(&folder);
    }
}

fn signal_safe_malloc(folder: &Folder) -> PathBuf {
    let flags = ["-shared", "-fPIC", "-O1"];
    compile(folder, "libsafe.so", &program("signal_safe_malloc.c"), &flags)
}

#[test]
fn longjmp_out_of_frames_that_allocate() {
    is_recorded("jumps_over_frames.c", &[&["-O0"], &["-O2"]]);
}

#[test]
fn exceptions_through_frames_that_allocate() {
    is_recorded("exceptions_over_frames.cpp", &[&["-O0"], &["-O2"]]);
}

#[test]
fn panics_that_are_caught() {
    is_recorded("panics.rs", &[&["-O"]]);
}

#[test]
fn coroutines_whose_stacks_vanish_or_shrink() {
    is_recorded("vanishing_stacks.c", &[&["-O0"], &["-O1"]]);
}

#[test]
fn an_overflow_of_the_stack_that_is_caught_on_another() {
    let flags = ["-O0", "-pthread"];
    is_recorded("overflown_stack.c", &[&flags]);
}

#[test]
fn a_storm_of_signals_while_a_program_allocates() {
    is_recorded("signal_storm.c", &[&["-O1", "-pthread"]]);
}

#[test]
fn handlers_that_interrupt_handlers_that_interrupt_hooks() {
    let folder = Folder::new("handlers");
    let program = build(&folder, "handlers_in_handlers.c", &["-O1"]);
    let hazard = Hazard::new(&program, &["400"]).preload(&signal_safe_malloc(&folder));
    hazard.differs_by_run().is_recorded(&folder);
}

#[test]
fn handlers_on_an_alternate_stack_that_interrupt_hooks_and_each_other() {
    let folder = Folder::new("handlers-alternate");
    let program = build(&folder, "handlers_in_handlers.c", &["-O1"]);
    let arguments = ["400", "alternate"];
    let hazard = Hazard::new(&program, &arguments).preload(&signal_safe_malloc(&folder));
    hazard.differs_by_run().is_recorded(&folder);
}

#[test]
fn recording_goes_on_after_handlers_have_jumped_out_of_hooks() {
    // More than there can be streams.
    const JUMPS: u64 = 5000;
    let folder = Folder::new("jumps-out");
    let program = build(&folder, "jumps_out_of_hooks.c", &["-O1"]);
    let arguments = [&*JUMPS.to_string()];
    let hazard = Hazard::new(&program, &arguments).preload(&signal_safe_malloc(&folder));
    for (format, run) in hazard.differs_by_run().run(&folder) {
        let recorded = Recorded::of(format, &run);
        // What was left in the middle may keep the tail necessary.
        recorded.is_sound();
        let (found, printed) = (recorded.own_counts(), printed_counts(&run.stdout()));
        for size in [90_000, 90_002] {
            assert_eq!(found[&size], printed[&size], "{format:?}, {}", run.description());
        }
        let ((made, ended), (counted, counted_ends)) = (found[&90_001], printed[&90_001]);
        assert!(made.abs_diff(counted) <= JUMPS, "{format:?}: {made} made, {counted} counted");
        assert!(ended.abs_diff(counted_ends) <= JUMPS, "{format:?}: {ended}, {counted_ends}");
        if let Recorded::Compact(trace) = &recorded {
            // A jump out of a stream's use costs it; how many do is chance.
            assert!(trace.streams < 100, "{} streams of one thread", trace.streams);
        }
    }
}
