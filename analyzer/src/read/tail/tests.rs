use super::*;
use std::io::Read;

use crate::read::compact::writer::Writer;
use crate::read::source::Source;

const SIZE: u64 = 64;

/// A tail file with these blocks (number, bytes).
fn tail_file(id: u64, blocks: &[(u64, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; layout::BLOCKS];
    file[..8].copy_from_slice(&layout::MAGIC);
    file[8..16].copy_from_slice(&id.to_le_bytes());
    file[16..20].copy_from_slice(&(SIZE as u32).to_le_bytes());
    file[20..24].copy_from_slice(&(blocks.len() as u32).to_le_bytes());
    for (index, (number, bytes)) in blocks.iter().enumerate() {
        let at = layout::NUMBERS + 8 * index;
        file[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let mut block = bytes.to_vec();
        block.resize(SIZE as usize, 0);
        file.extend_from_slice(&block);
    }
    file
}

/// A log cut after `written` bytes, the rest of it in the tail.
fn cut_log(text: &[u8], written: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let first = written as u64 / SIZE;
    let blocks: Vec<(u64, &[u8])> =
        (first..).zip(text[(first * SIZE) as usize..].chunks(SIZE as usize)).collect();
    fs::write(&log, &text[..written]).unwrap();
    fs::write(tail_path(&log), tail_file(0x1234, &blocks)).unwrap();
    (folder, log)
}

const TEXT: &[u8] = b"# mtr log 1\n# id 0000000000001234\n= Start\n@ ./t:[0x1] + 0x10 0x20\n\
    @ ./t:[0x2] + 0x30 0x20\n@ ./t:[0x3] + 0x50 0x20\n@ ./t:[0x4] - 0x50\n# exit\n";

fn read_all(log: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    Source::open(log).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_log_and_its_tail_are_read_as_one_wherever_it_was_cut() {
    for written in 0..=TEXT.len() {
        let (_folder, log) = cut_log(TEXT, written);
        assert_eq!(read_all(&log), TEXT, "cut at {written}");
    }
}

#[test]
fn absorbing_completes_the_log_and_can_be_done_again() {
    for written in [0, 50, 64, 100, TEXT.len()] {
        let (_folder, log) = cut_log(TEXT, written);
        let tail = fs::read(tail_path(&log)).unwrap();
        assert_eq!(absorb(&log).unwrap(), Absorbed::Done);
        assert_eq!(fs::read(&log).unwrap(), TEXT);
        assert_eq!(absorb(&log).unwrap(), Absorbed::NoTail);
        fs::write(tail_path(&log), tail).unwrap();
        assert_eq!(absorb(&log).unwrap(), Absorbed::Done);
        assert_eq!(fs::read(&log).unwrap(), TEXT);
    }
}

#[test]
fn a_block_far_behind_the_end_is_reached_without_reading_the_gap() {
    let (_folder, log) = cut_log(TEXT, TEXT.len());
    let far = [(1 << 50, &b"@ ./t:[0x5] + 0x90 0x20\n"[..])];
    fs::write(tail_path(&log), tail_file(0x1234, &far)).unwrap();
    let bytes = read_all(&log);
    assert_eq!(&bytes[TEXT.len()..], b"\0@ ./t:[0x5] + 0x90 0x20\n");
}

#[test]
fn a_tail_of_another_log_is_not_used() {
    let (_folder, log) = cut_log(TEXT, TEXT.len());
    fs::write(tail_path(&log), tail_file(0x5678, &[(0, b"@ ./other")])).unwrap();
    assert_eq!(read_all(&log), TEXT);
    assert!(Source::open(&log).unwrap().tail_ignored().unwrap().contains("5678"));
    assert_eq!(absorb(&log).unwrap(), Absorbed::NotItsTail);
}

#[test]
fn a_damaged_tail_is_an_error_that_names_it() {
    let (_folder, log) = cut_log(TEXT, 64);
    let path = tail_path(&log);
    for damage in [&b"short"[..], &[0; 5000], &{
        let mut file = tail_file(0x1234, &[]);
        file[20..24].copy_from_slice(&400u32.to_le_bytes());
        file
    }] {
        fs::write(&path, damage).unwrap();
        let message = Tail::read(&path).unwrap_err().to_string();
        assert!(message.starts_with(&path.display().to_string()), "{message}");
        assert_eq!(read_all(&log), &TEXT[..64]);
    }
}

#[test]
fn records_lost_are_stated_in_the_log_after_absorbing() {
    let (_folder, log) = cut_log(TEXT, 64);
    let mut tail = fs::read(tail_path(&log)).unwrap();
    tail[24..32].copy_from_slice(&17u64.to_le_bytes());
    tail[32..36].copy_from_slice(&28i32.to_le_bytes());
    fs::write(tail_path(&log), tail).unwrap();
    absorb(&log).unwrap();
    assert!(fs::read(&log).unwrap().ends_with(b"# exit\n# lost 17 28\n"));
}

#[test]
fn the_tail_of_a_running_process_is_left_alone() {
    let pid = std::process::id();
    let ticks = liveness::start_ticks(pid).unwrap();
    let head = format!("# mtr log 1\n# id 0000000000001234\n# pid {pid}\n# started 1.0 {ticks}\n");
    let (_folder, log) = cut_log(head.as_bytes(), 0);
    assert_eq!(absorb(&log).unwrap(), Absorbed::StillRunning);
    assert!(tail_path(&log).exists());
}

/// A compact trace whose last word ends in NULs, and its bytes.
fn compact() -> Vec<u8> {
    let mut trace = Writer::default();
    trace.text(b"# mtr trace 1\n# id 0000000000001234\n# session ff\n");
    for block in 1..40 {
        trace.free(0, block << 4);
    }
    trace.words.push(0); // a place that was never filled
    trace.words.push(0x123 << 4 | 6);
    trace.bytes()
}

#[test]
fn a_compact_trace_and_its_tail_are_read_as_one_wherever_it_was_cut() {
    let trace = compact();
    for written in (0..=trace.len()).step_by(3) {
        let (_folder, log) = cut_log(&trace, written);
        assert_eq!(read_all(&log), trace, "cut at {written}");
        let head = head(&log).unwrap();
        assert!(head.is_compact && head.session == Some(0xff), "cut at {written}");
    }
}

#[test]
fn absorbing_completes_a_compact_trace() {
    let trace = compact();
    for written in [0, 8, 60, 64, 100, trace.len()] {
        let (_folder, log) = cut_log(&trace, written);
        assert_eq!(absorb(&log).unwrap(), Absorbed::Done);
        assert_eq!(fs::read(&log).unwrap(), trace);
    }
}

#[test]
fn words_behind_a_gap_of_the_file_stay_words() {
    let trace = compact();
    let (_folder, log) = cut_log(&trace[..64], 61);
    // The next block but two; what lies between was never written.
    let blocks: [(u64, &[u8]); 2] = [(0, &trace[..64]), (3, &trace[64..72])];
    fs::write(tail_path(&log), tail_file(0x1234, &blocks)).unwrap();
    for size in [1, 5, 8, 4096] {
        let mut source = Source::open(&log).unwrap();
        let (mut bytes, mut piece) = (Vec::new(), vec![0; size]);
        while let read @ 1.. = source.read(&mut piece).unwrap() {
            bytes.extend_from_slice(&piece[..read]);
        }
        let words = bytes.chunks(WORD).filter(|word| **word != [0; WORD]);
        assert_eq!(words.collect::<Vec<_>>().concat(), trace[..72], "{size}");
    }
}
