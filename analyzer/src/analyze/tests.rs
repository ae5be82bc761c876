use super::*;
use crate::profile::{AllocatedBy, Certainty, FaultKind};
use crate::read::CallSite;
use crate::read::Holes;
use crate::read::compact::{self, writer::Writer};
use crate::read::mtrace_text::read_from;
use crate::symbolize::{Frame, Place};
use mtr_format::compact::op::{FRAMES_CUT, Family, FreeKind, WALK_ENDED};

mod damage; // a damaged trace of a correct program

/// The profile of a trace with this text, every place resolved by `resolve`.
fn profile_of(text: &str, resolve: impl Fn(&CallSite) -> Place) -> Profile {
    let kind_of_log = if text.starts_with("# mtr") { Order::Kept } else { Order::Loose };
    let mut replay = Replay::new(kind_of_log);
    let path = Path::new("t.mtrace");
    let input = text.as_bytes();
    let log = read_from(input, path, 4096, Holes::AreLosses, |e| replay.event(e)).unwrap();
    let places = log.sites.sites.iter().map(resolve).collect();
    profile(
        path,
        &log,
        replay.finish(),
        false,
        Resolved { places, ..Resolved::default() },
        &[],
        None,
    )
}

fn unresolved(_: &CallSite) -> Place {
    Place { certainty: Certainty::Unresolved, ..Place::default() }
}

#[test]
fn sites_on_the_same_line_are_one() {
    let text = "@ ./t:[0x1] + 0x10 0x10\n@ ./t:[0x2] + 0x20 0x20\n@ ./t:[0x3] + 0x30 0x90\n";
    let profile = profile_of(text, |site| Place {
        module: Some("/t".into()),
        svma: site.address,
        frames: vec![Frame {
            function: Some("main".into()),
            file: Some("/t.c".into()),
            line: Some(if site.address == Some(3) { 8 } else { 7 }),
            inlined: false,
        }],
        certainty: Certainty::Stated,
        ..Place::default()
    });
    let live: Vec<_> = profile.sites.iter().map(|s| (s.live.bytes, s.live.blocks)).collect();
    assert_eq!(live, [(0x90, 1), (0x30, 2)]);
}

#[test]
fn unresolved_sites_stay_apart_and_keep_the_name_that_the_trace_gives() {
    let text = "@ ./t:[0x1] + 0x10 0x10\n@ ./t:(f+1d)[0x2] + 0x20 0x20\n";
    let profile = profile_of(text, unresolved);
    let names: Vec<_> = profile.sites.iter().map(|s| &s.location.stated[..]).collect();
    assert_eq!(names, ["./t(f+0x1d)+0x2", "./t+0x1"]);
}

#[test]
fn code_of_no_module_is_said_to_be_in_none_where_the_trace_names_modules() {
    let names = |text: &str| -> Vec<String> {
        profile_of(text, unresolved).sites.into_iter().map(|site| site.location.stated).collect()
    };
    let jit = "@ [0x7f10] + 0x10 0x10\n";
    let old = names(jit);
    assert_eq!(old, ["0x7f10"]);
    let glibc = names(&format!("@ ./t:[0x1] + 0x20 0x20\n{jit}"));
    assert_eq!(glibc, ["./t+0x1", "0x7f10 (in no module)"]);
    let module = "# module 0x1000 0x2000 0x0 - /t ./t";
    let ours = names(&format!("# mtr log 1\n{module}\n{jit}@ [0x1500] + 0x20 0x8\n"));
    assert_eq!(ours, ["0x7f10 (in no module)", "0x1500"]);
}

#[test]
fn a_free_of_an_unknown_block_is_a_fault_only_when_all_was_recorded() {
    let free = "= Start\n@ ./t:[0x1] - 0x10\n";
    let whole = "# mtr log 1\n# start process\n";
    assert_eq!(profile_of(&format!("{whole}{free}"), unresolved).faults.len(), 1);
    let went_on = profile_of(&format!("{whole}{free}# exit\n"), unresolved);
    assert_eq!(went_on.faults, []);
    assert!(went_on.notes.iter().any(|n| n.starts_with("1 free of blocks that")), "{went_on:?}");
    for head in ["", "# mtr log 1\n# start mtrace\n", &format!("{whole}# parent 1 - p\n")] {
        let profile = profile_of(&format!("{head}{free}"), unresolved);
        assert_eq!(profile.faults, []);
        assert!(profile.notes.iter().any(|n| n.starts_with("1 block ")), "{:?}", profile.notes);
    }
}

#[test]
fn a_realloc_that_the_process_did_not_come_out_of_is_a_fault_by_the_same_rules() {
    let whole = "# mtr log 1\n# start process\n= Start\n@ ./t:[0x1] + 0x100 0x10\n";
    let open = |ptr: &str| format!("\0\0\0\0\0\0\0\00x1157] < {ptr}\n");
    let faults = |text: String| {
        let profile = profile_of(&text, unresolved);
        assert!(!profile.notes.join("\n").contains("tracing never saw"), "{:?}", profile.notes);
        assert!(profile.faults.iter().all(|fault| fault.is_realloc));
        profile.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>()
    };
    assert_eq!(faults(whole.to_owned() + &open("0x100")), [], "killed in a realloc that is right");
    assert_eq!(faults(whole.to_owned() + &open("0x108")), [FaultKind::InteriorFree]);
    assert_eq!(faults(whole.to_owned() + &open("0x900")), [FaultKind::UnknownFree]);
    let freed = format!("{whole}- 0x100\n{}", open("0x100"));
    assert_eq!(faults(freed), [FaultKind::DoubleFree]);
    // Where it went on, or not all was recorded, the block may be one that tracing never saw.
    assert_eq!(faults(format!("{whole}{}# exit\n", open("0x900"))), []);
    let later = whole.replace("start process", "start mtrace");
    assert_eq!(faults(later + &open("0x900")), []);
    // What is left of a line that was cut off by somebody need not be a realloc that did not return.
    assert_eq!(faults(format!("{whole}@ ./t:[0x11{}", open("0x900"))), []);
}

#[test]
fn a_double_free_is_always_a_fault() {
    let profile = profile_of("+ 0x10 0x10\n- 0x10\n- 0x10\n", unresolved);
    assert_eq!(profile.faults[0].kind, FaultKind::DoubleFree);
}

#[test]
fn what_passed_tracing_by_explains_what_looks_like_faults() {
    let whole = "# mtr log 1\n# start process\n= Start\n";
    let lines = "+ 0x100 0x10\n+ 0x100 0x20\n- 0x100\n- 0x100\n+ 0x200 0x40\n- 0x210\n";
    let profile = profile_of(&format!("{whole}{lines}# exit\n"), unresolved);
    assert_eq!(profile.faults, []);
    let notes = profile.notes.join("\n");
    assert!(notes.contains("1 duplicate allocation of an address"), "{notes}");
    assert!(notes.contains("2 frees that would be faults"), "{notes}");
    // Where the process ended at one, that one is.
    let profile = profile_of(&format!("{whole}{lines}"), unresolved);
    let kinds: Vec<_> = profile.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::DoubleFree, FaultKind::InteriorFree]);
}

#[test]
fn a_child_may_free_what_it_inherited_inside_of_what_another_thread_allocates() {
    let child = "# mtr log 1\n# start process\n# parent 7 100 ./log\n= Start\n";
    let lines = "+ 0x100 0x40\n- 0x120\n";
    let profile = profile_of(&format!("{child}{lines}# exit\n"), unresolved);
    assert_eq!(profile.faults, []);
    // Where it ended at it, that is why.
    let profile = profile_of(&format!("{child}{lines}"), unresolved);
    assert_eq!(profile.faults[0].kind, FaultKind::InteriorFree);
}

#[test]
fn a_program_that_never_switched_tracing_on_is_told_how() {
    let profile = profile_of("# mtr log 1\n# start mtrace\n# exit\n", unresolved);
    assert!(profile.notes[0].contains("MTR_START=process"), "{:?}", profile.notes);
    assert_eq!(profile.ending, Ending::Exited);
}

#[test]
fn a_double_free_that_lost_records_can_explain_is_no_fault() {
    let twice = "# mtr log 1\n+ 0x10 0x10\n- 0x10\n- 0x10\n";
    let lossy = profile_of(&format!("{twice}# lost 1 28\n"), unresolved);
    assert!(lossy.faults.is_empty(), "{:?}", lossy.faults);
    assert!(lossy.notes.iter().any(|note| note.contains("freed again")), "{:?}", lossy.notes);
    let more = profile_of(&format!("{twice}- 0x10\n# lost 1 28\n"), unresolved);
    assert_eq!(more.faults.len(), 1, "two double frees, and one record lost");
}

#[test]
fn a_block_whose_free_was_lost_is_said_to_be_taken_for_freed() {
    let twice = "# mtr log 1\n+ 0x10 0x10\n+ 0x10 0x20\n";
    let lossy = profile_of(&format!("{twice}# lost 1 28\n"), unresolved);
    let said = "1 address was allocated again; the frees in between may be among what was lost.";
    assert_eq!((lossy.totals.frees, lossy.totals.live_bytes), (1, 0x20));
    assert!(lossy.notes.iter().any(|note| note == said), "{:?}", lossy.notes);
}

#[test]
fn what_is_missing_makes_a_trace_incomplete() {
    for text in ["hello\n+ 0x10 0x10\n", "+ 0x10 0x1", "# mtr log 1\n# lost 3 28\n"] {
        let profile = profile_of(text, unresolved);
        assert!(profile.incomplete && !profile.notes.is_empty(), "{text}");
    }
    assert!(!profile_of("= Start\n+ 0x10 0x10\n", unresolved).incomplete);
}

/// The profile of a compact trace in which each address is a function of its own: those at
/// 0x7f... of a libc, the others of the program.
fn profile_of_trace(trace: &Writer) -> Profile {
    profile_of_chunks(&trace.chunks()).unwrap()
}

fn profile_of_chunks(chunks: &compact::Chunks) -> Result<Profile, Error> {
    let mut replay = Replay::new(Order::Kept);
    let path = Path::new("t.mtr");
    let log = compact::read_from(chunks, path, |e| replay.event(e))?;
    let resolve = |site: &CallSite| Place {
        module: site.module.map(|id| log.sites.modules[id as usize].path.clone()),
        svma: site.address,
        frames: vec![Frame {
            function: site.address.map(|address| format!("f{address:x}")),
            file: Some("/t.c".into()),
            line: site.address.map(|address| address as u32 & 0xfff),
            inlined: false,
        }],
        certainty: Certainty::Stated,
        ..Place::default()
    };
    let places = log.sites.sites.iter().map(resolve).collect();
    Ok(profile(
        path,
        &log,
        replay.finish(),
        false,
        Resolved { places, ..Resolved::default() },
        &[],
        None,
    ))
}

#[test]
fn the_site_of_a_stack_is_its_first_frame_outside_the_runtimes() {
    let mut trace = Writer::new();
    let direct = trace.stack(&[0x401001, 0x401100]);
    let through_libc = trace.stack(&[0x7f0000000002, 0x401001, 0x401200]);
    let only_libc = trace.stack(&[0x7f0000000003, 0x7f0000000004]);
    for (ptr, node) in [(0x10, direct), (0x20, through_libc), (0x30, only_libc)] {
        let info = trace.info(node, ptr, Family::Malloc);
        trace.alloc(info, ptr);
    }
    let profile = profile_of_trace(&trace);
    let sites: Vec<_> = profile
        .sites
        .iter()
        .map(|s| (s.location.frame().unwrap().line.unwrap(), s.live.bytes, s.stacks.len()))
        .collect();
    assert_eq!(sites, [(1, 0x30, 2), (3, 0x30, 1)]);
}

#[test]
fn the_same_stack_in_two_threads_is_one() {
    let mut trace = Writer::new();
    for stream in [0, 1] {
        let node = trace.stream(stream).stack(&[0x401001, 0x401100]);
        let info = trace.info(node, 8, Family::Malloc);
        trace.alloc(info, (stream as u64 + 1) << 4);
    }
    let profile = profile_of_trace(&trace);
    assert_eq!(profile.sites.len(), 1);
    assert_eq!(profile.sites[0].stacks.len(), 1);
    assert_eq!(profile.sites[0].stacks[0].live, Amount { bytes: 16, blocks: 2 });
}

#[test]
fn mismatched_frees_are_claimed_only_where_nothing_excuses_them() {
    let faults = |head: &str| {
        let mut trace = Writer::new();
        trace.text(head.as_bytes());
        let array = trace.stack(&[0x401001, 0x401100]);
        let info = trace.info(array, 8, Family::NewArray);
        trace.alloc(info, 0x10).free_by(0x10, FreeKind::Delete).text(b"# exit\n");
        profile_of_trace(&trace).faults
    };
    let standard = faults("# start process\n# operators standard\n");
    let [fault] = &standard[..] else { panic!("{standard:?}") };
    let (allocated, freed) = (AllocatedBy::NewArray, FreeKind::Delete);
    assert_eq!(fault.kind, FaultKind::MismatchedFree { allocated, freed });
    assert_eq!((fault.count, fault.size, fault.ptr), (1, Some(8), 0x10));
    assert_eq!(faults("# start process\n"), []);
}

#[test]
fn a_stack_of_which_nothing_is_known_has_a_name() {
    let mut trace = Writer::new();
    let node = trace.stack(&[WALK_ENDED]);
    let info = trace.info(node, 8, Family::Malloc);
    trace.alloc(info, 0x10).free(0x10).free(0x10);
    let profile = profile_of_trace(&trace);
    assert!(profile.sites[0].location.stated.starts_with("a place that could not be told"));
    let fault = &profile.faults[0];
    assert_eq!((fault.kind, fault.line), (FaultKind::DoubleFree, 3));
    assert_eq!(fault.by.stated, "a place that the trace does not state");
}

#[test]
fn faults_at_the_same_places_are_one_whatever_led_there() {
    let mut trace = Writer::new();
    for caller in [0x401100, 0x401200] {
        let node = trace.stack(&[0x401001, caller]);
        let info = trace.info(node, 8, Family::Malloc);
        trace.alloc(info, 0x10).free(0x10).free(0x10);
    }
    let faults = profile_of_trace(&trace).faults;
    assert_eq!((faults.len(), faults[0].count, faults[0].line), (1, 2, 3));
}

#[test]
fn a_chunk_that_is_missing_makes_a_trace_incomplete_and_explains_any_fault() {
    let mut trace = Writer::new();
    let node = trace.stack(&[0x401001]);
    let info = trace.info(node, 8, Family::Malloc);
    trace.end_chunk();
    trace.time = 1_500_000_000;
    trace.alloc(info, 0x10).free(0x10).free(0x10).end_chunk();
    trace.alloc(info, 0x20).end_chunk().free(0x20);
    let whole = profile_of_trace(&trace);
    assert!(!whole.incomplete && whole.faults.len() == 1, "{:?}", whole.notes);
    trace.end_chunk().chunks.remove(2);
    let profile = profile_of_trace(&trace);
    assert!(profile.incomplete && profile.faults.is_empty());
    let note = profile.notes.iter().find(|note| note.starts_with("1 chunk of")).unwrap();
    assert!(note.contains("is missing from 1.500 s after the start on"), "{note}");
}

#[test]
fn a_hole_in_a_log_is_said_and_explains_any_fault() {
    let lines =
        |range: std::ops::Range<u32>| range.map(|n| format!("+ 0x{n}0 0x10\n")).collect::<String>();
    let (front, hole) =
        (format!("# mtr log 1\n# start process\n= Start\n{}", lines(10..20)), "\0".repeat(13_000));
    let rest = format!("{}- 0x50\n- 0x110\n- 0x110\n# exit\n", lines(20..110));
    let note = |text: &str| {
        let profile = profile_of(text, unresolved);
        assert!(profile.incomplete && profile.faults.is_empty(), "{:?}", profile.faults);
        let notes = profile.notes.join("\n");
        assert!(notes.contains("whose allocations the trace does not show"), "{notes}");
        profile.notes.into_iter().find(|note| note.contains("bytes of the trace")).unwrap()
    };
    let text = format!("{front}{hole}{rest}");
    let middle = note(&text);
    assert!(
        middle.contains("13,000 bytes of the trace are missing behind line 13 (byte "),
        "{middle}"
    );
    assert!(middle.contains("some 1,000 records by the length of the others"), "{middle}");
    let front = note(&format!("{hole}{rest}"));
    assert!(
        front.contains("13,000 bytes of the trace are missing from its beginning on"),
        "{front}"
    );
    let both = note(&format!("{hole}{text}# lost 3 5\n"));
    assert!(
        both.contains("26,000 bytes of the trace are missing in 2 places, the first from"),
        "{both}"
    );
    assert!(!both.contains(" some "), "what could not be written has been counted: {both}");
    let lost = profile_of(&format!("{text}# lost 900 5\n"), unresolved);
    let notes = lost.notes.join("\n");
    assert!(lost.incomplete && !notes.contains("bytes of the trace"), "{notes}");
}

#[test]
fn allocations_whose_stacks_are_not_whole_are_counted() {
    let mut trace = Writer::new();
    let whole = trace.stack(&[0x401001, 0x401100]);
    let ended = trace.stack(&[0x401002, 0x401100, WALK_ENDED]);
    let cut = trace.stack(&[0x401003, FRAMES_CUT, 0x401100, WALK_ENDED]);
    for (ptr, node) in (1..).zip([whole, ended, ended, cut]) {
        let info = trace.info(node, 8, Family::Malloc);
        trace.alloc(info, 16 * ptr);
    }
    let notes = profile_of_trace(&trace).notes;
    let has = |text: &str| notes.iter().any(|note| note.starts_with(text));
    assert!(has("1 allocation had more than 4,096 frames"), "{notes:?}");
    assert!(has("3 allocations have a call stack that ends before its root"), "{notes:?}");
}

#[test]
fn only_of_several_threads_it_is_said_how_exact_their_order_is() {
    let mut trace = Writer::new();
    let has_note = |trace: &Writer| {
        profile_of_trace(trace).notes.iter().any(|note| note.contains("different threads"))
    };
    assert!(!has_note(&trace));
    trace.stream(1).free(0x10);
    assert!(has_note(&trace));
}

#[test]
fn of_calls_that_failed_the_largest_is_named() {
    let notes = |text: &str| profile_of(text, unresolved).notes;
    let one = "1 call for 255 bytes failed; it is not counted as an allocation.";
    assert_eq!(notes("+ (nil) 0xff\n"), [one]);
    let two = "2 calls failed, the largest for 4,096 bytes; they are not counted as allocations.";
    assert_eq!(notes("+ (nil) 0x1000\n+ (nil) 0xff\n"), [two]);
}

#[test]
fn a_trace_without_records_says_what_that_can_mean() {
    let says = |text: &str, words: &[&str], not: &str| {
        let note = profile_of(text, unresolved).notes.swap_remove(0);
        assert!(words.iter().all(|words| note.contains(words)), "{note}");
        assert!(!note.contains(not), "{note}");
    };
    let ours = "# mtr log 1\n# start process\n= Start\n";
    let none = "called no function of libc's that allocates or frees up to its end. Small programs";
    says(&format!("{ours}# exit\n"), &[none, "an allocator of its own"], "mtrace()");
    says(ours, &["frees before the trace ends. "], "mtrace()");
    says("= Start\n= End\n", &["while tracing was on, which is from mtrace()"], "allocator");
    let switched = "# mtr log 1\n# start mtrace\n= Start\n# exit\n";
    says(switched, &["while tracing was on, which is from mtrace()"], "allocator");
    let lost = format!("{ours}# lost 3 28\n");
    says(&lost, &["no records that can be read: what is missing is said below"], "allocator");
}
