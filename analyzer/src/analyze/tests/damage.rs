//! Whatever is done to the trace of a correct program, the program is not blamed for it, and the trace
//! does not pass as complete.

use mtr_format::compact::chunk::{ALIGN, HEADER, Stated};
use mtr_format::compact::op::Outcome;
use proptest::prelude::*;

use super::*;
use crate::cli::mtrace_log::{Caller, convert};
use crate::read::compact::writer::{chunks_of, file_of};

/// What a thread does next: which one, with which block, and how large it is.
type Step = (usize, u64, u64);

const CLOSED: &str = "# closed 00000000000000000000 00000000000000000000 0 0\n";

/// The trace of a correct program, which does these steps, and what of its bytes says nothing or is
/// overwritten.
fn trace_of(steps: &[Step], most: usize) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
    let mut trace = Writer::new();
    trace.text(CLOSED.as_bytes());
    trace.text(b"# operators standard\n");
    trace.most = most;
    let mut live = std::collections::BTreeMap::new();
    let mut nodes = [0; 3];
    for (stamp, (thread, block, size)) in (1..).zip(steps) {
        let (stream, ptr) = (thread % 3, 0x10000 + block * 64);
        trace.stream(stream).stamp(10 * stamp).time = 1000 * stamp;
        if nodes[stream] == 0 || block % 5 == 4 {
            nodes[stream] = trace.stack(&[0x401000 + size, 0x401200]);
        }
        let info = trace.info(nodes[stream], *size, Family::Malloc);
        // Blocks lie beside each other, but for large ones, which lie over all others.
        let is_free = *size <= 64 && !live.values().any(|size| *size > 64) || live.is_empty();
        match live.remove(&ptr) {
            Some(_) if block % 3 == 0 && *size <= 64 => {
                let info = trace.info(nodes[stream], *size, Family::Realloc);
                trace.realloc(Outcome::Ended, ptr).alloc(info, ptr);
                live.insert(ptr, *size);
            }
            Some(_) => drop(trace.free_by(ptr, FreeKind::Free)),
            None if is_free => {
                trace.alloc(info, ptr);
                live.insert(ptr, *size);
            }
            None => {}
        }
    }
    trace.stream(0).text(b"# exit\n");
    let mut chunks = trace.all();
    let begins = |text: &[u8]| text.windows(CLOSED.len()).position(|w| w == CLOSED.as_bytes());
    let front = chunks.iter().position(|(header, _)| (header.stream, header.number) == (0, 0));
    let front = chunks.remove(front.unwrap());
    chunks.insert(0, front);
    let (header, records) = &mut chunks[0];
    let at = (HEADER + begins(records).unwrap()) as u16;
    header.stated = Stated { at, length: CLOSED.len() as u16 };
    let mut bytes = file_of(&chunks);
    let line = format!("# closed {:020} {:020} 0 0\n", bytes.len(), chunks.len());
    let stated = usize::from(at)..usize::from(at) + line.len();
    bytes[stated.clone()].copy_from_slice(line.as_bytes());
    let (mut begin, mut nothing) = (0, vec![stated]);
    for (_, records) in &chunks {
        let end = begin + HEADER + records.len();
        begin = end.next_multiple_of(ALIGN);
        nothing.push(end..begin);
    }
    (bytes, nothing)
}

/// What is done to a trace.
#[derive(Debug, Clone)]
enum Harm {
    Flip(usize, u8),
    Wipe(usize, usize, u8),
    Cut(usize),
    /// At a multiple of so many bytes.
    CutAt(usize, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<usize>(), 0..8u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        2 => (any::<usize>(), 1..900usize, prop_oneof![Just(0), any::<u8>()])
            .prop_map(|(at, length, value)| Harm::Wipe(at, length, value)),
        1 => any::<usize>().prop_map(Harm::Cut),
        1 => any::<usize>().prop_map(|at| Harm::CutAt(at, ALIGN)),
    ]
}

impl Harm {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        match *self {
            Harm::Flip(at, bit) => bytes[at % length] ^= 1 << bit,
            Harm::Wipe(at, count, value) => {
                bytes[at % length..].iter_mut().take(count).for_each(|byte| *byte = value);
            }
            // Of nothing at all, nobody knows that it is a trace.
            Harm::Cut(at) => bytes.truncate((at % length).max(1)),
            Harm::CutAt(at, unit) => bytes.truncate((at % length / unit * unit).max(unit)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_damage_of_a_correct_program_s_trace_is_a_fault_or_passes(
        steps in prop::collection::vec(
            (0..3usize, 0..12u64, prop_oneof![9 => 1..65u64, 1 => 65..4000u64]), 1..120),
        most in 60..900usize,
        harm in harm(),
    ) {
        let (whole, nothing) = trace_of(&steps, most);
        let profile = profile_of_chunks(&chunks_of(whole.clone())).unwrap();
        prop_assert!(profile.faults.is_empty(), "the program is correct: {:?}", profile.faults);
        prop_assert!(!profile.incomplete, "{:?}", profile.notes);

        let mut bytes = whole.clone();
        harm.apply(&mut bytes);
        let profile = match profile_of_chunks(&chunks_of(bytes.clone())) {
            Err(Error::NewerVersion { .. }) => return Ok(()),
            profile => profile.unwrap(),
        };
        prop_assert!(profile.faults.is_empty(), "{:?}", profile.faults);
        let says_nothing = |at: usize| nothing.iter().any(|range| range.contains(&at));
        let is_changed = |at: &usize| bytes.get(*at) != whole.get(*at) && !says_nothing(*at);
        if (0..whole.len()).any(|at| is_changed(&at)) {
            prop_assert!(profile.incomplete, "{:?}", profile.notes);
        }
    }

    #[test]
    fn a_log_that_is_made_of_a_damaged_trace_says_the_same_is_missing(
        steps in prop::collection::vec(
            (0..3usize, 0..12u64, prop_oneof![9 => 1..65u64, 1 => 65..4000u64]), 1..120),
        most in 60..900usize,
        harms in prop::collection::vec(harm(), 0..3),
    ) {
        let (mut bytes, _) = trace_of(&steps, most);
        harms.iter().for_each(|harm| harm.apply(&mut bytes));
        let folder = tempfile::tempdir().unwrap();
        let (trace, log) = (folder.path().join("t.mtr"), folder.path().join("t.mtrace"));
        std::fs::write(&trace, bytes).unwrap();
        let mut text = Vec::new();
        let of_trace = match convert(&trace, Caller::Direct, &mut text) {
            Err(_) => return Ok(()),
            Ok(of_trace) => of_trace,
        };
        // What has no chunk any more was taken for a log.
        if !of_trace.is_compact {
            return Ok(());
        }
        std::fs::write(&log, &text).unwrap();
        let of_log = read::read(&log, |_| {}).unwrap();
        let text = String::from_utf8_lossy(&text);
        prop_assert_eq!(&of_log.damage, &of_trace.damage, "{}", text);
        prop_assert_eq!(of_log.records, of_trace.records);
        prop_assert_eq!(of_log.streams > 1, of_trace.streams > 1);
        let profile = analyze(&log, Kind::OurLog, &[]).unwrap();
        prop_assert!(profile.faults.is_empty(), "{:?} {}", profile.faults, text);
        prop_assert_eq!(profile.incomplete, of_trace.damage.is_some());
        for note in missing::of(&of_trace) {
            prop_assert!(profile.notes.contains(&note), "{}: {:?}", note, profile.notes);
        }
    }
}

#[test]
fn a_trace_without_its_first_chunk_is_incomplete() {
    let (mut bytes, nothing) = trace_of(&[(2, 0, 1), (1, 0, 1)], 390);
    bytes[..nothing[1].end].fill(0);
    assert!(profile_of_chunks(&chunks_of(bytes)).unwrap().incomplete);
}
