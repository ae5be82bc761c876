//! Words -> records, one word at a time.
//!
//! The decoder keeps nothing but the record that it is in and the four segments, so it does not
//! mind where a reader's chunks end, and any words at all are something: what makes no sense is
//! counted and left out.

use super::word::{
    FRAMES_CUT, Family, LongKind, MAX_ID, NOT_TAKEN, SEGMENTS, TEXT_BYTES, THREAD_SHIFT, Tag,
    WALK_ENDED,
};

/// What one or more words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A piece of text.
    Text(Piece),
    /// A new node of the stack trie.
    Node {
        /// Its ID.
        id: u32,
        /// ID of its parent, 0 for a root.
        parent: u32,
        /// Return address, or what stands for one.
        address: u64,
    },
    /// A new info.
    Info {
        /// Its ID.
        id: u32,
        /// The call stack.
        node: u32,
        /// Requested bytes.
        size: u64,
        /// Function that was called.
        family: Family,
        /// What the function was asked for, 0 where the family has none.
        alignment: u64,
    },
    /// An allocation.
    Alloc {
        /// Stack, size and family.
        info: u32,
        /// The new block.
        ptr: u64,
    },
    /// A free.
    Free {
        /// The call stack, 0 when it was not recorded.
        node: u32,
        /// The block that ends.
        ptr: u64,
    },
    /// realloc ends the old block.
    ReallocOld {
        /// The call stack.
        node: u32,
        /// The block that ends.
        ptr: u64,
    },
    /// An allocation failed.
    Failed {
        /// Stack, size and family.
        info: u32,
        /// The block that lives on, 0 for none.
        ptr: u64,
    },
    /// Nanoseconds since `# started`.
    Time(u64),
    /// Resident bytes of the process.
    Rss(u64),
    /// A continuation that nothing asked for: the first word of its record was never stored.
    Orphan(u64),
}

/// Up to seven bytes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    bytes: [u8; TEXT_BYTES],
    length: u8,
    /// It begins the text. Whatever came of the one before is all there is.
    pub is_first: bool,
    /// It ends the text.
    pub is_last: bool,
}

impl Piece {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }
}

/// The record that a decoder is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Pending {
    #[default]
    None,
    Text {
        left: u32,
        is_first: bool,
    },
    Node {
        id: u32,
        parent: u32,
    },
    Info {
        id: u32,
        node: u32,
    },
    Alignment {
        id: u32,
        node: u32,
        size: u64,
        family: Family,
    },
    Long {
        kind: LongKind,
        id: u32,
    },
}

/// Base of a segment that was never defined: no base has its low bits set.
const UNDEFINED: u64 = u64::MAX;

/// What is known of the words so far.
#[derive(Debug, Clone)]
pub struct Decoder {
    segments: [u64; SEGMENTS],
    pending: Pending,
    torn: u64,
    malformed: u64,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { segments: [UNDEFINED; SEGMENTS], pending: Pending::None, torn: 0, malformed: 0 }
    }
}

impl Decoder {
    /// Before the first word.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Records of which a part is missing.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Records that mean nothing: of an unknown kind, or in a segment that was not defined.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Whether a record has begun and not ended.
    pub fn is_inside_record(&self) -> bool {
        self.pending != Pending::None
    }

    /// Takes the next word; the record that it completes, if any.
    #[inline(always)]
    pub fn push(&mut self, word: u64) -> Option<Record> {
        let tag = (word & 15) as u8;
        if tag == 0 {
            return self.go_on(word);
        }
        if self.pending != Pending::None {
            self.tear();
        }
        if tag < Tag::Alloc as u8 {
            return self.begin(tag, word);
        }
        let base = self.segments[usize::from(tag & 3)];
        if base == UNDEFINED {
            self.malformed += 1;
            return None;
        }
        let (id, ptr) = (a(word), base | b(word) << 4);
        Some(match tag < Tag::Free as u8 {
            true => Record::Alloc { info: id, ptr },
            false => Record::Free { node: id, ptr },
        })
    }

    #[cold]
    fn tear(&mut self) {
        self.torn += 1;
        self.pending = Pending::None;
    }

    /// The first word of a record that is no event in one word.
    #[inline(never)]
    fn begin(&mut self, tag: u8, word: u64) -> Option<Record> {
        let (a, b) = (a(word), b(word));
        let is_id = |id: u64| (1..=u64::from(MAX_ID)).contains(&id);
        let is_node = |id: u64| id <= u64::from(MAX_ID);
        match tag {
            1 if a > 0 => self.pending = Pending::Text { left: a, is_first: true },
            2 if is_id(a.into()) && is_node(b) => {
                self.pending = Pending::Node { id: a, parent: b as u32 };
            }
            3 if is_id(a.into()) && is_node(b) => {
                self.pending = Pending::Info { id: a, node: b as u32 };
            }
            4 if (a as usize) < SEGMENTS && b < 1 << 28 => self.segments[a as usize] = b << 36,
            5 if is_node(b) => match long_kind(a) {
                Some(kind) => self.pending = Pending::Long { kind, id: b as u32 },
                None => self.malformed += 1,
            },
            6 => return Some(Record::Time(word >> 4)),
            7 => return Some(Record::Rss(word >> 4)),
            _ => self.malformed += 1,
        }
        None
    }

    /// A word with tag 0.
    #[inline(never)]
    fn go_on(&mut self, word: u64) -> Option<Record> {
        let value = word >> 4;
        match self.pending {
            Pending::None if word == 0 => return None,
            Pending::None => return Some(Record::Orphan(value)),
            _ if word == 0 => {
                self.tear();
                return None;
            }
            _ => {}
        }
        match core::mem::take(&mut self.pending) {
            Pending::None => None,
            Pending::Text { left, is_first } => {
                let mut bytes = [0; TEXT_BYTES];
                bytes.copy_from_slice(&word.to_le_bytes()[1..]);
                let length = left.min(TEXT_BYTES as u32);
                let left = left - length;
                if left > 0 {
                    self.pending = Pending::Text { left, is_first: false };
                }
                let (length, is_last) = (length as u8, left == 0);
                Some(Record::Text(Piece { bytes, length, is_first, is_last }))
            }
            Pending::Node { id, parent } => Some(Record::Node { id, parent, address: value }),
            Pending::Info { id, node } => match family(value as u8) {
                Some(family) if family.has_alignment() => {
                    self.pending = Pending::Alignment { id, node, size: value >> 8, family };
                    None
                }
                Some(family) => {
                    Some(Record::Info { id, node, size: value >> 8, family, alignment: 0 })
                }
                None => {
                    self.malformed += 1;
                    None
                }
            },
            Pending::Alignment { id, node, size, family } => {
                Some(Record::Info { id, node, size, family, alignment: value - 1 })
            }
            Pending::Long { kind, id } => {
                let ptr = value - 1;
                match kind {
                    LongKind::Alloc => Some(Record::Alloc { info: id, ptr }),
                    LongKind::Free => Some(Record::Free { node: id, ptr }),
                    LongKind::ReallocOld => Some(Record::ReallocOld { node: id, ptr }),
                    LongKind::Failed => Some(Record::Failed { info: id, ptr }),
                    LongKind::Nothing => None,
                }
            }
        }
    }
}

/// Bits 4 to 31.
#[inline(always)]
const fn a(word: u64) -> u32 {
    (word as u32) >> 4
}

/// Bits 32 to 63.
#[inline(always)]
const fn b(word: u64) -> u64 {
    word >> 32
}

fn long_kind(number: u32) -> Option<LongKind> {
    use LongKind::*;
    [Alloc, Free, ReallocOld, Nothing, Failed].into_iter().find(|kind| *kind as u32 == number)
}

fn family(number: u8) -> Option<Family> {
    use Family::*;
    let libcs = [Malloc, Calloc, Realloc, PosixMemalign, AlignedAlloc, Memalign, Valloc, Pvalloc];
    let operators = [New, NewArray, AlignedNew, AlignedNewArray];
    libcs.into_iter().chain(operators).find(|family| *family as u8 == number)
}

/// Front of the first line of every version.
const MARK: &[u8] = b"# mtr trace ";

/// Whether a file that begins with `front` is a compact trace. Words that were never stored may
/// stand before its first text.
pub fn is_trace(front: &[u8]) -> bool {
    let mut words = words(front).skip_while(|word| *word == 0);
    let is_text = |word: &u64| word & 15 == Tag::Text as u64 && word >> 32 == 0;
    let Some(first) = words.next().filter(is_text) else { return false };
    let mut decoder = Decoder::new();
    decoder.push(first);
    let mut rest = MARK;
    for word in words {
        let Some(Record::Text(piece)) = decoder.push(word) else { return false };
        let length = piece.bytes().len().min(rest.len());
        let (expected, further) = rest.split_at(length);
        if piece.bytes()[..length] != *expected {
            return false;
        }
        rest = further;
        if rest.is_empty() {
            return true;
        }
    }
    false
}

/// The whole words of some bytes.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

/// What a return address of a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// The root of the stacks of this thread.
    Thread(u64),
    /// Frames were left out.
    Cut,
    /// The walk ended without reaching the root.
    Ended,
    /// The stack was not taken.
    NotTaken,
    /// A return address.
    Return(u64),
}

impl Address {
    /// What `address` stands for in a node with this parent (0: none).
    pub fn of(parent: u32, address: u64) -> Address {
        match address {
            FRAMES_CUT => Address::Cut,
            WALK_ENDED => Address::Ended,
            NOT_TAKEN => Address::NotTaken,
            root if parent == 0 => Address::Thread(root >> THREAD_SHIFT),
            address => Address::Return(address),
        }
    }
}

#[cfg(test)]
mod tests;
