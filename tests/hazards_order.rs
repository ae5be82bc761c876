//! The order of events, against the order that a program has noted itself: each operation took a ticket
//! while it had the block in hand. For every address, the record has to say the same.

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use support::*;

/// By address, the operations on it in their order: thread and size (0 for a free).
type Sequences = HashMap<u64, Vec<(u32, u32)>>;

struct Build {
    folder: Folder,
    program: PathBuf,
    allocator: PathBuf,
}

impl Build {
    fn new(name: &str) -> Build {
        let folder = Folder::new(name);
        let program = compile(&folder, "tickets", &program("tickets.c"), &["-O2", "-pthread"]);
        let flags = ["-O2", "-shared", "-fPIC"];
        let allocator = support::program("own_blocks.c");
        let allocator = compile(&folder, "libown.so", &allocator, &flags);
        Build { folder, program, allocator }
    }

    /// Runs it; what it has noted.
    #[track_caller]
    fn run(&self, format: Format, threads: u32, steps: u32) -> (Run, Sequences) {
        let notes = self.folder.join("notes");
        let run = format.traced(&self.folder, &self.program);
        let run = run.arg(threads.to_string()).arg(steps.to_string()).arg(&notes);
        let run = run.preload_after(&self.allocator).run().succeeded();
        let count: usize = run.stdout().trim().parse().unwrap();
        (run, read_notes(&notes, count))
    }
}

fn read_notes(path: &Path, count: usize) -> Sequences {
    let bytes = std::fs::read(path).unwrap();
    let mut sequences = Sequences::new();
    for note in &bytes.as_chunks::<16>().0[..count] {
        let (address, operation) = note.split_at(8);
        let [size, thread] =
            [0, 4].map(|at| u32::from_le_bytes(operation[at..at + 4].try_into().unwrap()));
        let address = u64::from_le_bytes(address.try_into().unwrap());
        sequences.entry(address).or_default().push((thread, size));
    }
    sequences
}

/// Compares what was recorded of the addresses that the program has noted.
#[track_caller]
fn are_equal(noted: &Sequences, recorded: &Sequences, what: &str) {
    for (address, noted) in noted {
        let recorded = &recorded[address];
        if let Some(at) = noted.iter().zip(recorded).position(|(a, b)| a != b) {
            let near = at.saturating_sub(2)..at + 4;
            let noted = noted.get(near.clone()).unwrap_or(&noted[at..]);
            let recorded = recorded.get(near).unwrap_or(&recorded[at..]);
            panic!("{what}, {address:#x}, operation {at}: {noted:?} noted, {recorded:?} recorded");
        }
        assert_eq!(noted.len(), recorded.len(), "{what}, {address:#x}: operations");
    }
}

#[test]
fn millions_of_events_of_threads_that_share_addresses_are_in_the_order_of_their_tickets() {
    let build = Build::new("tickets");
    let (mut events, mut shared) = (0, 0);
    for (threads, steps) in [(3, 400_000), (2, 300_000), (8, 60_000)] {
        let (run, noted) = build.run(Format::Compact, threads, steps);
        let mut recorded = Sequences::new();
        let count = visit_trace(&run.path, |thread, address, size| {
            if noted.contains_key(&address) {
                let operation = (thread as u32, size.unwrap_or(0) as u32);
                recorded.entry(address).or_default().push(operation);
            }
        });
        count.is_in_order();
        are_equal(&noted, &recorded, &format!("{threads} threads"));
        events += noted.values().map(Vec::len).sum::<usize>();
        let threads_of = |operations: &Vec<(u32, u32)>| {
            operations.iter().map(|(thread, _)| *thread).collect::<std::collections::BTreeSet<_>>()
        };
        shared += noted.values().filter(|operations| threads_of(operations).len() >= 3).count();
    }
    assert!(events > 3_000_000, "only {events} events");
    assert!(shared > 0, "no address was used by three threads");
}

#[test]
fn the_lines_of_a_log_are_in_the_order_of_the_tickets() {
    let build = Build::new("tickets-text");
    let (run, noted) = build.run(Format::Text, 3, 60_000);
    let log = run.log();
    log.is_in_order();
    // A line does not say whose it is.
    let without_threads = |(address, operations): (u64, Vec<(u32, u32)>)| {
        (address, operations.into_iter().map(|(_, size)| (0, size)).collect())
    };
    let noted: Sequences = noted.into_iter().map(without_threads).collect();
    let mut recorded = Sequences::new();
    for record in log.records() {
        if let Some(address) = record.freed() {
            recorded.entry(address).or_default().push((0, 0));
        }
        if let Some((address, size)) = record.allocated() {
            recorded.entry(address).or_default().push((0, size as u32));
        }
    }
    are_equal(&noted, &recorded, "text");
}
