//! Nodes of a trace -> distinct call stacks and call sites.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use mtr_format::compact::decode::Address;
use mtr_format::compact::word::Family;

use crate::read::module_map::ModuleMap;
use crate::read::{
    Addressing, CallSite, CallSites, Kinds, Link, Module, ModuleId, SiteId, StackId, StackNode,
};

/// The call stacks that a trace has named so far. Nodes with the same parent and the same return
/// address in the same module are one.
#[derive(Debug)]
pub struct Stacks {
    pub(super) modules: ModuleMap,
    nodes: Vec<StackNode>,
    by_node: HashMap<StackNode, StackId, FixedState>,
    sites: Vec<CallSite>,
    by_call: HashMap<(u64, Option<ModuleId>), SiteId, FixedState>,
    /// Which stacks end in a free; apart from `nodes` because every event sets one.
    frees: Vec<bool>,
}

impl Default for Stacks {
    fn default() -> Stacks {
        let mut stacks = Stacks {
            modules: ModuleMap::default(),
            nodes: Vec::new(),
            by_node: HashMap::default(),
            sites: Vec::new(),
            by_call: HashMap::default(),
            frees: Vec::new(),
        };
        stacks.add(StackNode { parent: None, link: Link::Unknown });
        stacks
    }
}

impl Stacks {
    /// The stack that was not recorded, or whose definition is lost.
    pub(super) const UNKNOWN: StackId = 0;

    /// The call site that is innermost in a stack, and the module that holds it.
    pub fn innermost(&self, stack: StackId) -> Option<(&CallSite, Option<&Module>)> {
        let Link::Call(site) = self.nodes.get(stack as usize)?.link else { return None };
        let site = self.sites.get(site as usize)?;
        Some((site, site.module.and_then(|id| self.modules.all.get(id as usize))))
    }

    /// A node without a parent.
    pub(super) fn root(&mut self, meaning: Address) -> StackId {
        let link = self.link(meaning);
        self.add(StackNode { parent: None, link })
    }

    pub(super) fn node(&mut self, parent: StackId, meaning: Address) -> StackId {
        let link = self.link(meaning);
        self.add(StackNode { parent: Some(parent), link })
    }

    fn link(&mut self, meaning: Address) -> Link {
        match meaning {
            Address::Thread(id) => Link::Thread(id as u32),
            Address::Cut => Link::Cut,
            Address::Ended => Link::Ended,
            Address::NotTaken => Link::NotTaken,
            Address::Return(address) => Link::Call(self.site(address)),
        }
    }

    fn add(&mut self, node: StackNode) -> StackId {
        *self.by_node.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            self.frees.push(false);
            (self.nodes.len() - 1) as StackId
        })
    }

    fn site(&mut self, address: u64) -> SiteId {
        let module = self.modules.holding(address);
        *self.by_call.entry((address, module)).or_insert_with(|| {
            let name = module.and_then(|id| self.modules.all.get(id as usize));
            self.sites.push(CallSite {
                object: name.map(|module| module.name.clone()),
                symbol: None,
                address: Some(address),
                addressing: Addressing::Absolute,
                module,
                kinds: Kinds::default(),
            });
            (self.sites.len() - 1) as SiteId
        })
    }

    /// Blocks are freed there.
    #[inline]
    pub(super) fn mark_free(&mut self, stack: StackId) {
        if let Some(mark) = self.frees.get_mut(stack as usize) {
            *mark = true;
        }
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

    /// All stacks, sites and modules.
    pub(super) fn finish(self) -> CallSites {
        let mut sites = self.sites;
        for (node, frees) in self.nodes.iter().zip(self.frees) {
            if let (true, Link::Call(site)) = (frees, node.link) {
                sites[site as usize].kinds.free = true;
            }
        }
        CallSites { modules: self.modules.all, sites, stacks: self.nodes, ..CallSites::default() }
    }
}
