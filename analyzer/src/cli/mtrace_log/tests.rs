use hashbrown::HashMap;
use mtr_format::compact::op::{Family, Outcome as Came};
use proptest::prelude::*;

use super::*;
use crate::read::compact::writer::Writer as Trace;
use crate::read::{CallSites, Link, read};
use crate::replay::{Order, Outcome, Replay};

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

fn sample() -> Trace {
    let mut trace = Trace::new();
    let main = trace.stack(&[0x401136, 0x401200]);
    let other = trace.stack(&[0x401136, 0x401300]);
    let unknown = trace.stack(&[0x9999_0000]);
    let infos = [(main, 100), (other, 0x40), (unknown, 0)]
        .map(|(node, size)| trace.info(node, size, Family::Malloc));
    let moved = trace.info(main, 300, Family::Realloc);
    trace.alloc(infos[0], 0x4052a0).alloc(infos[1], 0x405300).alloc(infos[2], 0x405400);
    trace.realloc_at(Came::Ended, 0x4052a0, main).alloc(moved, 0x405500);
    trace.failed(infos[0], 0).realloc(Came::Unchanged, 0x405500).failed(moved, 0x405500);
    trace.free(0x405300).free(0x405300).realloc(Came::Freed, 0x405400);
    trace.text(b"# lost 2 28\n# exit\n");
    trace
}

#[test]
fn a_log_has_the_lines_of_the_trace_and_its_innermost_calls() {
    let mut log = Vec::new();
    convert(file(&sample().bytes()).path(), Caller::Direct, &mut log).unwrap();
    let log = String::from_utf8(log).unwrap();
    assert!(log.starts_with("# mtr log 1\n# id 1f2e3d4c5b6a7988\n"), "{log}");
    let expected = "= Start
@ ./t\\040x:[0x401136] + 0x4052a0 0x64
@ ./t\\040x:[0x401136] + 0x405300 0x40
@ [0x99990000] + 0x405400 0
@ ./t\\040x:[0x401136] < 0x4052a0
@ ./t\\040x:[0x401136] > 0x405500 0x12c
@ ./t\\040x:[0x401136] + (nil) 0x64
@ ./t\\040x:[0x401136] ! 0x405500 0x12c
- 0x405300
- 0x405300
- 0x405400
# lost 2 28
# exit
";
    assert!(log.ends_with(expected), "{log}");
}

/// Numbers of each call, by its address.
type ByCall = Vec<(Option<u64>, [u64; 6])>;

/// What a replay says of a trace and of each call.
fn numbers(path: &Path) -> (Outcome, ByCall) {
    let mut replay = Replay::new(Order::Kept);
    let CallSites { sites, stacks, .. } = read(path, |event| replay.event(event)).unwrap().sites;
    let outcome = replay.finish();
    let mut by_call: HashMap<Option<u64>, [u64; 6]> = HashMap::new();
    for (id, t) in outcome.sites.iter().enumerate().filter(|(_, t)| t.allocs > 0) {
        let site = match stacks.get(id).map(|node| node.link) {
            None => Some(id as u32),
            Some(Link::Call(site)) => Some(site),
            Some(_) => None,
        };
        let address = site.and_then(|site| sites[site as usize].address);
        let all = [t.allocs, t.bytes, t.live_blocks, t.live_bytes, t.peak_blocks, t.peak_bytes];
        let sum = by_call.entry(address).or_default();
        sum.iter_mut().zip(all).for_each(|(sum, value)| *sum += value);
    }
    let mut by_call: Vec<_> = by_call.into_iter().collect();
    by_call.sort_unstable();
    (outcome, by_call)
}

#[test]
fn what_is_converted_has_the_same_totals_peak_faults_and_sites() {
    let trace = file(&sample().bytes());
    let mut text = Vec::new();
    convert(trace.path(), Caller::Direct, &mut text).unwrap();
    let log = file(&text);
    let ((ours, our_sites), (theirs, their_sites)) = (numbers(trace.path()), numbers(log.path()));
    assert_eq!(ours.totals, theirs.totals);
    assert_eq!((ours.peak.bytes, ours.peak.blocks), (theirs.peak.bytes, theirs.peak.blocks));
    assert_eq!(our_sites, their_sites);
    let kinds = |outcome: &Outcome| -> Vec<_> {
        outcome.faults.iter().map(|fault| (fault.kind, fault.ptr, fault.count)).collect()
    };
    assert_eq!(kinds(&ours), kinds(&theirs));
}

#[test]
fn the_script_s_output_is_that_of_the_converted_log() {
    let trace = file(&sample().bytes());
    let mut text = Vec::new();
    convert(trace.path(), Caller::Direct, &mut text).unwrap();
    let report = |path: &Path| {
        let mut out = Vec::new();
        let ran = crate::cli::mtrace::run(&[], path, Caller::Direct, &mut out).unwrap();
        (ran.left, String::from_utf8(out).unwrap())
    };
    let (left, of_trace) = report(trace.path());
    assert!(left && of_trace.contains("Memory not freed"), "{of_trace}");
    assert_eq!(of_trace, report(file(&text).path()).1);
}

#[test]
fn a_log_stays_as_it_is() {
    let text = b"# mtr log 1\n@ ./t:[0x1] + 0x10 0x20\n";
    let mut copied = Vec::new();
    convert(file(text).path(), Caller::Direct, &mut copied).unwrap();
    assert_eq!(copied, text);
}

#[test]
fn what_is_missing_is_said_in_its_place() {
    let mut trace = Trace::new();
    trace.text(b"# lost 7 28 3000\n# open\n");
    let node = trace.stack(&[0x401136]);
    let info = trace.info(node, 1, Family::Malloc);
    for (time, ptr) in [(3000, 0x10), (5000, 0x20), (6000, 0x30), (7000, 0x40), (8000, 0x50)] {
        trace.end_chunk().time = time;
        trace.lose([0, 3, 0, 0, 4][ptr as usize / 16 - 1]).alloc(info, ptr);
    }
    let mut chunks = trace.all();
    chunks.remove(3);
    let (mut log, trace) = (Vec::new(), file(&crate::read::compact::writer::file_of(&chunks)));
    convert(trace.path(), Caller::Direct, &mut log).unwrap();
    let log = String::from_utf8(log).unwrap();
    let lines: Vec<_> = log.lines().skip_while(|line| *line != "# open").collect();
    let at = |ptr| format!("@ ./t\\040x:[0x401136] + {ptr} 0x1");
    let [first, second, fourth, fifth] = ["0x10", "0x20", "0x40", "0x50"].map(at);
    let expected = [
        "# open",
        &first,
        "# lost 3 28 3000",
        &second,
        "# missing 1 5000",
        &fourth,
        "# lost 7 28 3000",
        &fifth,
    ];
    assert_eq!(lines, expected, "{log}");
}

#[test]
fn a_record_can_name_the_first_frame_outside_the_runtimes() {
    let mut trace = Trace::new();
    let in_libc = [0x7f00_0000_1000, 0x7f00_0000_2000];
    let stacks = [
        trace.stack(&[in_libc[0], in_libc[1], 0x401136, 0x401200]),
        trace.stack(&[0x401140, in_libc[0], 0x401200]),
        trace.stack(&in_libc),
        trace.stack(&[in_libc[0], 0x9999_0000, 0x401200]),
    ];
    for (ptr, node) in (1..).zip(stacks) {
        let info = trace.info(node, 1, Family::Malloc);
        trace.alloc(info, ptr * 16);
    }
    let trace = file(&trace.bytes());
    let places = |caller| {
        let mut log = Vec::new();
        convert(trace.path(), caller, &mut log).unwrap();
        let log = String::from_utf8(log).unwrap();
        let places = log.lines().filter_map(|line| line.strip_prefix("@ ")?.split(' ').next());
        places.map(str::to_owned).collect::<Vec<_>>()
    };
    let libc = "/lib/libc.so.6:[0x7f0000001000]";
    let user =
        ["./t\\040x:[0x401136]", "./t\\040x:[0x401140]", libc, "[0x99990000]"].map(str::to_owned);
    assert_eq!(places(Caller::User), user);
    assert_eq!(places(Caller::Direct), [libc, &user[1], libc, libc]);
}

/// What is said to be missing, but for where the first hole and the first bad line are.
fn missing(log: &Log) -> Damage {
    Damage { first_hole: None, first_malformed: None, ..log.damage.clone() }
}

proptest! {
    #[test]
    fn a_copy_of_a_log_with_holes_says_the_same_is_missing(
        records in 1..400usize,
        holes in prop::collection::vec((any::<usize>(), 1..6000usize), 0..4),
        cut in prop_oneof![Just(0), 0..60usize],
    ) {
        let mut text = b"# mtr log 1\n# pid 1\n# lost 2 28 5\n".to_vec();
        for record in 0..records {
            writeln!(text, "@ ./t:[0x{:x}] + 0x{:x}0 0x10", record % 7, record + 1).unwrap();
        }
        for (at, length) in holes {
            let length = length.min(text.len());
            let at = at % (text.len() - length + 1);
            text[at..at + length].fill(0);
        }
        text.truncate(text.len() - cut.min(text.len() - 1));
        let (log, mut copied) = (file(&text), Vec::new());
        let converted = convert(log.path(), Caller::Direct, &mut copied).unwrap();
        prop_assert!(!copied.contains(&0));
        let of_copy = read(file(&copied).path(), |_| {}).unwrap();
        let of_log = read(log.path(), |_| {}).unwrap();
        let text = String::from_utf8_lossy(&copied);
        prop_assert_eq!(missing(&converted), missing(&of_log));
        prop_assert_eq!(missing(&of_copy), missing(&of_log), "{}", text);
        prop_assert_eq!(of_copy.records, of_log.records);
    }
}
