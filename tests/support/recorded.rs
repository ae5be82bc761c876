//! What was recorded, whatever the format: for tests of what both have to hold.

use super::{Folder, Log, Run, Summary, Trace, Traced, logs_beside, read_tail, traces_beside};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Compact,
}

pub(crate) const FORMATS: [Format; 2] = [Format::Text, Format::Compact];

impl Format {
    /// What MTR_TRACE_FORMAT and --trace-format call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Text => "mtrace",
            Format::Compact => "compact",
        }
    }

    /// `program` about to be traced in this format.
    pub(crate) fn traced(self, folder: &Folder, program: impl AsRef<OsStr>) -> Traced {
        match self {
            Format::Text => Traced::new(folder, program),
            Format::Compact => Traced::compact(folder, program),
        }
    }
}

/// A log or a trace.
pub(crate) enum Recorded {
    Text(Log),
    Compact(Trace),
}

/// By size: blocks that were allocated, and how many of them were freed.
pub(crate) type Counts = BTreeMap<u64, (u64, u64)>;

impl Recorded {
    #[track_caller]
    pub(crate) fn of(format: Format, run: &Run) -> Self {
        match format {
            Format::Text => Recorded::Text(run.log()),
            Format::Compact => Recorded::Compact(run.trace()),
        }
    }

    #[track_caller]
    pub(crate) fn read(format: Format, path: &Path) -> Self {
        match format {
            Format::Text => Recorded::Text(Log::read(path).unwrap()),
            Format::Compact => Recorded::Compact(Trace::read(path).unwrap()),
        }
    }

    /// This one's and those of forked and exec'd processes beside it.
    pub(crate) fn all_beside(format: Format, path: &Path) -> Vec<Self> {
        match format {
            Format::Text => logs_beside(path).into_iter().map(Recorded::Text).collect(),
            Format::Compact => traces_beside(path).into_iter().map(Recorded::Compact).collect(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Recorded::Text(log) => &log.path,
            Recorded::Compact(trace) => &trace.path,
        }
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Recorded::Text(log) => log.pid(),
            Recorded::Compact(trace) => trace.pid(),
        }
    }

    /// The values of its `# KEY` lines.
    pub(crate) fn notes(&self, key: &str) -> Vec<String> {
        let notes = match self {
            Recorded::Text(log) => log.notes(key),
            Recorded::Compact(trace) => trace.notes(key),
        };
        notes.iter().map(|words| String::from_utf8_lossy(&words.join(&b' ')).into_owned()).collect()
    }

    /// The command line.
    #[track_caller]
    pub(crate) fn arguments(&self) -> Vec<String> {
        self.note("arguments")
    }

    /// The values of the one `# KEY` line.
    #[track_caller]
    pub(crate) fn note(&self, key: &str) -> Vec<String> {
        match self {
            Recorded::Text(log) => log.note(key),
            Recorded::Compact(trace) => trace.note(key),
        }
    }

    #[track_caller]
    pub(crate) fn is_sound(&self) -> &Self {
        match self {
            Recorded::Text(log) => drop(log.is_sound()),
            Recorded::Compact(trace) => drop(trace.is_sound()),
        }
        self
    }

    #[track_caller]
    pub(crate) fn is_in_order(&self) -> &Self {
        match self {
            Recorded::Text(log) => drop(log.is_in_order()),
            Recorded::Compact(trace) => drop(trace.is_in_order()),
        }
        self
    }

    /// In order, and complete without a tail.
    #[track_caller]
    pub(crate) fn is_finished(&self) -> &Self {
        self.is_in_order();
        match self {
            Recorded::Text(log) => {
                assert!(!log.has_tail, "{}: a tail was left", log.path.display());
                assert_eq!(log.holes, 0, "{}: lines without a beginning", log.path.display());
            }
            Recorded::Compact(trace) => drop(trace.is_finished()),
        }
        self
    }

    /// What the format does not have.
    pub(crate) fn damaged(&self) -> &[String] {
        match self {
            Recorded::Text(log) => &log.damaged,
            Recorded::Compact(trace) => &trace.damaged,
        }
    }

    pub(crate) fn has_tail(&self) -> bool {
        match self {
            Recorded::Text(log) => log.has_tail,
            Recorded::Compact(trace) => trace.has_tail,
        }
    }

    /// Whether it says that the program ended normally.
    pub(crate) fn says_exit(&self) -> bool {
        match self {
            Recorded::Text(log) => !log.notes("exit").is_empty(),
            Recorded::Compact(trace) => !trace.notes("exit").is_empty(),
        }
    }

    /// Fails the test unless all is there: what was recorded and what it says is missing. How many are
    /// missing.
    #[track_caller]
    pub(crate) fn accounts_for(&self, all: u64) -> u64 {
        let (recorded, lost) = (self.changes().len() as u64, self.lost());
        let name = self.path().display();
        assert!(self.damaged().is_empty(), "{name}: {:#?}", self.damaged());
        assert_eq!(recorded + lost, all, "{name}: {recorded} recorded, {lost} lost");
        lost
    }

    /// How many events it says are missing.
    pub(crate) fn lost(&self) -> u64 {
        let notes = match self {
            Recorded::Text(log) => log.notes("lost"),
            Recorded::Compact(trace) => trace.notes("lost"),
        };
        let count = |note: &&[Vec<u8>]| str::from_utf8(&note[0]).unwrap().parse().unwrap();
        let in_tail = |tail: Vec<u8>| u64::from_le_bytes(tail[24..32].try_into().unwrap());
        let stated: u64 = notes.last().map_or(0, count);
        read_tail(self.path()).map_or(stated, |tail| stated.max(in_tail(tail)))
    }

    /// How many events it holds, those included whose call stack is among what is missing.
    pub(crate) fn events(&self) -> u64 {
        match self {
            Recorded::Text(log) => log.records().count() as u64,
            Recorded::Compact(trace) => {
                let of_unknown = |what: &&String| what.ends_with("an unknown node");
                let without = trace.damaged.iter().filter(of_unknown).count();
                (trace.events.len() + without) as u64
            }
        }
    }

    /// How many streams it says had their last records in memory alone; `u64::MAX` for all.
    pub(crate) fn unsaved(&self) -> u64 {
        let notes = match self {
            Recorded::Text(log) => log.notes("unsaved"),
            Recorded::Compact(trace) => trace.notes("unsaved"),
        };
        match notes.last() {
            Some(_) => u64::MAX,
            None => read_tail(self.path())
                .map_or(0, |tail| u32::from_le_bytes(tail[36..40].try_into().unwrap()).into()),
        }
    }

    /// Every allocation and free in order: (address, size of what begins there or `None`).
    fn changes(&self) -> Vec<(u64, Option<u64>)> {
        let mut changes = Vec::new();
        let mut add = |freed: Option<u64>, allocated: Option<(u64, u64)>| {
            changes.extend(freed.map(|address| (address, None)));
            changes.extend(allocated.map(|(address, size)| (address, Some(size))));
        };
        match self {
            Recorded::Text(log) => log.records().for_each(|r| add(r.freed(), r.allocated())),
            Recorded::Compact(trace) => {
                trace.events.iter().for_each(|e| add(e.freed(), e.allocated()));
            }
        }
        changes
    }

    pub(crate) fn counts(&self) -> Counts {
        let (mut live, mut counts) = (BTreeMap::new(), Counts::new());
        for (address, allocated) in self.changes() {
            let ended: Option<u64> = match allocated {
                Some(size) => {
                    counts.entry(size).or_default().0 += 1;
                    live.insert(address, size);
                    None
                }
                None => live.remove(&address),
            };
            if let Some(size) = ended {
                counts.entry(size).or_default().1 += 1;
            }
        }
        counts
    }

    /// How many blocks of this size were allocated, and how many of these were freed.
    pub(crate) fn allocated_and_freed(&self, size: u64) -> (u64, u64) {
        self.counts().get(&size).copied().unwrap_or_default()
    }

    /// The counts of the sizes that programs/counts.h counts.
    pub(crate) fn own_counts(&self) -> Counts {
        self.counts().into_iter().filter(|(size, _)| OWN.contains(size)).collect()
    }

    /// What mtr-report has to say of it.
    pub(crate) fn summary(&self) -> Summary {
        let mut live = BTreeMap::new();
        let (mut allocations, mut frees, mut allocated_bytes) = (0, 0, 0);
        for (address, allocated) in self.changes() {
            match allocated {
                Some(size) => {
                    allocations += 1;
                    allocated_bytes += size;
                    live.insert(address, size);
                }
                None => {
                    frees += 1;
                    live.remove(&address);
                }
            }
        }
        let (in_use_bytes, in_use_blocks) = (live.values().sum(), live.len() as u64);
        Summary { in_use_bytes, in_use_blocks, allocations, frees, allocated_bytes }
    }
}

/// Sizes that programs/counts.h counts.
const OWN: std::ops::Range<u64> = 90_000..90_064;

/// The counts that a program of counts.h has printed: lines `SIZE ALLOCATED FREED`.
#[track_caller]
pub(crate) fn printed_counts(text: &str) -> Counts {
    let lines = text.lines().filter_map(|line| {
        let numbers: Vec<u64> = line.split(' ').map_while(|word| word.parse().ok()).collect();
        let [size, allocated, freed] = numbers[..] else { return None };
        OWN.contains(&size).then_some((size, (allocated, freed)))
    });
    lines.collect()
}
