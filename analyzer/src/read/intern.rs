//! Places of records -> call sites: each distinct one is taken apart and stored once.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use mtr_format::text::decode::{Op, Place};
use mtr_format::text::encode::PUBLISHED_LAST;
use mtr_format::text::escape::{MAX_ESCAPED, escape, unescape};
use mtr_format::text::meta::Meta;

use super::module_map::ModuleMap;
use super::{Addressing, CallSite, CallSites, Kinds, ModuleId, SiteId};

/// Smallest address that cannot be relative: no module is 4 GiB large.
const SURELY_ABSOLUTE: u64 = 1 << 32;

/// The site of a text that has not been taken apart yet.
const NONE: SiteId = SiteId::MAX;

/// One distinct text of a place.
struct Text {
    /// Where it stands in [`Interner::bytes`].
    begin: usize,
    end: usize,
    /// The site that it means at present.
    site: SiteId,
    /// Generation of the module map for which that is so.
    generation: u32,
}

/// Entries of the table in front of the hash table.
const FRONT: usize = 1 << 12;

/// A place that was met lately.
#[derive(Clone, Copy, Default)]
struct Recent {
    begin: usize,
    length: u32,
    site: SiteId,
    generation: u32,
}

/// All places seen so far.
pub(super) struct Interner {
    /// Places by their last bytes, which are the digits of the address: most records find theirs
    /// here without hashing all of it.
    front: Box<[Recent]>,
    hasher: FixedState,
    /// Indices of `texts` by their bytes.
    table: HashTable<u32>,
    texts: Vec<Text>,
    bytes: Vec<u8>,
    /// The same text means another site after another module took its address.
    meanings: HashMap<(u32, Option<ModuleId>), SiteId, FixedState>,
    sites: Vec<CallSite>,
    /// Kinds of records seen at each site, as bits; apart from `sites` because every event sets
    /// one.
    kinds: Vec<u8>,
    modules: ModuleMap,
    /// The site of all records without a place.
    nowhere: Option<SiteId>,
    /// The log is one of libmtr.so and its addresses have this meaning.
    ours: Option<Addressing>,
    /// A symbol's offset with `0x` was seen: glibc 2.33 or before, all addresses are absolute.
    prefixed: bool,
}

impl Default for Interner {
    fn default() -> Interner {
        Interner {
            front: vec![Recent::default(); FRONT].into_boxed_slice(),
            hasher: FixedState::default(),
            table: HashTable::new(),
            texts: Vec::new(),
            bytes: Vec::new(),
            meanings: HashMap::default(),
            sites: Vec::new(),
            kinds: Vec::new(),
            modules: ModuleMap::default(),
            nowhere: None,
            ours: None,
            prefixed: false,
        }
    }
}

/// Whether two texts are the same; short ones, for which a call of memcmp would cost more.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let (Some((a_last, b_last)), true) =
        (a.last_chunk::<8>().zip(b.last_chunk()), a.len() == b.len())
    else {
        return a == b;
    };
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    a_last == b_last && words.fold(true, |same, (a, b)| same & (a == b))
}

const ALLOC: u8 = 1;
const FREE: u8 = 2;
const REALLOC: u8 = 4;

impl Interner {
    /// The log states what it is: names are escaped, and its addresses have this meaning.
    pub(super) fn state_ours(&mut self, addressing: Addressing) {
        self.ours = Some(addressing);
    }

    /// A `# module` or `# unload` line.
    pub(super) fn module(&mut self, meta: Meta<'_>) {
        self.modules.state(meta);
    }

    /// The site of a record.
    #[inline]
    pub(super) fn site(&mut self, place: Option<&[u8]>, op: Op) -> SiteId {
        let site = match place {
            Some(text) => self.site_of(text),
            None => self.site_of_nowhere(),
        };
        self.kinds[site as usize] |= match op {
            Op::Alloc { .. } => ALLOC,
            Op::Free { .. } => FREE,
            Op::ReallocFrom { .. } | Op::ReallocTo { .. } | Op::ReallocFailed { .. } => REALLOC,
        };
        site
    }

    /// The site of a record of which only the rest was stored: the first [`PUBLISHED_LAST`] bytes are
    /// missing.
    #[cold]
    pub(super) fn site_of_rest(&mut self, rest: &[u8], op: Op) -> SiteId {
        let place = self.completed(rest);
        self.site(place.as_deref(), op)
    }

    /// What a place was of which this is the rest; `None` where it cannot be told.
    fn completed(&self, rest: &[u8]) -> Option<Vec<u8>> {
        /// Bytes of WHERE that are missing.
        const MISSING: usize = PUBLISHED_LAST - 2;
        let digits = rest.strip_suffix(b"]")?;
        let begin = digits.iter().rposition(|b| *b == b'[').map_or(0, |open| open + 1);
        let (before, digits) = (&rest[..begin], &digits[begin..]);
        let digits = &digits[digits.iter().position(|b| *b == b'x').map_or(0, |x| x + 1)..];
        let address = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        let symbol = before.iter().position(|b| *b == b'(').map_or(&b"["[..], |at| &before[at..]);
        let behind = [symbol, b"0x", digits, b"]"].concat();
        // Of a module whose name was cut: it is the one that makes the place as long as it was.
        let mut names = self.modules.loaded().filter_map(|module| {
            let holds = (module.start..module.end).contains(&address.wrapping_sub(1));
            if self.ours == Some(Addressing::Absolute) && !holds {
                return None;
            }
            let mut name = vec![0; module.name.len() * MAX_ESCAPED];
            let length = escape(&module.name, &mut name);
            name.truncate(length);
            let whole = [&name, &b":"[..], &behind].concat();
            (whole.len() == rest.len() + MISSING && whole.ends_with(rest)).then_some(whole)
        });
        let only = names.next().filter(|_| names.next().is_none());
        // Without a module's name, an address says all, if it is whole.
        let is_whole = begin > 0 && self.ours == Some(Addressing::Absolute);
        only.or_else(|| is_whole.then(|| [b"[0x", digits, b"]"].concat()))
    }

    #[inline]
    fn site_of(&mut self, text: &[u8]) -> SiteId {
        let Some(last) = text.last_chunk::<8>() else { return self.look_up(text).0 };
        let hash = u64::from_le_bytes(*last).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let slot = (hash >> (64 - FRONT.ilog2())) as usize & (FRONT - 1);
        let Recent { begin, length, site, generation } = self.front[slot];
        if length as usize == text.len()
            && generation == self.modules.generation
            && self.bytes.get(begin..begin + text.len()).is_some_and(|known| is_same(known, text))
        {
            return site;
        }
        let (site, index) = self.look_up(text);
        let begin = self.texts[index as usize].begin;
        let (length, generation) = (text.len() as u32, self.modules.generation);
        self.front[slot] = Recent { begin, length, site, generation };
        site
    }

    /// The site of a text, and the index of the text.
    #[inline(never)]
    fn look_up(&mut self, text: &[u8]) -> (SiteId, u32) {
        let hash = self.hasher.hash_one(text);
        let same = |index: &u32| {
            let known = &self.texts[*index as usize];
            self.bytes[known.begin..known.end] == *text
        };
        let index = match self.table.find(hash, same) {
            Some(&index) => index,
            None => self.add(text, hash),
        };
        let known = &self.texts[index as usize];
        match known.generation == self.modules.generation && known.site != NONE {
            true => (known.site, index),
            false => (self.meaning(index), index),
        }
    }

    fn site_of_nowhere(&mut self) -> SiteId {
        *self.nowhere.get_or_insert_with(|| {
            self.sites.push(CallSite {
                object: None,
                symbol: None,
                address: None,
                addressing: Addressing::Absolute,
                module: None,
                kinds: Kinds::default(),
            });
            self.kinds.push(0);
            (self.sites.len() - 1) as SiteId
        })
    }

    #[cold]
    fn add(&mut self, text: &[u8], hash: u64) -> u32 {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(text);
        let index = self.texts.len() as u32;
        self.texts.push(Text { begin, end: self.bytes.len(), site: NONE, generation: 0 });
        let (hasher, texts, bytes) = (&self.hasher, &self.texts, &self.bytes);
        self.table.insert_unique(hash, index, |index| {
            let known = &texts[*index as usize];
            hasher.hash_one(&bytes[known.begin..known.end])
        });
        index
    }

    /// The site that a text means under the module map as it is now.
    #[cold]
    fn meaning(&mut self, index: u32) -> SiteId {
        let known = &self.texts[index as usize];
        let place = Place::parse(&self.bytes[known.begin..known.end]);
        let name = |text: &[u8]| match self.ours {
            Some(_) => unescape(text).collect(),
            None => text.to_vec(),
        };
        let object = place.object.map(name);
        let addressing = match (self.ours, &object, place.address) {
            (_, None, _) => Addressing::Absolute,
            (Some(stated), ..) => stated,
            (None, _, Some(address)) if address >= SURELY_ABSOLUTE => Addressing::Absolute,
            (None, ..) => Addressing::Unknown,
        };
        let module = match (addressing, place.address, &object) {
            (Addressing::Absolute, Some(address), _) => self.modules.holding(address),
            (Addressing::Relative, _, Some(object)) => self.modules.named(object),
            _ => None,
        };
        self.prefixed |= object.is_some() && place.symbol.is_some_and(|symbol| symbol.prefixed);
        let site = *self.meanings.entry((index, module)).or_insert_with(|| {
            let symbol = place.symbol.map(|symbol| (name(symbol.name), symbol.offset));
            let kinds = Kinds::default();
            let address = place.address;
            self.sites.push(CallSite { object, symbol, address, addressing, module, kinds });
            self.kinds.push(0);
            (self.sites.len() - 1) as SiteId
        });
        let known = &mut self.texts[index as usize];
        known.site = site;
        known.generation = self.modules.generation;
        site
    }

    /// All sites and modules.
    pub(super) fn finish(self) -> CallSites {
        let mut sites = self.sites;
        for (site, bits) in sites.iter_mut().zip(self.kinds) {
            site.kinds = Kinds {
                alloc: bits & ALLOC != 0,
                free: bits & FREE != 0,
                realloc: bits & REALLOC != 0,
            };
            if self.prefixed && site.addressing == Addressing::Unknown {
                site.addressing = Addressing::Absolute;
            }
        }
        CallSites { modules: self.modules.all, sites, ..CallSites::default() }
    }
}
