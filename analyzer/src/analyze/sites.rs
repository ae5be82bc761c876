//! Call stacks -> allocation sites.

use hashbrown::HashMap;

use super::places::Places;
use crate::profile::{Amount, Site, SiteStack, StackId};
use crate::read::SiteId;
use crate::replay::{Outcome, SiteTotals};

/// Stacks put together whose allocation sites are the same line of the same function of the same
/// module, those with most live bytes first.
pub(super) fn grouped(outcome: &Outcome, places: &Places) -> Vec<Site> {
    let mut index = HashMap::new();
    // Most stacks share the very frame of their site with others.
    let mut by_frame = HashMap::new();
    let mut by_stack: HashMap<(usize, Option<StackId>), usize> = HashMap::new();
    let mut sites: Vec<Site> = Vec::new();
    for (id, totals) in outcome.sites.iter().enumerate() {
        if totals.allocs == 0 {
            continue;
        }
        let stack = places.stack(id as SiteId);
        let frame = places.frame(id as SiteId);
        let known = frame.and_then(|frame| by_frame.get(&frame).copied());
        let at = known.unwrap_or_else(|| {
            let location = places.location(id as SiteId);
            *index.entry(location.key()).or_insert_with(|| {
                sites.push(Site { location, ..Site::default() });
                sites.len() - 1
            })
        });
        if let Some(frame) = frame {
            by_frame.insert(frame, at);
        }
        let site = &mut sites[at];
        let share = *by_stack.entry((at, stack)).or_insert_with(|| {
            site.stacks.push(SiteStack { stack, ..SiteStack::default() });
            site.stacks.len() - 1
        });
        let share = &mut site.stacks[share];
        add(totals, [&mut site.allocated, &mut site.peak, &mut site.live]);
        add(totals, [&mut share.allocated, &mut share.peak, &mut share.live]);
    }
    sites.sort_by_key(|site| std::cmp::Reverse((site.live.bytes, site.live.blocks)));
    sites
}

fn add(totals: &SiteTotals, [allocated, peak, live]: [&mut Amount; 3]) {
    let add = |amount: &mut Amount, bytes: u64, blocks: u64| {
        amount.bytes = amount.bytes.saturating_add(bytes);
        amount.blocks += blocks;
    };
    add(allocated, totals.bytes, totals.allocs);
    add(peak, totals.peak_bytes, totals.peak_blocks);
    add(live, totals.live_bytes, totals.live_blocks);
}
