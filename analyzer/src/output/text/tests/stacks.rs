use super::*;

/// Two stacks that lead to `make`: one through the STL and operator new, one that is cut.
fn with_stacks() -> Profile {
    let call = |module: &str, frames: &[(&str, &str, bool)]| {
        let frame = |(function, file, inlined): &(&str, &str, bool)| Frame {
            function: Some((*function).into()),
            file: (!file.is_empty()).then(|| file.into()),
            line: (!file.is_empty()).then_some(7),
            inlined: *inlined,
        };
        let frames = frames.iter().map(frame).collect();
        let module = Some(module.into());
        Call::new(Place { module, frames, svma: Some(0x1157), ..Place::default() }, String::new())
    };
    let (own, cpp) = ("/home/ann/t", "/usr/lib/libstdc++.so.6");
    let calls = vec![
        call(cpp, &[("operator new(unsigned long)", "", false)]),
        call(
            own,
            &[
                ("std::vector<int>::push_back(int const&)", "/usr/include/c++/12/stl.h", true),
                ("fill", "/home/ann/fill.h", true),
                ("make", "/home/ann/make.cpp", false),
            ],
        ),
        call(own, &[("compare", "/home/ann/sort.cpp", false)]),
        call("/usr/lib/libc.so.6", &[("qsort", "", false)]),
        call(own, &[("main", "/home/ann/main.cpp", false)]),
        call("/usr/lib/libc.so.6", &[("__libc_start_main", "", false)]),
    ];
    let node = |parent, link| StackNode { parent, link };
    let nodes = vec![
        node(None, Link::Call(5)),
        node(Some(0), Link::Call(4)),
        node(Some(1), Link::Call(3)),
        node(Some(2), Link::Call(2)),
        node(Some(3), Link::Call(1)),
        node(Some(4), Link::Call(0)), // the whole of it
        node(Some(1), Link::Cut),
        node(Some(6), Link::Call(1)),
        node(None, Link::Ended),
        node(Some(8), Link::Call(1)),
    ];
    let stack = |stack, bytes| SiteStack {
        stack: Some(stack),
        live: Amount { bytes, blocks: 1 },
        ..SiteStack::default()
    };
    let location =
        Location { place: calls[1].place.clone(), stack: Some(7), ..Location::default() };
    let mut profile = three_leaks();
    profile.sites = vec![Site {
        location,
        stacks: vec![stack(7, 8), stack(5, 100), stack(9, 2)],
        live: Amount { bytes: 110, blocks: 3 },
        ..Site::default()
    }];
    profile.stacks = Stacks { calls, nodes, are_whole: true };
    profile
}

/// The report from the list of sites on.
fn list(profile: &Profile, options: &Options) -> String {
    let text = report(profile, options);
    let begin = text.find("\n\nStill").map_or(0, |at| at + 2);
    text[begin..].into()
}

#[test]
fn a_site_shows_its_largest_stack_and_runtimes_only_where_they_were_passed() {
    assert_eq!(
        list(&with_stacks(), &in_home()),
        "\
Still allocated at exit, by allocation site:

  110 bytes in 3 blocks
    fill at fill.h:7
      through std::vector<int>::push_back(int const&)
    inlined into make at make.cpp:7
    called from compare at sort.cpp:7
    called from main at main.cpp:7
      through qsort
    ... and 2 more stacks with 10 bytes in 2 blocks
  (--group-by stack shows each stack)
"
    );
}

#[test]
fn stacks_can_be_listed_each_with_what_is_missing_of_it() {
    let options = Options { group_by: GroupBy::Stack, top: 3, ..in_home() };
    let text = list(&with_stacks(), &options);
    assert!(text.starts_with("Still allocated at exit, by call stack:\n\n  100 bytes"), "{text}");
    assert!(
        text.ends_with(
            "
  8 bytes in 1 block
    fill at fill.h:7
      through std::vector<int>::push_back(int const&)
    inlined into make at make.cpp:7
    ... frames left out ...
    called from main at main.cpp:7
  2 bytes in 1 block
    fill at fill.h:7
      through std::vector<int>::push_back(int const&)
    inlined into make at make.cpp:7
    ... what called this is not known ...
"
        ),
        "{text}"
    );
}

#[test]
fn stacks_that_look_the_same_are_one() {
    let mut profile = with_stacks();
    // The same call of `compare` from another address of the same line.
    let Stacks { calls, nodes, .. } = &mut profile.stacks;
    calls.push(calls[2].clone());
    nodes.extend([
        StackNode { parent: Some(2), link: Link::Call(6) },
        StackNode { parent: Some(10), link: Link::Call(1) },
    ]);
    let mut same = profile.sites[0].stacks[1].clone();
    same.stack = Some(11);
    profile.sites[0].stacks.push(same);
    profile.sites[0].live = Amount { bytes: 210, blocks: 4 };
    let options = Options { group_by: GroupBy::Stack, ..in_home() };
    let text = list(&profile, &options);
    assert!(text.contains("\n  200 bytes in 2 blocks\n"), "{text}");
    assert_eq!(text.matches("compare at sort.cpp:7").count(), 1, "{text}");
    let text = list(&profile, &in_home());
    assert!(text.contains("... and 2 more stacks with 10 bytes in 2 blocks"), "{text}");
}

#[test]
fn what_is_suppressed_is_on_one_line_and_apart_where_it_is_shown() {
    let mut profile = with_stacks();
    profile.sites[0].stacks[1].is_suppressed = true;
    profile.suppressed = Amount { bytes: 100, blocks: 1 };
    let text = report(&profile, &in_home());
    let line = "suppressed: 100 bytes in 1 block that runtimes keep until exit by design\n";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("\n  10 bytes in 2 blocks\n    fill"), "{text}");
    assert!(text.contains("... and 1 more stack with 2 bytes in 1 block"), "{text}");
    let text = report(&profile, &Options { shows_suppressed: true, ..in_home() });
    let both = ["\n  10 bytes in 2 blocks\n", "\n  100 bytes in 1 block (suppressed)\n    fill"];
    assert!(both.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn no_more_frames_are_shown_than_asked_for_and_what_looks_the_same_so_is_one() {
    let options = Options { depth: 2, group_by: GroupBy::Stack, top: 1, ..in_home() };
    let text = list(&with_stacks(), &options);
    assert!(
        text.ends_with(
            "
  110 bytes in 3 blocks
    fill at fill.h:7
      through std::vector<int>::push_back(int const&)
    inlined into make at make.cpp:7
  (--depth 8 shows more of the stacks)
"
        ),
        "{text}"
    );
}

#[test]
fn a_place_of_a_fault_has_its_stack() {
    let mut profile = with_stacks();
    let by = profile.sites[0].location.clone();
    profile.sites.clear();
    let (kind, count, ptr, line) = (FaultKind::UnknownFree, 1, 0x10, 3);
    profile.faults = vec![Fault {
        kind,
        is_realloc: false,
        count,
        ptr,
        line,
        size: None,
        inside: None,
        by,
        allocated: None,
        freed: None,
    }];
    profile.is_compact = true;
    let text = report(&profile, &in_home());
    assert!(text.contains("(event 3 of the trace)\n    freed by fill at fill.h:7\n"), "{text}");
    assert!(text.contains("\n             inlined into make at make.cpp:7\n"), "{text}");
}

#[test]
fn a_stack_of_a_runtime_alone_says_so_and_begins_where_it_tells_something() {
    let call = |module: &str, functions: &[&str]| {
        let frame = |function: &&str| Frame {
            function: Some((*function).into()),
            file: module.is_empty().then(|| "/rustc/59807616e1/library/std/src/x.rs".into()),
            ..Frame::default()
        };
        let frames = functions.iter().map(frame).collect();
        let module = Some(if module.is_empty() { "/home/ann/t" } else { module }.into());
        Call::new(Place { module, frames, svma: Some(0x1157), ..Place::default() }, String::new())
    };
    let mut profile = three_leaks();
    let calls = vec![
        call("", &["alloc::alloc::alloc", "<alloc::boxed::Box<u8>>::new", "std::rt::init"]),
        call("/lib/libc.so.6", &["__libc_start_main"]),
    ];
    let node = |parent, link| StackNode { parent, link };
    let nodes = vec![
        node(None, Link::Call(1)),
        node(Some(0), Link::Call(0)),
        node(None, Link::Ended),
        node(Some(2), Link::Call(0)),
    ];
    profile.stacks = Stacks { calls, nodes, are_whole: true };
    let mut list_of = |stack| {
        let live = Amount { bytes: 8, blocks: 1 };
        let share = SiteStack { stack: Some(stack), live, ..SiteStack::default() };
        profile.sites = vec![Site { live, stacks: vec![share], ..Site::default() }];
        list(&profile, &in_home()).lines().skip(2).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        list_of(1),
        "  8 bytes in 1 block (by Rust's std itself)
    std::rt::init at /rustc/59807616e1/library/std/src/x.rs
      through <alloc::boxed::Box<u8>>::new
    called from __libc_start_main at /lib/libc.so.6+0x1157"
    );
    // Who knows what called it.
    let text = list_of(3);
    assert!(text.starts_with("  8 bytes in 1 block\n    std::rt::init at "), "{text}");
}

#[test]
fn a_log_of_what_a_runtime_was_asked_for_points_to_whole_stacks() {
    let hint = "\n  (a log names callers only; mtr-run by default records whole stacks)\n";
    let mut profile = with_stacks();
    profile.stacks.nodes =
        (0..6).map(|id| StackNode { parent: None, link: Link::Call(id) }).collect();
    profile.stacks.are_whole = false;
    for (stack, is_hinted) in [(0, true), (1, false)] {
        let site = &mut profile.sites[0];
        site.location.place = profile.stacks.calls[stack].place.clone();
        site.location.stack = Some(stack as u32);
        site.stacks = Vec::new();
        let text = list(&profile, &in_home());
        assert_eq!(text.contains(hint), is_hinted, "{text}");
    }
}
