//! A symbol table, by address and by name.

use super::address::Svma;
use hashbrown::HashMap;
use object::{ObjectSymbol, SymbolKind, SymbolSection};
use std::ops::Range;

/// A definition that can hold code.
#[derive(Debug, Clone)]
pub(super) struct Symbol {
    pub(super) address: Svma,
    /// 0 where the table does not say.
    pub(super) size: u64,
    /// STT_FUNC, as opposed to labels of assembler and STT_GNU_IFUNC.
    pub(super) is_plain_function: bool,
    is_global: bool,
    name: Range<usize>,
}

/// The definitions of a `.symtab` or `.dynsym`. Names stay in the bytes of the file.
#[derive(Debug, Default)]
pub(super) struct SymbolTable {
    by_address: Vec<Symbol>,
    by_name: std::cell::OnceCell<HashMap<Box<[u8]>, Vec<Svma>>>,
}

/// How many symbols in front of an address are tried for one that reaches up to it.
const NESTING: usize = 16;

impl SymbolTable {
    pub(super) fn new<'data, 'file, S>(bytes: &[u8], symbols: S) -> SymbolTable
    where
        'data: 'file,
        S: Iterator<Item = object::Symbol<'data, 'file>>,
    {
        let mut by_address: Vec<Symbol> = Vec::new();
        for symbol in symbols {
            let is_code = match symbol.kind() {
                SymbolKind::Text => true,
                // STT_NOTYPE (hand-written assembler) and STT_GNU_IFUNC.
                SymbolKind::Unknown | SymbolKind::Label => true,
                _ => false,
            };
            if !is_code || !matches!(symbol.section(), SymbolSection::Section(_)) {
                continue;
            }
            let Ok(name) = symbol.name_bytes() else { continue };
            // Names are slices of the file: keep the place, not a copy.
            let start = (name.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize);
            let name = start..start.wrapping_add(name.len());
            if name.is_empty() || bytes.get(name.clone()).is_none() {
                continue;
            }
            by_address.push(Symbol {
                address: Svma(symbol.address()),
                size: symbol.size(),
                is_plain_function: symbol.kind() == SymbolKind::Text,
                is_global: symbol.is_global(),
                name,
            });
        }
        // At one address, the last one wins: a sized, global function.
        by_address.sort_by_key(|s| (s.address, s.size > 0, s.is_plain_function, s.is_global));
        SymbolTable { by_address, by_name: std::cell::OnceCell::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// The symbol that holds an address; one without a size reaches to the next.
    pub(super) fn containing(&self, address: Svma) -> Option<&Symbol> {
        let end = self.by_address.partition_point(|symbol| symbol.address <= address);
        let start = end.saturating_sub(NESTING);
        let sized = self.by_address[start..end]
            .iter()
            .rev()
            .find(|symbol| symbol.size > 0 && address.0 - symbol.address.0 < symbol.size);
        let nearest = self.by_address[start..end].last().filter(|symbol| symbol.size == 0);
        sized.or(nearest)
    }

    /// All symbols at exactly this address.
    pub(super) fn at(&self, address: Svma) -> &[Symbol] {
        let start = self.by_address.partition_point(|symbol| symbol.address < address);
        let end = self.by_address.partition_point(|symbol| symbol.address <= address);
        &self.by_address[start..end]
    }

    /// The addresses that a name is defined at: several with symbol versions.
    pub(super) fn named(&self, bytes: &[u8], name: &[u8]) -> &[Svma] {
        let by_name = self.by_name.get_or_init(|| {
            let mut map: HashMap<Box<[u8]>, Vec<Svma>> = HashMap::new();
            for symbol in &self.by_address {
                map.entry(symbol.name(bytes).into()).or_default().push(symbol.address);
            }
            map
        });
        by_name.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Symbol {
    /// Its name in the bytes of the file that the table was made from.
    pub(super) fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.name.clone()).unwrap_or_default()
    }
}
