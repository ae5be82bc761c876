//! What became of the call sites and call stacks of a trace.

use crate::profile::{Call, Certainty, Link, Location, Place, StackId, StackNode, Stacks};
use crate::read::{CallSite, CallSites, SiteId};

/// What a record without a place is called.
const NOWHERE: &str = "a place that the trace does not state";

/// Call stacks (or call sites) after symbolization.
pub(super) struct Places {
    pub(super) stacks: Stacks,
}

impl Places {
    /// `places` are those of the call sites.
    pub(super) fn new(sites: &CallSites, places: Vec<Place>) -> Places {
        let calls = sites.sites.iter().zip(places);
        // Logs of very old glibc name no module at all.
        let names_modules =
            !sites.modules.is_empty() || sites.sites.iter().any(|site| site.object.is_some());
        let call = |(site, place)| Call::new(place, stated(site, names_modules));
        let calls: Vec<Call> = calls.map(call).collect();
        let are_whole = !sites.stacks.is_empty();
        let nodes = match are_whole {
            true => sites.stacks.clone(),
            false => (0..calls.len() as SiteId)
                .map(|id| StackNode { parent: None, link: Link::Call(id) })
                .collect(),
        };
        Places { stacks: Stacks { calls, nodes, are_whole } }
    }

    /// The stack that an event refers to; `None` where the trace does not say.
    pub(super) fn stack(&self, id: SiteId) -> Option<StackId> {
        let node = self.stacks.nodes.get(id as usize)?;
        (node.link != Link::Unknown).then_some(id)
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
            Some(Link::Ended) => "a place that could not be told",
            _ => NOWHERE,
        };
        let place = Place { certainty: Certainty::Unresolved, ..Place::default() };
        Location { place, stated: stated.into(), stack }
    }
}

/// A call site as the trace states it. Where it names modules and none here, the code was in none.
fn stated(site: &CallSite, names_modules: bool) -> String {
    let object = site.object.as_deref().map(String::from_utf8_lossy);
    let symbol = site
        .symbol
        .as_ref()
        .map(|(name, offset)| format!("{}+{offset:#x}", String::from_utf8_lossy(name)));
    match (object, symbol, site.address) {
        (Some(object), Some(symbol), Some(address)) => format!("{object}({symbol})+{address:#x}"),
        (Some(object), None, Some(address)) => format!("{object}+{address:#x}"),
        (None, Some(symbol), Some(address)) => format!("{symbol} at {address:#x}"),
        (None, None, Some(address)) if names_modules && site.module.is_none() => {
            format!("{address:#x} (in no module)")
        }
        (None, None, Some(address)) => format!("{address:#x}"),
        (Some(object), ..) => object.into_owned(),
        (None, ..) => NOWHERE.into(),
    }
}
