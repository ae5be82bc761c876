//! A fast check of large compact traces: order and counts, one pass, memory for definitions and the
//! live blocks only.

use super::checker::AddressHasher;
use super::tail_of;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::path::Path;

/// What a trace holds.
#[derive(Debug, Default, Clone)]
pub(crate) struct TraceCount {
    pub(crate) allocations: u64,
    /// Reallocs that ended a block are among them.
    pub(crate) frees: u64,
    pub(crate) reallocations: u64,
    pub(crate) failures: u64,
    /// Allocations by the size that was asked for, and frees of those blocks.
    pub(crate) by_size: BTreeMap<u64, (u64, u64)>,
    /// Allocations by thread.
    pub(crate) by_thread: BTreeMap<u64, u64>,
    /// Frames of all allocations together; marks are none.
    pub(crate) frames: u64,
    /// Allocations at an address that was live.
    pub(crate) duplicates: u64,
    /// Frees of an address that was not.
    pub(crate) unknown_frees: u64,
    /// Words that do not fit into the format, and zeros.
    pub(crate) damaged: u64,
    /// Nodes and infos.
    pub(crate) definitions: u64,
    /// Length of the file.
    pub(crate) length: u64,
    /// The first few words that are wrong.
    pub(crate) examples: Vec<String>,
}

impl TraceCount {
    /// Fails the test unless the trace is in order.
    #[track_caller]
    pub(crate) fn is_in_order(&self) {
        assert_eq!((self.duplicates, self.unknown_frees, self.damaged), (0, 0, 0), "{self:#?}");
    }

    /// Allocations and frees of blocks whose size is in `sizes`.
    pub(crate) fn of_sizes(&self, sizes: std::ops::Range<u64>) -> (u64, u64) {
        self.by_size.range(sizes).fold((0, 0), |sum, (_, n)| (sum.0 + n.0, sum.1 + n.1))
    }

    /// Frames of an allocation, on average.
    pub(crate) fn depth(&self) -> f64 {
        self.frames as f64 / self.allocations as f64
    }
}

#[derive(Default, Clone, Copy)]
struct Node {
    /// Address of the root.
    root: u64,
    depth: u32,
}

#[derive(Default, Clone, Copy)]
struct Info {
    node: Node,
    size: u64,
}

/// Reads the trace of a process that ended normally: no tail, no holes.
pub(crate) fn check_trace_order(path: &Path) -> TraceCount {
    assert!(!tail_of(path).exists(), "{}: a tail was left after a normal end", path.display());
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut count = TraceCount { length: bytes.len() as u64, ..TraceCount::default() };
    let words: Vec<u64> =
        bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    drop(bytes);
    let mut live: HashMap<u64, u32, BuildHasherDefault<AddressHasher>> = HashMap::default();
    let (mut nodes, mut infos) = (vec![Node::default()], vec![Info::default()]);
    // By info, made into sums at the end.
    let mut used: Vec<(u64, u64)> = vec![(0, 0)];
    let mut segments = [0; 4];
    let mut at = 0;
    while at < words.len() {
        let (position, word) = (at, words[at]);
        let (tag, a, b) = (word & 15, (word >> 4) as usize & 0xfff_ffff, (word >> 32) as usize);
        let value = words.get(at + 1).map_or(0, |w| w >> 4);
        at += 1;
        let (kind, id, address) = match tag {
            1 => {
                at += a.div_ceil(7);
                continue;
            }
            2 => {
                let parent = nodes.get(b).copied().unwrap_or_default();
                let node = match b {
                    0 => Node { root: value, depth: 0 },
                    _ => Node { depth: parent.depth + u32::from(value > 3), ..parent },
                };
                at += 1;
                count.definitions += 1;
                put(&mut nodes, a, node);
                continue;
            }
            3 => {
                let node = nodes.get(b).copied().unwrap_or_default();
                at += 1 + usize::from((4..7).contains(&(value & 255)));
                count.definitions += 1;
                put(&mut infos, a, Info { node, size: value >> 8 });
                put(&mut used, a, (0, 0));
                continue;
            }
            4 => {
                segments[a & 3] = word >> 32 << 36;
                continue;
            }
            5 => {
                at += 1;
                (a & 15, b, value.wrapping_sub(1))
            }
            6 | 7 => continue,
            8..12 => (1, a, segments[(tag & 3) as usize] | (b as u64) << 4),
            12.. => (2, a, segments[(tag & 3) as usize] | (b as u64) << 4),
            _ => (0, 0, 0),
        };
        let mut why = None;
        match kind {
            1 => {
                count.allocations += 1;
                match infos.get(id) {
                    Some(info) if info.node.root != 0 => used[id].0 += 1,
                    _ => (count.damaged, why) = (count.damaged + 1, Some("no such info")),
                }
                if live.insert(address, id as u32).is_some() {
                    count.duplicates += 1;
                    why = Some("is live already");
                }
            }
            2 | 3 => {
                count.frees += 1;
                count.reallocations += u64::from(kind == 3);
                match live.remove(&address) {
                    Some(info) => used.get_mut(info as usize).map_or((), |n| n.1 += 1),
                    None => {
                        (count.unknown_frees, why) = (count.unknown_frees + 1, Some("not live"))
                    }
                }
            }
            4 => {}
            5 => count.failures += 1,
            _ => (count.damaged, why) = (count.damaged + 1, Some("begins no record")),
        }
        if let Some(why) = why
            && count.examples.len() < 10
        {
            count.examples.push(format!("word {position}: {word:#018x} {why} ({address:#x})"));
        }
    }
    for (info, (allocated, freed)) in infos.iter().zip(&used) {
        let sum = count.by_size.entry(info.size).or_default();
        *sum = (sum.0 + allocated, sum.1 + freed);
        *count.by_thread.entry(info.node.root >> 16).or_default() += allocated;
        count.frames += allocated * u64::from(info.node.depth);
    }
    count.by_thread.retain(|_, allocated| *allocated > 0);
    count.by_size.retain(|_, allocated| allocated.0 > 0);
    count
}

/// IDs are given in order, but defined in the order in which threads come to it.
fn put<T: Default + Clone>(table: &mut Vec<T>, id: usize, value: T) {
    if table.len() <= id {
        table.resize(id + 1, T::default());
    }
    table[id] = value;
}
