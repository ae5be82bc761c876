//! Nodes of a trace -> distinct call stacks and call sites.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use mtr_format::compact::decode::Address;
use mtr_format::compact::op::Family;
use mtr_format::text::meta::Meta;

use crate::read::module_map::ModuleMap;
use crate::read::{
    Addressing, CallSite, CallSites, Kinds, Link, Module, ModuleId, SiteId, StackId, StackNode,
};

/// The call stacks that a trace has named so far. Nodes with the same parent and the same return
/// address in the same module are one.
#[derive(Debug)]
pub struct Stacks {
    modules: ModuleMap,
    nodes: Vec<StackNode>,
    by_node: HashMap<StackNode, StackId, FixedState>,
    sites: Vec<CallSite>,
    by_call: HashMap<(u64, Option<ModuleId>), SiteId, FixedState>,
    /// Sites in no module that was known. A thread that calls into a new module can do so at a
    /// stamp that is older than that of the thread which states the module.
    unplaced: Vec<SiteId>,
}

impl Default for Stacks {
    fn default() -> Stacks {
        let mut stacks = Stacks {
            modules: ModuleMap::default(),
            nodes: Vec::new(),
            by_node: HashMap::default(),
            sites: Vec::new(),
            by_call: HashMap::default(),
            unplaced: Vec::new(),
        };
        stacks.add(StackNode { parent: None, link: Link::Unknown });
        stacks
    }
}

impl Stacks {
    /// The stack that was not recorded, or whose definition is lost.
    pub(super) const UNKNOWN: StackId = 0;

    /// The call sites of a stack from the innermost one on, and the modules that hold them, up to
    /// where the stack is not known.
    pub fn calls(&self, stack: StackId) -> impl Iterator<Item = (&CallSite, Option<&Module>)> {
        let node = |id: StackId| self.nodes.get(id as usize);
        std::iter::successors(node(stack), move |last| node(last.parent?)).map_while(|node| {
            let Link::Call(site) = node.link else { return None };
            let site = self.sites.get(site as usize)?;
            Some((site, site.module.and_then(|id| self.modules.all.get(id as usize))))
        })
    }

    /// A `# module` or `# unload` line.
    pub(super) fn state(&mut self, meta: Meta<'_>) {
        self.modules.state(meta);
        if !matches!(meta, Meta::Module { .. }) {
            return;
        }
        let Stacks { modules, sites, by_call, unplaced, .. } = self;
        unplaced.retain(|id| {
            let site = &mut sites[*id as usize];
            let Some(address) = site.address else { return false };
            let module = modules.holding(address);
            if module.is_some() {
                (site.module, site.object) = (module, name_of(modules, module));
                by_call.entry((address, module)).or_insert(*id);
            }
            module.is_none()
        });
    }

    /// A stack: what is innermost, and the stack that it continues.
    pub(super) fn node(&mut self, parent: Option<StackId>, meaning: Address) -> StackId {
        let link = self.link(meaning);
        self.add(StackNode { parent, link })
    }

    fn link(&mut self, meaning: Address) -> Link {
        match meaning {
            Address::Cut => Link::Cut,
            Address::Ended => Link::Ended,
            Address::Return(address) => Link::Call(self.site(address)),
        }
    }

    fn add(&mut self, node: StackNode) -> StackId {
        *self.by_node.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            (self.nodes.len() - 1) as StackId
        })
    }

    fn site(&mut self, address: u64) -> SiteId {
        let module = self.modules.holding(address);
        *self.by_call.entry((address, module)).or_insert_with(|| {
            let id = self.sites.len() as SiteId;
            self.sites.push(CallSite {
                object: name_of(&self.modules, module),
                symbol: None,
                address: Some(address),
                addressing: Addressing::Absolute,
                module,
                kinds: Kinds::default(),
            });
            if module.is_none() {
                self.unplaced.push(id);
            }
            id
        })
    }

    /// Blocks are allocated there by this function.
    pub(super) fn mark_allocation(&mut self, stack: StackId, family: Family) {
        if let Some(Link::Call(site)) = self.nodes.get(stack as usize).map(|node| node.link)
            && let Some(site) = self.sites.get_mut(site as usize)
        {
            match family {
                Family::Realloc => site.kinds.realloc = true,
                _ => site.kinds.alloc = true,
            }
        }
    }

    /// Blocks are freed there.
    pub(super) fn mark_free(&mut self, stack: StackId) {
        if let Some(Link::Call(site)) = self.nodes.get(stack as usize).map(|node| node.link)
            && let Some(site) = self.sites.get_mut(site as usize)
        {
            site.kinds.free = true;
        }
    }

    /// All stacks, sites and modules.
    pub(super) fn finish(self) -> CallSites {
        let (modules, sites, stacks) = (self.modules.all, self.sites, self.nodes);
        CallSites { modules, sites, stacks, ..CallSites::default() }
    }
}

fn name_of(modules: &ModuleMap, module: Option<ModuleId>) -> Option<Vec<u8>> {
    let module = modules.all.get(module? as usize)?;
    Some(module.name.clone())
}
