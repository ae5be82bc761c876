use super::*;
use crate::profile::{Place, Totals};

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
    Location { place, stated: "./t+0x1157".into() }
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
fn a_long_name_is_cut_and_its_line_never() {
    let mut profile = three_leaks();
    profile.sites = vec![Site {
        location: at(&"template".repeat(30), &format!("/{}/x.cpp", "folder".repeat(20)), 7),
        live: Amount { bytes: 1, blocks: 1 },
        ..Site::default()
    }];
    let text = report(&profile, &in_home());
    assert!(text.contains("...\n"), "{text}");
    assert!(text.ends_with("/x.cpp:7\n"), "{text}");
}

#[test]
fn a_double_free_shows_all_three_places() {
    let mut profile = three_leaks();
    profile.sites.clear();
    profile.faults = vec![Fault {
        kind: FaultKind::DoubleFree,
        count: 2,
        ptr: 0x55a0,
        line: 1234,
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
fn notes_are_broken_at_eighty_columns_and_cannot_move_the_cursor() {
    let mut profile = three_leaks();
    profile.notes = vec![format!("{} \x1b[2J", "word ".repeat(40))];
    let text = report(&profile, &in_home());
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}
