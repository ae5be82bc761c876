//! What tests ask of a log that was read.

use super::{Item, Log, Module, Op, Record, number};
use std::collections::{BTreeMap, BTreeSet};

impl Log {
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.items.iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            _ => None,
        })
    }

    pub(crate) fn marks(&self) -> Vec<&str> {
        let marks = self.items.iter().filter_map(|item| match item {
            Item::Mark(mark) => Some(mark.as_str()),
            _ => None,
        });
        marks.collect()
    }

    /// The values of every `# KEY` line.
    pub(crate) fn notes(&self, key: &str) -> Vec<&[Vec<u8>]> {
        let notes = self.items.iter().filter_map(|item| match item {
            Item::Note(words) if words[0] == key.as_bytes() => Some(&words[1..]),
            _ => None,
        });
        notes.collect()
    }

    /// The values of the one `# KEY` line as text.
    #[track_caller]
    pub(crate) fn note(&self, key: &str) -> Vec<String> {
        let notes = self.notes(key);
        assert!(notes.len() == 1, "{}: {} `# {key}` lines", self.path.display(), notes.len());
        notes[0].iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// Records that the log says are missing.
    pub(crate) fn lost(&self) -> u64 {
        let notes = self.notes("lost");
        notes.last().map_or(0, |words| number(&words[0]).expect("# lost RECORDS"))
    }

    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.note("pid")[0].parse().expect("# pid")
    }

    /// Fails the test where the log is not what a correct program must get.
    #[track_caller]
    pub(crate) fn is_sound(&self) -> &Self {
        let name = self.path.display();
        assert!(self.damaged.is_empty(), "{name}: damaged lines: {:#?}", self.damaged);
        assert_eq!(self.lost(), 0, "{name}: {:?}", self.notes("lost"));
        self
    }

    /// [`Log::is_sound`], and: no block twice, no free of one that is not there.
    #[track_caller]
    pub(crate) fn is_in_order(&self) -> &Self {
        self.is_sound();
        let faults = self.faults();
        assert!(faults.is_empty(), "{}: {} faults: {faults:#?}", self.path.display(), faults.len());
        self
    }

    /// What is out of order, as a program that is traced from its beginning cannot have it.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut live = BTreeMap::new();
        let mut may_be_free = BTreeSet::new();
        let mut faults = Vec::new();
        for (number, item) in self.items.iter().enumerate() {
            let record = match item {
                Item::Record(record) => record,
                Item::Announced(address) => {
                    may_be_free.insert(*address);
                    continue;
                }
                _ => continue,
            };
            if let Some(address) = record.freed()
                && live.remove(&address).is_none()
            {
                faults.push(format!("item {number} frees what is not live: {record:?}"));
            }
            if let Some((address, _)) = record.allocated()
                && let Some(earlier) = live.insert(address, number)
                && !may_be_free.remove(&address)
            {
                faults.push(format!("item {number} repeats item {earlier}: {record:?}"));
            }
        }
        faults
    }

    /// Frees that had begun when the process died.
    pub(crate) fn announced(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, Item::Announced(_))).count()
    }

    /// The records of the blocks that are live at the end, by address.
    pub(crate) fn live(&self) -> BTreeMap<u64, &Record> {
        let mut live = BTreeMap::new();
        for record in self.records() {
            if let Some(address) = record.freed() {
                live.remove(&address);
            }
            if let Some((address, _)) = record.allocated() {
                live.insert(address, record);
            }
        }
        live
    }

    /// Allocations of `size` bytes.
    pub(crate) fn blocks_of(&self, size: u64) -> Vec<&Record> {
        self.records().filter(|r| r.allocated().is_some_and(|(_, n)| n == size)).collect()
    }

    /// How many blocks of `size` bytes were allocated and how many of them were freed.
    pub(crate) fn allocated_and_freed(&self, size: u64) -> (usize, usize) {
        let (mut live, mut allocated, mut freed) = (BTreeMap::new(), 0, 0);
        for record in self.records() {
            if let Some(address) = record.freed()
                && live.remove(&address) == Some(size)
            {
                freed += 1;
            }
            if let Some((address, n)) = record.allocated() {
                allocated += usize::from(n == size);
                live.insert(address, n);
            }
        }
        (allocated, freed)
    }

    /// The module that made `record` and the record's address as an SVMA of it.
    pub(crate) fn module_of(&self, record: &Record) -> Option<(&Module, u64)> {
        let place = record.place.as_ref()?;
        let relative = self.note("addresses")[0] == "relative" && place.file.is_some();
        // Later lines replace what they overlap: look from the end.
        for (start, end, module) in self.modules[..record.modules_before].iter().rev() {
            let Some(module) = module else {
                if !relative && (*start..*end).contains(&place.address) {
                    return None;
                }
                continue;
            };
            if relative && Some(&module.name) == place.file.as_ref() {
                return Some((module, (module.start + place.address).wrapping_sub(module.bias)));
            }
            if !relative && (*start..*end).contains(&place.address) {
                return Some((module, place.address.wrapping_sub(module.bias)));
            }
        }
        None
    }
}
