//! Which module lies where, as the `#` lines of a log tell it from line to line.

use std::collections::BTreeMap;

use mtr_format::text::escape::unescape;
use mtr_format::text::meta::Meta;

use super::header::path;
use super::{Module, ModuleId};

/// The modules that are loaded at one line of a log, and all that ever were.
#[derive(Debug, Default)]
pub(super) struct ModuleMap {
    /// All modules in order of appearance; identical ones stand here once.
    pub(super) all: Vec<Module>,
    /// Those loaded now, by their start.
    loaded: BTreeMap<u64, ModuleId>,
    /// Rises with every change, so that what was found by an older one is looked up again.
    pub(super) generation: u32,
}

impl ModuleMap {
    /// A `# module` or `# unload` line.
    #[cold]
    pub(super) fn state(&mut self, meta: Meta<'_>) {
        match meta {
            Meta::Module { start, end, bias, build_id, path: file, name } => self.load(Module {
                start,
                end,
                bias,
                build_id: from_hex(build_id),
                path: path(file),
                name: unescape(name).collect(),
            }),
            Meta::Unload { start, end } => self.unload(start, end),
            _ => {}
        }
    }

    /// `# module`: it replaces what it overlaps.
    pub(super) fn load(&mut self, module: Module) {
        let (start, end) = (module.start, module.end);
        let id = match self.all.iter().position(|known| *known == module) {
            Some(known) => known as ModuleId,
            None => {
                self.all.push(module);
                (self.all.len() - 1) as ModuleId
            }
        };
        if self.loaded.get(&start) == Some(&id) {
            return;
        }
        self.unload(start, end);
        self.loaded.insert(start, id);
    }

    /// `# unload`: whatever lies in the range is gone.
    pub(super) fn unload(&mut self, start: u64, end: u64) {
        let all = &self.all;
        self.loaded.retain(|at, id| *at >= end || all[*id as usize].end <= start);
        self.generation += 1;
    }

    /// The module that holds the call that returns to `address`.
    pub(super) fn holding(&self, address: u64) -> Option<ModuleId> {
        // The call is the byte before: it may be the last instruction of the module.
        let call = address.checked_sub(1)?;
        let (_, id) = self.loaded.range(..=call).next_back()?;
        (call < self.all[*id as usize].end).then_some(*id)
    }

    /// The modules that are loaded now.
    pub(super) fn loaded(&self) -> impl Iterator<Item = &Module> {
        self.loaded.values().map(|id| &self.all[*id as usize])
    }

    /// The module called `name` in records; the one loaded last when several are.
    pub(super) fn named(&self, name: &[u8]) -> Option<ModuleId> {
        self.loaded.values().copied().filter(|id| self.all[*id as usize].name == name).max()
    }
}

/// The bytes of a build ID; the caller has checked the digits.
fn from_hex(digits: &[u8]) -> Vec<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(start: u64, end: u64, name: &str) -> Module {
        let name = name.as_bytes().to_vec();
        Module { start, end, bias: start, build_id: vec![], path: "/lib".into(), name }
    }

    #[test]
    fn a_module_replaces_what_it_overlaps() {
        let mut map = ModuleMap::default();
        map.load(module(0x1000, 0x3000, "a"));
        map.load(module(0x3000, 0x4000, "b"));
        map.load(module(0x2000, 0x3000, "c"));
        assert_eq!(map.holding(0x1800), None);
        assert_eq!(map.holding(0x2800), Some(2));
        assert_eq!(map.holding(0x3800), Some(1));
        assert_eq!(map.named(b"a"), None);
    }

    #[test]
    fn an_unloaded_module_holds_nothing_and_comes_back_as_itself() {
        let mut map = ModuleMap::default();
        map.load(module(0x1000, 0x3000, "a"));
        map.unload(0x1000, 0x3000);
        assert_eq!(map.holding(0x1800), None);
        map.load(module(0x1000, 0x3000, "a"));
        assert_eq!(map.holding(0x1800), Some(0));
        assert_eq!(map.all.len(), 1);
    }

    #[test]
    fn a_return_address_behind_the_last_byte_belongs_to_the_module() {
        let mut map = ModuleMap::default();
        map.load(module(0x1000, 0x3000, "a"));
        map.load(module(0x3000, 0x4000, "b"));
        assert_eq!(map.holding(0x3000), Some(0));
        assert_eq!(map.holding(0x1000), None);
    }
}
