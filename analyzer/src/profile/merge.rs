//! Several profiles -> one: the processes of a run put together.

use std::path::PathBuf;

use hashbrown::HashMap;

use super::{
    Amount, Call, Ending, Link, Location, Part, Profile, Site, SiteId, SiteKey, SiteStack, StackId,
    StackNode, Stacks,
};

/// The sum of `profiles`. Each process's trace holds its own events only, so each event counts
/// once. `None` without profiles.
pub fn merge(mut profiles: Vec<Profile>) -> Option<Profile> {
    if profiles.len() < 2 {
        return profiles.pop();
    }
    let mut merged = Profile {
        ending: profiles[0].ending,
        is_compact: profiles[0].is_compact,
        stacks: Stacks { are_whole: true, ..Stacks::default() },
        ..Profile::default()
    };
    let mut index = Index::default();
    let mut notes = Notes::default();
    for mut profile in profiles {
        merged.parts.push(part(&profile));
        notes.add(std::mem::take(&mut profile.notes), &profile);
        add(&mut merged, profile, &mut index);
    }
    let of_peak =
        "The peak is the sum of each process's own, which need not have been at one time.";
    merged.notes = notes.finish();
    merged.notes.insert(0, of_peak.into());
    merged.sites.sort_by_key(|site| std::cmp::Reverse((site.live.bytes, site.live.blocks)));
    merged.parts.sort_by_key(|part| std::cmp::Reverse((part.totals.live_bytes, part.totals.bytes)));
    Some(merged)
}

fn part(profile: &Profile) -> Part {
    Part {
        trace: profile.trace.clone(),
        program: profile.program.clone(),
        arguments: profile.arguments.clone(),
        pid: profile.pid,
        ending: profile.ending,
        totals: profile.totals,
    }
}

/// What is to be said of each process, the same of several once.
#[derive(Default)]
struct Notes(Vec<(String, u64, String)>);

impl Notes {
    fn add(&mut self, notes: Vec<String>, profile: &Profile) {
        let name = profile.program.as_deref().and_then(|program| program.file_name());
        let name = name.or(profile.trace.file_name()).unwrap_or_default().display().to_string();
        let name = profile.pid.map_or(name.clone(), |pid| format!("{name} (pid {pid})"));
        for note in notes {
            match self.0.iter_mut().find(|(known, ..)| *known == note) {
                Some((_, count, _)) => *count += 1,
                None => self.0.push((note, 1, name.clone())),
            }
        }
    }

    fn finish(self) -> Vec<String> {
        let said = |(note, count, first): (String, u64, String)| match count {
            1 => format!("{first}: {note}"),
            count => format!("{first} and {} more: {note}", count - 1),
        };
        self.0.into_iter().map(said).collect()
    }
}

/// Adds `other` to `merged`.
fn add(merged: &mut Profile, other: Profile, index: &mut Index) {
    let ids = index.add_stacks(&mut merged.stacks, other.stacks);
    let moved = |mut location: Location| {
        location.stack = location.stack.map(|stack| ids[stack as usize]);
        location
    };
    for mut site in other.sites {
        site.location = moved(site.location);
        for share in &mut site.stacks {
            share.stack = share.stack.map(|stack| ids[stack as usize]);
        }
        index.add_site(&mut merged.sites, site);
    }
    merged.faults.extend(other.faults.into_iter().map(|mut fault| {
        fault.by = moved(fault.by);
        fault.allocated = fault.allocated.map(moved);
        fault.freed = fault.freed.map(moved);
        fault
    }));
    merged.totals.add(&other.totals);
    merged.peak = sum(merged.peak, other.peak);
    merged.suppressed = sum(merged.suppressed, other.suppressed);
    merged.records += other.records;
    merged.incomplete |= other.incomplete;
    merged.ending = match (merged.ending, other.ending) {
        (Ending::Running, _) | (_, Ending::Running) => Ending::Running,
        (one, another) if one == another => one,
        _ => Ending::Unknown,
    };
}

fn sum(one: Amount, other: Amount) -> Amount {
    Amount {
        bytes: one.bytes.saturating_add(other.bytes),
        blocks: one.blocks.saturating_add(other.blocks),
    }
}

/// Module, address in it, and what else the trace states: the same for the same call in any process.
type CallKey = (Option<PathBuf>, Option<u64>, String);

/// Where the merged profile has what.
#[derive(Default)]
struct Index {
    calls: HashMap<CallKey, SiteId>,
    nodes: HashMap<StackNode, StackId>,
    sites: HashMap<SiteKey, usize>,
    /// Site, stack and whether it is suppressed: the share of the stack in the site.
    shares: HashMap<(usize, Option<StackId>, bool), usize>,
}

impl Index {
    /// Adds stacks and returns what became of each.
    fn add_stacks(&mut self, merged: &mut Stacks, other: Stacks) -> Vec<StackId> {
        merged.are_whole &= other.are_whole;
        let call = |call: Call| {
            // What the trace states has another address in each process.
            let is_known = call.place.module.is_some() && call.place.svma.is_some();
            let stated = if is_known { String::new() } else { call.stated.clone() };
            let key = (call.place.module.clone(), call.place.svma, stated);
            *self.calls.entry(key).or_insert_with(|| {
                merged.calls.push(call);
                (merged.calls.len() - 1) as SiteId
            })
        };
        let calls: Vec<SiteId> = other.calls.into_iter().map(call).collect();
        let mut ids = Vec::with_capacity(other.nodes.len());
        for StackNode { parent, link } in other.nodes {
            let parent = parent.map(|parent| ids[parent as usize]);
            let link = match link {
                Link::Call(id) => Link::Call(calls[id as usize]),
                link => link,
            };
            let node = StackNode { parent, link };
            ids.push(*self.nodes.entry(node).or_insert_with(|| {
                merged.nodes.push(node);
                (merged.nodes.len() - 1) as StackId
            }));
        }
        ids
    }

    fn add_site(&mut self, sites: &mut Vec<Site>, site: Site) {
        let at = *self.sites.entry(site.location.key()).or_insert_with(|| {
            sites.push(Site { location: site.location.clone(), ..Site::default() });
            sites.len() - 1
        });
        let there = &mut sites[at];
        there.allocated = sum(there.allocated, site.allocated);
        there.peak = sum(there.peak, site.peak);
        there.live = sum(there.live, site.live);
        for share in site.stacks {
            let key = (at, share.stack, share.is_suppressed);
            let index = *self.shares.entry(key).or_insert_with(|| {
                let SiteStack { stack, is_suppressed, .. } = share;
                there.stacks.push(SiteStack { stack, is_suppressed, ..SiteStack::default() });
                there.stacks.len() - 1
            });
            let known = &mut there.stacks[index];
            known.allocated = sum(known.allocated, share.allocated);
            known.peak = sum(known.peak, share.peak);
            known.live = sum(known.live, share.live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Frame, Place};
    use crate::replay::Totals;

    /// A process with one block live, allocated by `function`.
    fn profile(pid: u32, function: &str, bytes: u64) -> Profile {
        let frame = Frame { function: Some(function.into()), line: Some(7), ..Frame::default() };
        let place = Place { frames: vec![frame], ..Place::default() };
        let held = Amount { bytes, blocks: 1 };
        let location = Location { place: place.clone(), stack: Some(0), ..Location::default() };
        let share = SiteStack {
            stack: Some(0),
            allocated: held,
            peak: held,
            live: held,
            is_suppressed: false,
        };
        Profile {
            trace: format!("t.{pid}").into(),
            pid: Some(pid),
            totals: Totals {
                allocs: 1,
                live_blocks: 1,
                live_bytes: bytes,
                bytes,
                ..Totals::default()
            },
            peak: held,
            sites: vec![Site {
                location,
                stacks: vec![share],
                allocated: held,
                peak: held,
                live: held,
            }],
            stacks: Stacks {
                calls: vec![Call::new(place, function.into())],
                nodes: vec![StackNode { parent: None, link: Link::Call(0) }],
                are_whole: true,
            },
            notes: vec!["Odd.".into()],
            ..Profile::default()
        }
    }

    #[test]
    fn the_same_place_in_two_processes_is_one_site() {
        let all = [profile(1, "f", 10), profile(2, "g", 40), profile(3, "f", 100)];
        let merged = merge(all.to_vec()).unwrap();
        let sites: Vec<_> = merged
            .sites
            .iter()
            .map(|s| (s.location.frame().unwrap().function.clone().unwrap(), s.live.bytes))
            .collect();
        assert_eq!(sites, [("f".into(), 110), ("g".into(), 40)]);
        assert_eq!((merged.totals.allocs, merged.totals.live_bytes), (3, 150));
        assert_eq!(merged.peak, Amount { bytes: 150, blocks: 3 });
        assert_eq!(merged.parts.iter().map(|p| p.pid).collect::<Vec<_>>(), [3, 2, 1].map(Some));
        let [share] = &merged.sites[0].stacks[..] else { panic!("{:?}", merged.sites[0]) };
        assert_eq!(share.live, Amount { bytes: 110, blocks: 2 });
        let site = merged.stacks.site(share.stack.unwrap()).unwrap();
        assert_eq!(site.frame.unwrap().function.as_deref(), Some("f"));
        assert!(merged.notes.iter().any(|note| note == "t.1 (pid 1) and 2 more: Odd."));
    }

    #[test]
    fn one_profile_stays_as_it_is() {
        let one = profile(1, "f", 10);
        let merged = merge(vec![one.clone()]).unwrap();
        assert_eq!(merged, one);
        assert!(merge(Vec::new()).is_none());
    }
}
