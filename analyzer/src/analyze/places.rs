//! What became of the call sites and call stacks of a trace.

use hashbrown::HashMap;

use crate::profile::{Call, Certainty, Link, Location, Place, StackId, StackNode, Stacks};
use crate::read::{CallSite, CallSites, SiteId};

/// What a record without a place is called.
const NOWHERE: &str = "a place that the trace does not state";

/// Call stacks after symbolization. The same stack in several threads is one here.
pub(super) struct Places {
    pub(super) stacks: Stacks,
    /// Which of these each stack (or call site) of the trace is; `None` where it is none at all.
    ids: Vec<Option<StackId>>,
}

impl Places {
    /// `places` are those of the call sites.
    pub(super) fn new(sites: &CallSites, places: Vec<Place>) -> Places {
        let calls = sites.sites.iter().zip(places);
        let calls: Vec<Call> = calls.map(|(site, place)| Call::new(place, stated(site))).collect();
        let are_whole = !sites.stacks.is_empty();
        let (nodes, ids) = match are_whole {
            true => without_threads(&sites.stacks),
            false => {
                let call = |id| StackNode { parent: None, link: Link::Call(id) };
                let ids = 0..calls.len() as SiteId;
                (ids.clone().map(call).collect(), ids.map(Some).collect())
            }
        };
        Places { stacks: Stacks { calls, nodes, are_whole }, ids }
    }

    /// The stack that an event refers to.
    pub(super) fn stack(&self, id: SiteId) -> Option<StackId> {
        self.ids.get(id as usize).copied().flatten()
    }

    /// The frame that names a stack: its call, and its index there.
    pub(super) fn frame(&self, id: SiteId) -> Option<(SiteId, usize)> {
        let site = self.stacks.site(self.stack(id)?)?;
        Some((site.call_id, site.index))
    }

    /// The place that names a stack.
    pub(super) fn location(&self, id: SiteId) -> Location {
        let stack = self.stack(id);
        if let Some(site) = stack.and_then(|stack| self.stacks.site(stack)) {
            let Call { place, stated, .. } = site.call.clone();
            return Location { place, stated, stack };
        }
        let node = stack.and_then(|stack| self.stacks.nodes.get(stack as usize));
        let stated = match node.map(|node| node.link) {
            Some(Link::NotTaken) => "a signal handler, while another stack was being taken",
            Some(Link::Ended) => "a place that could not be told",
            _ => NOWHERE,
        };
        let place = Place { certainty: Certainty::Unresolved, ..Place::default() };
        Location { place, stated: stated.into(), stack }
    }
}

/// The stacks without the roots that name a thread, and what became of each.
fn without_threads(stacks: &[StackNode]) -> (Vec<StackNode>, Vec<Option<StackId>>) {
    let mut index = HashMap::new();
    let (mut nodes, mut ids) = (Vec::new(), Vec::with_capacity(stacks.len()));
    for node in stacks {
        let id = match node.link {
            Link::Thread(_) | Link::Unknown => None,
            link => {
                let parent = node.parent.and_then(|parent| ids.get(parent as usize).copied()?);
                let node = StackNode { parent, link };
                Some(*index.entry(node).or_insert_with(|| {
                    nodes.push(node);
                    (nodes.len() - 1) as StackId
                }))
            }
        };
        ids.push(id);
    }
    (nodes, ids)
}

/// A call site as the trace states it.
fn stated(site: &CallSite) -> String {
    let object = site.object.as_deref().map(String::from_utf8_lossy);
    let symbol = site
        .symbol
        .as_ref()
        .map(|(name, offset)| format!("{}+{offset:#x}", String::from_utf8_lossy(name)));
    match (object, symbol, site.address) {
        (Some(object), Some(symbol), Some(address)) => format!("{object}({symbol})+{address:#x}"),
        (Some(object), None, Some(address)) => format!("{object}+{address:#x}"),
        (None, Some(symbol), Some(address)) => format!("{symbol} at {address:#x}"),
        (None, None, Some(address)) => format!("{address:#x}"),
        (Some(object), ..) => object.into_owned(),
        (None, ..) => NOWHERE.into(),
    }
}
