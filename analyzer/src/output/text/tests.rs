use super::*;
use crate::profile::{
    AllocatedBy, Call, Certainty, Fault, FaultKind, Frame, FreeKind, Inside, Link, Location, Place,
    Site, SiteStack, StackNode, Stacks, Totals,
};

mod recursion; // what comes again and again
mod stacks; // how call stacks are shown

fn report(profile: &Profile, options: &Options) -> String {
    let mut out = Vec::new();
    write(profile, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn at(function: &str, file: &str, line: u32) -> Location {
    let frame = Frame {
        function: Some(function.into()),
        file: Some(file.into()),
        line: Some(line),
        inlined: false,
    };
    let place =
        Place { module: Some("/home/ann/t".into()), frames: vec![frame], ..Place::default() };
    Location { place, stated: "./t+0x1157".into(), stack: None }
}

fn three_leaks() -> Profile {
    let leak = |bytes, line| Site {
        location: at("main", "/home/ann/t_mtrace.c", line),
        live: Amount { bytes, blocks: 1 },
        ..Site::default()
    };
    Profile {
        trace: "/tmp/t".into(),
        program: Some("/home/ann/t_mtrace".into()),
        pid: Some(4711),
        ending: Ending::Exited,
        totals: Totals {
            allocs: 3,
            bytes: 456,
            live_bytes: 456,
            live_blocks: 3,
            ..Totals::default()
        },
        peak: Amount { bytes: 456, blocks: 3 },
        sites: vec![leak(256, 14), leak(100, 11), leak(100, 17)],
        ..Profile::default()
    }
}

fn in_home() -> Options {
    Options { folder: Some("/home/ann".into()), ..Options::default() }
}

#[test]
fn a_report_of_three_leaks() {
    assert_eq!(
        report(&three_leaks(), &in_home()),
        "\
program: t_mtrace
pid:     4711
trace:   /tmp/t

in use at exit: 456 bytes in 3 blocks
total heap usage: 3 allocs, 0 frees, 456 bytes allocated
peak: 456 bytes in 3 blocks

Still allocated at exit, by allocation site:

  256 bytes in 1 block
    main at t_mtrace.c:14
  100 bytes in 1 block
    main at t_mtrace.c:11
  100 bytes in 1 block
    main at t_mtrace.c:17
"
    );
}

#[test]
fn sites_that_are_not_shown_are_summed_up() {
    let text = report(&three_leaks(), &Options { top: 1, ..in_home() });
    assert!(
        text.ends_with(
            "  ... and 2 more sites with 200 bytes in 2 blocks\n  (--top 3 shows all)\n"
        ),
        "{text}"
    );
}

#[test]
fn a_running_program_has_live_blocks_and_no_exit() {
    let text = report(&Profile { ending: Ending::Running, ..three_leaks() }, &in_home());
    assert!(text.contains("pid:     4711, running\n"), "{text}");
    assert!(text.contains("live now: 456 bytes in 3 blocks\n"), "{text}");
    assert!(!text.contains("exit"), "{text}");
}

#[test]
fn a_place_without_frames_is_its_module_and_address() {
    let mut profile = three_leaks();
    profile.sites.truncate(2);
    profile.sites[0].location.place =
        Place { module: Some("/lib/x.so".into()), svma: Some(0x1157), ..Place::default() };
    profile.sites[1].location.place =
        Place { certainty: Certainty::Unresolved, ..Place::default() };
    let text = report(&profile, &in_home());
    assert!(text.contains("    /lib/x.so+0x1157\n"), "{text}");
    assert!(text.contains("    ./t+0x1157\n"), "{text}");
}

#[test]
fn inlined_frames_stand_beneath_and_those_of_a_runtime_are_left_out() {
    let mut profile = three_leaks();
    profile.sites.truncate(1);
    let place = &mut profile.sites[0].location.place;
    let frame = |function: &str, file: &str, inlined| Frame {
        function: Some(function.into()),
        file: Some(file.into()),
        line: Some(5),
        inlined,
    };
    place.frames = vec![
        frame("std::vector<int>::push_back", "/usr/include/c++/12/bits/stl_vector.h", true),
        frame("grow", "/home/ann/grow.cpp", true),
        frame("main", "/home/ann/main.cpp", false),
    ];
    place.certainty = Certainty::Inferred;
    let text = report(&profile, &in_home());
    assert!(
        text.ends_with(
            "    grow at grow.cpp:5 (inferred)\n    inlined into main at main.cpp:5 (inferred)\n"
        ),
        "{text}"
    );
}

#[test]
fn a_long_name_is_shortened_only_to_a_width_and_its_line_never() {
    let mut profile = three_leaks();
    profile.sites = vec![Site {
        location: at(&"template".repeat(30), &format!("/{}/x.cpp", "folder".repeat(20)), 7),
        live: Amount { bytes: 1, blocks: 1 },
        ..Site::default()
    }];
    let text = report(&profile, &in_home());
    assert!(text.contains(&format!("    {}\n", "template".repeat(30))), "{text}");
    let text = report(&profile, &Options { width: Some(80), ..in_home() });
    assert!(text.contains("\n    ...etemplate"), "{text}");
    assert!(text.contains("template\n"), "{text}");
    assert!(text.ends_with("/x.cpp:7\n"), "{text}");
}

#[test]
fn a_double_free_shows_all_three_places() {
    let mut profile = three_leaks();
    profile.sites.clear();
    profile.faults = vec![Fault {
        kind: FaultKind::DoubleFree,
        is_realloc: false,
        count: 2,
        ptr: 0x55a0,
        line: 1234,
        size: None,
        inside: None,
        by: at("main", "/home/ann/a.c", 3),
        freed: Some(at("cleanup", "/home/ann/a.c", 2)),
        allocated: Some(at("setup", "/home/ann/a.c", 1)),
    }];
    let text = report(&profile, &in_home());
    let expected = "
2 faults:

  Double free of 0x55a0 (line 1,234 of the trace, 2 times)
    freed by       main at a.c:3
    first freed by cleanup at a.c:2
    allocated by   setup at a.c:1
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_realloc_of_what_is_no_live_block_is_called_one() {
    let mut profile = three_leaks();
    profile.sites.clear();
    let freed = Fault {
        kind: FaultKind::DoubleFree,
        is_realloc: true,
        count: 1,
        ptr: 0x55a0,
        line: 9,
        size: None,
        inside: None,
        by: at("main", "/home/ann/a.c", 3),
        freed: Some(at("cleanup", "/home/ann/a.c", 2)),
        allocated: Some(at("setup", "/home/ann/a.c", 1)),
    };
    let inside = Some(Inside { start: 0x5590, size: 64 });
    let interior = Fault { kind: FaultKind::InteriorFree, inside, freed: None, ..freed.clone() };
    let unknown =
        Fault { kind: FaultKind::UnknownFree, inside: None, allocated: None, ..interior.clone() };
    profile.faults = vec![freed, interior, unknown];
    let text = report(&profile, &in_home());
    let expected = "
3 faults:

  Realloc of freed memory, 0x55a0 (line 9 of the trace)
    reallocated by main at a.c:3
    freed by       cleanup at a.c:2
    allocated by   setup at a.c:1
  Realloc of an address inside of a block, 0x55a0 (line 9 of the trace)
    16 bytes behind the beginning of a block of 64 bytes
    reallocated by main at a.c:3
    allocated by   setup at a.c:1
  Realloc of an address that was never allocated, 0x55a0 (line 9 of the trace)
    reallocated by main at a.c:3
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_mismatched_free_and_one_inside_of_a_block_say_what_they_are() {
    let mut profile = three_leaks();
    profile.sites.clear();
    let fault = Fault {
        kind: FaultKind::MismatchedFree {
            allocated: AllocatedBy::NewArray,
            freed: FreeKind::Delete,
        },
        is_realloc: false,
        count: 3,
        ptr: 0x55a0,
        line: 7,
        size: Some(100),
        inside: None,
        by: at("main", "/home/ann/a.c", 3),
        freed: None,
        allocated: Some(at("setup", "/home/ann/a.c", 1)),
    };
    let inside = Some(Inside { start: 0x55a0, size: 1 });
    let interior = Fault { kind: FaultKind::InteriorFree, ptr: 0x55b0, inside, ..fault.clone() };
    profile.faults = vec![fault, interior];
    let text = report(&profile, &in_home());
    let expected = "
6 faults:

  Mismatched free of 0x55a0 (line 7 of the trace, 3 times)
    100 bytes, allocated with new[], freed with delete
    freed by     main at a.c:3
    allocated by setup at a.c:1
  Free of an address inside of a block, 0x55b0 (line 7 of the trace, 3 times)
    16 bytes behind the beginning of a block of 1 byte
    freed by     main at a.c:3
    allocated by setup at a.c:1
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn notes_are_broken_at_eighty_columns_and_cannot_move_the_cursor() {
    let mut profile = three_leaks();
    profile.notes = vec![format!("{} \x1b[2J", "word ".repeat(40))];
    let text = report(&profile, &in_home());
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn one_is_not_many() {
    let mut profile = three_leaks();
    profile.totals = Totals {
        allocs: 1,
        frees: 1,
        bytes: 1,
        live_bytes: 1,
        live_blocks: 1,
        ..Totals::default()
    };
    profile.peak = Amount { bytes: 1, blocks: 1 };
    let text = report(&profile, &in_home());
    let expected = "in use at exit: 1 byte in 1 block\n\
                    total heap usage: 1 alloc, 1 free, 1 byte allocated\n\
                    peak: 1 byte in 1 block\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn samples_of_time_and_memory_are_shown() {
    let mut profile = three_leaks();
    profile.peak_time = Some(12_034_567_890);
    profile.peak_until = Some(12_044_000_000);
    profile.totals.resident = 8192;
    let text = report(&profile, &in_home());
    let expected = "peak: 456 bytes in 3 blocks, 12.034 s after the start\n\
                    resident memory: 8,192 bytes in the largest sample\n";
    assert!(text.contains(expected), "{text}");
    profile.peak_until = Some(14_000_000_000);
    let text = report(&profile, &in_home());
    assert!(text.contains(" blocks, 12.034 to 14.000 s after the start\n"), "{text}");
    profile.peak_until = None;
    let text = report(&profile, &in_home());
    assert!(text.contains(" blocks, at least 12.034 s after the start\n"), "{text}");
}

#[test]
fn the_list_of_all_allocations_says_what_it_is_sorted_by() {
    let mut profile = three_leaks();
    for (site, blocks) in profile.sites.iter_mut().zip([1, 500, 20]) {
        site.allocated = Amount { bytes: site.live.bytes, blocks };
    }
    let list = |sort| {
        let text = report(&profile, &Options { sort, ..in_home() });
        text.split_once("\n\nAllocated in all")
            .unwrap()
            .1
            .lines()
            .take(3)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let by_bytes = ", by allocation site, most bytes first:\n\n  256 bytes in 1 block";
    assert_eq!(list(Sort::Bytes), by_bytes);
    let by_calls = ", by allocation site, most allocations first:\n\n  100 bytes in 500 blocks";
    assert_eq!(list(Sort::Calls), by_calls);
}
