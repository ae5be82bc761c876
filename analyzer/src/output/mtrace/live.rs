//! The blocks that are live, by the text of their addresses, and the places they came from.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::number::{Number, hex, pointer};

/// An address as the script keys it: by its text. `0x10`, `0x010` and `0X10` are three blocks.
///
/// The text that `%p` writes is kept as a number, to and from which it maps one to one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// What `%p` writes.
    Usual(u64),
    /// Any other text.
    Other(Box<[u8]>),
}

impl Key {
    fn new(text: &[u8]) -> Self {
        pointer(text).map_or_else(|| Self::Other(text.into()), Self::Usual)
    }

    /// The address as a number.
    pub(super) fn number(&self) -> Number {
        match self {
            &Self::Usual(value) => Number { value, infinite: false },
            Self::Other(text) => hex(text),
        }
    }

    fn text(&self) -> Vec<u8> {
        match self {
            Self::Usual(value) => format!("{value:#x}").into_bytes(),
            Self::Other(text) => text.to_vec(),
        }
    }
}

impl Ord for Key {
    /// The order of the texts, byte by byte.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Digits sort as their values do, so the texts compare like the values with their
            // first digits aligned, and a text comes before those that it begins.
            (&Self::Usual(a), &Self::Usual(b)) => {
                let blank = |value: u64| value.leading_zeros() & !3;
                let aligned = |value: u64| value.checked_shl(blank(value)).unwrap_or(0);
                (aligned(a), blank(b)).cmp(&(aligned(b), blank(a)))
            }
            _ => self.text().cmp(&other.text()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A live block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    size: u64,
    place: PlaceId,
    size_is_infinite: bool,
}

impl Block {
    pub(super) fn new(size: Number, place: PlaceId) -> Self {
        Self { size: size.value, place, size_is_infinite: size.infinite }
    }

    pub(super) fn size(&self) -> Number {
        Number { value: self.size, infinite: self.size_is_infinite }
    }

    pub(super) fn place(&self) -> PlaceId {
        self.place
    }
}

/// All live blocks. The script keeps the keys of freed ones too, but never shows them.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    usual: HashMap<u64, Block, RandomState>,
    other: HashMap<Box<[u8]>, Block, RandomState>,
}

impl Blocks {
    /// Adds the block that `make` returns, unless one is live at this address: then that one.
    pub(super) fn insert_or_get(
        &mut self,
        address: &[u8],
        make: impl FnOnce() -> Block,
    ) -> Option<Block> {
        match Key::new(address) {
            Key::Usual(value) => insert(self.usual.entry(value), make),
            Key::Other(text) => insert(self.other.entry(text), make),
        }
    }

    /// The block live at this address.
    pub(super) fn get(&self, address: &[u8]) -> Option<Block> {
        match pointer(address) {
            Some(value) => self.usual.get(&value).copied(),
            None => self.other.get(address).copied(),
        }
    }

    /// Ends the block at this address; `false` where none is live.
    pub(super) fn remove(&mut self, address: &[u8]) -> bool {
        match pointer(address) {
            Some(value) => self.usual.remove(&value).is_some(),
            None => self.other.remove(address).is_some(),
        }
    }

    /// All blocks in the order of the texts of their addresses.
    pub(super) fn into_sorted(self) -> Vec<(Key, Block)> {
        let usual = self.usual.into_iter().map(|(value, block)| (Key::Usual(value), block));
        let other = self.other.into_iter().map(|(text, block)| (Key::Other(text), block));
        let mut blocks: Vec<_> = usual.chain(other).collect();
        blocks.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        blocks
    }
}

fn insert<K>(entry: Entry<'_, K, Block>, make: impl FnOnce() -> Block) -> Option<Block> {
    match entry {
        Entry::Occupied(entry) => Some(*entry.get()),
        Entry::Vacant(entry) => {
            entry.insert(make());
            None
        }
    }
}

/// Index of a WHERE in [`Places`].
pub(super) type PlaceId = u32;

/// Every WHERE at which a block began, once: a program has few of them and many blocks.
#[derive(Debug, Default)]
pub(super) struct Places {
    texts: Vec<Box<[u8]>>,
    ids: HashTable<PlaceId>,
    hasher: RandomState,
}

impl Places {
    /// The ID of a WHERE, new or not.
    pub(super) fn id(&mut self, where_: &[u8]) -> PlaceId {
        let Self { texts, ids, hasher } = self;
        let hash = hasher.hash_one(where_);
        if let Some(&id) = ids.find(hash, |&id| *texts[id as usize] == *where_) {
            return id;
        }
        let id = PlaceId::try_from(texts.len()).expect("a log of 2^32 places is beyond any memory");
        texts.push(where_.into());
        ids.insert_unique(hash, id, |&id| hasher.hash_one(&*texts[id as usize]));
        id
    }

    /// The WHERE of this ID.
    pub(super) fn text(&self, id: PlaceId) -> &[u8] {
        &self.texts[id as usize]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_sort_as_their_texts(
            texts in prop::collection::vec("0x[0-9a-f]{1,4}|0x[0-9a-fA]{0,17}|[0-9x(]{0,3}", 2..40)
        ) {
            let mut texts: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
            let mut keys: Vec<Key> = texts.iter().map(|text| Key::new(text)).collect();
            keys.sort();
            texts.sort();
            prop_assert_eq!(keys.iter().map(Key::text).collect::<Vec<_>>(), texts);
        }
    }
}
