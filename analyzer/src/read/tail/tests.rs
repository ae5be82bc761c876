mod settled;

use super::*;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;

use mtr_format::compact::chunk::{CHUNK, HEADER, Header};

use crate::read::compact::writer::{ID, Writer, file_of};
use crate::read::{Damage, Event, Log, Opened, read};

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
    Opened::open(log).unwrap().input().read_to_end(&mut bytes).unwrap();
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
        assert_eq!(absorb(&log, u64::MAX).unwrap(), Absorbed::Done);
        assert_eq!(fs::read(&log).unwrap(), TEXT);
        assert_eq!(absorb(&log, u64::MAX).unwrap(), Absorbed::NoTail);
        fs::write(tail_path(&log), tail).unwrap();
        assert_eq!(absorb(&log, u64::MAX).unwrap(), Absorbed::Done);
        assert_eq!(fs::read(&log).unwrap(), TEXT);
    }
}

/// A log of which the bytes `0..written` are in the file, and its tail with the blocks behind the first,
/// which states an end.
fn ended_log(written: usize, end: u64) -> (tempfile::TempDir, PathBuf) {
    let (folder, log) = cut_log(&TEXT[..written], written);
    let mut tail = tail_file(0x1234, &[(1, &TEXT[64..128]), (2, &TEXT[128..])]);
    tail[layout::END..][..8].copy_from_slice(&end.to_le_bytes());
    fs::write(tail_path(&log), &tail).unwrap();
    (folder, log)
}

#[test]
fn what_the_tail_has_behind_the_end_of_a_log_is_counted_as_lost() {
    let lost = |log: &Path| read(log, |_| {}).unwrap().damage.lost;
    let (third, fourth) =
        (TEXT[..64].len() + 26, TEXT.len() - b"@ ./t:[0x4] - 0x50\n# exit\n".len());
    let (_folder, log) = ended_log(fourth, fourth as u64);
    assert_eq!((read_all(&log), lost(&log)), (TEXT[..fourth].to_vec(), 1));
    let (_folder, log) = ended_log(64, third as u64);
    assert_eq!((read_all(&log), lost(&log)), (TEXT[..third].to_vec(), 2));
    // The line of which a part was cut off in front of the first block was counted before.
    let (_folder, log) = ended_log(42, 42);
    assert_eq!((read_all(&log), lost(&log)), (TEXT[..42].to_vec(), 3));
}

#[test]
fn an_end_inside_of_the_file_is_not_believed() {
    let (_folder, log) = ended_log(TEXT.len(), 42);
    let file = OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(&[0; 64], 64).unwrap(); // the block behind it was written first
    assert_eq!(read_all(&log), TEXT);
    // Its end was still to be cut off: the line of which it holds a part counts as lost.
    let (_folder, log) = ended_log(64, 42);
    assert_eq!(read(&log, |_| {}).unwrap().damage.lost, 4);
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
fn a_block_terabytes_behind_the_end_is_still_reached_after_absorbing() {
    let (_folder, log) = cut_log(TEXT, TEXT.len());
    let far = [((8 << 40) / SIZE, &b"@ ./t:[0x5] + 0x90 0x20\n"[..])];
    fs::write(tail_path(&log), tail_file(0x1234, &far)).unwrap();
    assert_eq!(absorb(&log, u64::MAX).unwrap(), Absorbed::Done);
    let bytes = read_all(&log);
    assert!(bytes.starts_with(TEXT) && bytes.ends_with(b"\0@ ./t:[0x5] + 0x90 0x20\n"));
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
}

#[test]
fn a_tail_that_claims_more_than_any_has_is_damaged() {
    for (size, count) in [(1 << 30, 2), (1 << 15, 1 << 20)] {
        let (_folder, log) = cut_log(TEXT, TEXT.len());
        let mut tail = tail_file(0x1234, &[]);
        tail[16..20].copy_from_slice(&u32::to_le_bytes(size));
        tail[20..24].copy_from_slice(&u32::to_le_bytes(count));
        fs::write(tail_path(&log), &tail).unwrap();
        // All of it a hole.
        let file = OpenOptions::new().write(true).open(tail_path(&log)).unwrap();
        file.set_len(tail.len() as u64 + u64::from(size) * u64::from(count)).unwrap();
        for magic in [layout::MAGIC, layout::MAGIC2] {
            file.write_all_at(&magic, 0).unwrap();
            let opened = Opened::open(&log).unwrap();
            let mut read = Log::default();
            opened.complete(&mut read);
            let reason = read.damage.tail_ignored.unwrap();
            assert!(reason.contains("no more than 65,536 blocks"), "{reason}");
        }
    }
}

#[test]
fn a_tail_of_another_log_is_not_used() {
    let (_folder, log) = cut_log(TEXT, TEXT.len());
    fs::write(tail_path(&log), tail_file(0x5678, &[(0, b"@ ./other")])).unwrap();
    assert_eq!(read_all(&log), TEXT);
    let ignored = read(&log, |_| {}).unwrap().damage.tail_ignored;
    assert!(ignored.unwrap().contains("5678"));
    assert_eq!(absorb(&log, u64::MAX).unwrap(), Absorbed::NotItsTail);
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
        let message = read(&log, |_| {}).unwrap().damage.tail_ignored.unwrap();
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
    absorb(&log, u64::MAX).unwrap();
    assert!(fs::read(&log).unwrap().ends_with(b"# exit\n# lost 17 28\n"));
}

#[test]
fn absorbing_makes_no_record_of_a_line_that_was_cut() {
    let text = &TEXT[..TEXT.windows(9).position(|w| w == b"0x50 0x20").unwrap() + 8];
    let (_folder, log) = cut_log(text, text.len());
    let mut tail = fs::read(tail_path(&log)).unwrap();
    tail[24] = 1;
    fs::write(tail_path(&log), tail).unwrap();
    let before = read(&log, |_| {}).unwrap();
    absorb(&log, u64::MAX).unwrap();
    let after = read(&log, |_| {}).unwrap();
    assert_eq!((before.records, after.records), (2, 2));
    assert!(before.damage.cut && after.damage.torn == 1, "{:?}", after.damage);
}

#[test]
fn the_tail_of_a_running_process_is_left_alone() {
    let pid = std::process::id();
    let ticks = liveness::start_ticks(pid).unwrap();
    let head = format!("# mtr log 1\n# id 0000000000001234\n# pid {pid}\n# started 1.0 {ticks}\n");
    let (_folder, log) = cut_log(head.as_bytes(), 0);
    assert_eq!(absorb(&log, u64::MAX).unwrap(), Absorbed::StillRunning);
    assert!(tail_path(&log).exists());
}

/// Some chunks of two streams. Each chunk begins at its own time, so that its header tells it.
fn chunks() -> Vec<(Header, Vec<u8>)> {
    let pid = format!("# mtr trace 2\n# id {ID:016x}\n# session ff\n# pid 1\n# started 1.5 3\n");
    let mut trace = Writer::default();
    trace.text(pid.as_bytes()).stream(1).stamp(5).free(0x10).stream(0).stamp(7).free(0x20);
    trace.end_chunk().stamp(9).free(0x30).stream(1).end_chunk().stamp(11).free(0x40);
    trace.all()
}

/// A tail file with these chunks in its slots; one slot is empty, one holds a chunk of another
/// trace.
fn slots_file(chunks: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut file = vec![0; layout::SLOTS];
    file[..8].copy_from_slice(&layout::MAGIC2);
    file[8..16].copy_from_slice(&ID.to_le_bytes());
    file[16..20].copy_from_slice(&(CHUNK as u32).to_le_bytes());
    file[20..24].copy_from_slice(&(chunks.len() as u32 + 2).to_le_bytes());
    let mut other = chunks.first().cloned().unwrap_or_default();
    other.0.id ^= 1;
    file.resize(layout::SLOTS + CHUNK, 0);
    for chunk in chunks.iter().chain([&other]) {
        let mut slot = file_of(std::slice::from_ref(chunk));
        slot.resize(CHUNK, 0xaa);
        file.extend(slot);
    }
    file
}

/// A trace that has some of the chunks in its file and some in its tail.
fn trace_of(
    file: &[(Header, Vec<u8>)],
    tail: &[(Header, Vec<u8>)],
) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.mtr");
    fs::write(&path, file_of(file)).unwrap();
    fs::write(tail_path(&path), slots_file(tail)).unwrap();
    (folder, path)
}

fn read_all_of(path: &Path) -> (Log, Vec<Event>) {
    let mut events = Vec::new();
    let log = read(path, |event| events.push(event)).unwrap();
    (log, events)
}

/// The events of the trace with all chunks in its file.
fn expected() -> Vec<Event> {
    let (_folder, path) = trace_of(&chunks(), &[]);
    fs::remove_file(tail_path(&path)).unwrap();
    let events = read_all_of(&path).1;
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Record { .. })).count(), 4);
    events
}

#[test]
fn chunks_in_the_file_and_in_the_tail_are_one_trace() {
    let chunks = chunks();
    for which in 0..1 << chunks.len() {
        let is_in_file = |index: &usize| which >> index & 1 == 1;
        let pick = |indices: Vec<usize>| indices.into_iter().map(|i| chunks[i].clone());
        let file: Vec<_> = pick((0..chunks.len()).filter(is_in_file).collect()).collect();
        let tail: Vec<_> = pick((0..chunks.len()).filter(|i| !is_in_file(i)).collect()).collect();
        let (_folder, path) = trace_of(&file, &tail);
        let (log, events) = read_all_of(&path);
        assert_eq!((events, log.damage), (expected(), Damage::default()), "{which:b}");
        assert!(log.is_compact && log.had_tail);
        let head = head(&path).unwrap();
        assert!(head.is_compact && head.id == Some(ID), "{which:b}");
        assert_eq!(head.session, Some(0xff), "{which:b}");
        // And written into the file they are the same.
        assert_eq!(absorb(&path, u64::MAX).unwrap(), Absorbed::Done);
        assert_eq!(absorb(&path, u64::MAX).unwrap(), Absorbed::NoTail);
        let absorbed = fs::read(&path).unwrap();
        assert_eq!(read_all_of(&path).1, expected());
        // As if the process that did it had died before it removed the tail.
        fs::write(tail_path(&path), slots_file(&tail)).unwrap();
        assert_eq!(absorb(&path, u64::MAX).unwrap(), Absorbed::Done);
        assert_eq!(fs::read(&path).unwrap(), absorbed);
    }
}

#[test]
fn a_chunk_that_was_written_out_in_part_is_completed_where_it_is() {
    let chunks = chunks();
    let whole = file_of(&chunks);
    let last = chunks.last().unwrap();
    for there in 1..last.1.len() {
        let (_folder, path) = trace_of(&chunks, std::slice::from_ref(last));
        fs::write(&path, &whole[..whole.len() - there]).unwrap();
        assert_eq!(read_all_of(&path).1, expected());
        assert_eq!(absorb(&path, u64::MAX).unwrap(), Absorbed::Done);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn of_a_chunk_that_is_there_twice_the_longer_one_counts() {
    let chunks = chunks();
    let mut shorter = chunks.clone();
    let last = shorter.last_mut().unwrap();
    last.1.clear();
    last.0.length = 0;
    let (_folder, path) = trace_of(&shorter, &chunks);
    assert_eq!(read_all_of(&path).1, expected());
    assert_eq!(absorb(&path, u64::MAX).unwrap(), Absorbed::Done);
    let (log, events) = read_all_of(&path);
    assert_eq!((events, log.damage), (expected(), Damage::default()));
}

/// A file with a hole in its second chunk, which somebody died while writing; another stream's stands
/// behind it.
fn with_hole(chunks: &[(Header, Vec<u8>)], hole: std::ops::Range<usize>) -> Vec<u8> {
    let mut bytes = file_of(chunks);
    let second = HEADER + (HEADER + chunks[0].1.len()).next_multiple_of(64);
    bytes[second..][hole].fill(0);
    bytes
}

#[test]
fn a_chunk_in_the_tail_counts_where_that_in_the_file_has_a_hole() {
    let chunks = chunks();
    let length = chunks[1].1.len();
    for from in 0..length {
        let (_folder, path) = trace_of(&chunks, &chunks[1..2]);
        fs::write(&path, with_hole(&chunks, from..length)).unwrap();
        let (log, events) = read_all_of(&path);
        assert_eq!((events, log.damage), (expected(), Damage::default()), "hole from {from} on");
        // The tail goes when it is absorbed: the hole has to be filled.
        assert_eq!(absorb(&path, u64::MAX).unwrap(), Absorbed::Done);
        assert_eq!(fs::read(&path).unwrap(), file_of(&chunks), "hole from {from} on");
    }
}

#[test]
fn of_a_chunk_that_libmtr_has_appended_the_first_may_have_a_hole() {
    let chunks = chunks();
    let length = chunks[1].1.len();
    let (_folder, path) = trace_of(&chunks, &[]);
    fs::remove_file(tail_path(&path)).unwrap();
    let mut bytes = with_hole(&chunks, 0..length);
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes.extend(file_of(&chunks[1..2]));
    fs::write(&path, bytes).unwrap();
    let (log, events) = read_all_of(&path);
    assert_eq!((events, log.damage), (expected(), Damage::default()));
}

#[test]
fn events_lost_are_stated_in_the_trace_after_absorbing() {
    let chunks = chunks();
    let (_folder, path) = trace_of(&chunks[..1], &chunks[1..]);
    let mut tail = fs::read(tail_path(&path)).unwrap();
    tail[24..32].copy_from_slice(&17u64.to_le_bytes());
    tail[32..36].copy_from_slice(&28i32.to_le_bytes());
    fs::write(tail_path(&path), tail).unwrap();
    let before = read_all_of(&path).0.damage;
    assert_eq!((before.lost, before.lost_errno), (17, 28));
    assert_eq!(absorb(&path, u64::MAX).unwrap(), Absorbed::Done);
    let (log, events) = read_all_of(&path);
    assert_eq!((log.damage, log.streams), (before, 2));
    assert_eq!(events, expected());
}

#[test]
fn slots_of_another_trace_are_not_used() {
    let chunks = chunks();
    let (_folder, path) = trace_of(&chunks[..3], &chunks[3..]);
    let mut tail = fs::read(tail_path(&path)).unwrap();
    tail[8] ^= 1;
    fs::write(tail_path(&path), &tail).unwrap();
    let (log, _) = read_all_of(&path);
    assert!(log.damage.tail_ignored.unwrap().contains("expected the tail of log"));
    assert_eq!((log.records, absorb(&path, u64::MAX).unwrap()), (3, Absorbed::NotItsTail));
}

#[test]
fn a_trace_of_a_running_process_is_one_moment_of_it() {
    let pid = std::process::id();
    let ticks = liveness::start_ticks(pid).unwrap();
    let head = format!("# mtr trace 2\n# id {ID:016x}\n# pid {pid}\n# started 1.0 {ticks}\n");
    let mut trace = Writer::default();
    trace.text(head.as_bytes()).end_chunk().stamp(7).free(0x20).stamp(9).free(0x30);
    let running = trace.all();
    let (_folder, path) = trace_of(&running[..1], &running[1..]);
    assert_eq!(absorb(&path, u64::MAX).unwrap(), Absorbed::StillRunning);
    let (log, _) = read_all_of(&path);
    assert!(log.running && log.records == 2);
    // What was written out of a stream that has no slot now, and is later than all slots.
    trace.stream(1).stamp(10).free(0x40);
    let later = trace.all();
    let is_later = |(header, _): &(Header, Vec<u8>)| header.stream == 1;
    let file: Vec<_> = later.iter().filter(|c| is_later(c) || c.0.number == 0).cloned().collect();
    fs::write(&path, file_of(&file)).unwrap();
    let (log, _) = read_all_of(&path);
    assert_eq!((log.records, log.damage), (2, Damage::default()));
}

#[test]
fn a_hole_of_terabytes_in_a_trace_is_not_read() {
    let chunks = chunks();
    let (_folder, path) = trace_of(&chunks[..1], &[]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&file_of(&chunks[2..3]), 8 << 40).unwrap();
    let (log, _) = read_all_of(&path);
    assert_eq!((log.records, log.damage.malformed), (2, 0));
}

#[test]
fn a_trace_whose_front_is_a_hole_is_read_from_its_first_chunk_on() {
    let chunks = chunks();
    let (_folder, path) = trace_of(&[], &[]);
    for (hole, with_tail) in [(64, false), (1 << 20, false), (3 << 20, true)] {
        let mut bytes = vec![0; hole];
        bytes.extend(file_of(&chunks[1..3]));
        fs::write(&path, bytes).unwrap();
        let _ = fs::remove_file(tail_path(&path));
        if with_tail {
            fs::write(tail_path(&path), slots_file(&chunks[3..])).unwrap();
        }
        let (log, _) = read_all_of(&path);
        assert!(log.is_compact && head(&path).unwrap().is_compact);
        assert_eq!((log.records, log.damage.missing), (2 + u64::from(with_tail), 1));
    }
}
