//! What the list of allocations has entries for, and in which order.

use hashbrown::HashMap;

use super::place::Counts;
use super::{GroupBy, Options, Sort, place};
use crate::profile::{Amount, Profile, Site, SiteStack, StackId};

/// An entry of the list of allocations.
pub(super) struct Entry<'a> {
    pub(super) amount: Amount,
    pub(super) site: &'a Site,
    /// The call stack that is shown, and how.
    pub(super) stack: (Option<StackId>, Counts),
    /// Others that lead to the site, and what they hold.
    pub(super) others: (u64, Amount),
    /// What it holds is no finding.
    pub(super) is_suppressed: bool,
}

/// What is listed, largest first.
pub(super) fn entries<'a>(profile: &'a Profile, options: &Options) -> Vec<Entry<'a>> {
    let rank = |Amount { bytes, blocks }: Amount| match options.sort {
        Sort::Calls => (blocks, bytes),
        _ => (bytes, blocks),
    };
    let by_stack = options.group_by == GroupBy::Stack && profile.stacks.are_whole;
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for site in &profile.sites {
        for Part { amount, stacks, is_suppressed } in parts(site, options) {
            let entry = Entry {
                amount,
                site,
                stack: (site.location.stack, Counts::Exact),
                others: Default::default(),
                is_suppressed,
            };
            let stacks = alike(site, stacks, profile, options);
            if by_stack {
                let of_stack = |Share { amount, stack, counts }| Entry {
                    amount,
                    stack: (stack, counts),
                    ..entry
                };
                entries.extend(stacks.into_iter().map(of_stack));
                continue;
            }
            let count = stacks.len() as u64;
            // The first of several equal ones.
            let larger = |a: Share, b: Share| if rank(b.amount) > rank(a.amount) { b } else { a };
            let (largest, stack) = match stacks.into_iter().reduce(larger) {
                Some(share) => (share.amount, (share.stack, share.counts)),
                None => (amount, entry.stack),
            };
            let rest = difference(amount, largest);
            entries.push(Entry { stack, others: (count.saturating_sub(1), rest), ..entry });
        }
    }
    entries.retain(|entry| entry.amount.blocks > 0);
    entries.sort_by_key(|entry| std::cmp::Reverse(rank(entry.amount)));
    entries
}

/// Stacks that look the same in the report, put together: they differ in what is not shown, such as
/// the address of a call on the same line, or in how deep a recursion was.
fn alike(site: &Site, stacks: Vec<Share>, profile: &Profile, options: &Options) -> Vec<Share> {
    if stacks.len() < 2 {
        return stacks;
    }
    let looks = |stack, counts| {
        let lead = place::Lead { first: "", others: "" };
        let mut text = Vec::new();
        let shown = (stack, counts);
        let written =
            place::write(&site.location, shown, &profile.stacks, lead, options, &mut text);
        debug_assert!(written.is_ok(), "memory takes everything");
        (text, written.unwrap_or_default())
    };
    let mut index: HashMap<Vec<u8>, usize> = HashMap::new();
    // With how many times a recursion goes round.
    let mut merged: Vec<(Share, u64)> = Vec::new();
    for share in stacks {
        let (mut text, written) = looks(share.stack, Counts::Hidden);
        // Of several recursions in one stack, one may be longer and another shorter.
        if written.recursions > 1 {
            text = looks(share.stack, Counts::Exact).0;
        }
        let at = *index.entry(text).or_insert(merged.len());
        let Some((sum, times)) = merged.get_mut(at) else {
            merged.push((share, written.times));
            continue;
        };
        sum.amount.bytes = sum.amount.bytes.saturating_add(share.amount.bytes);
        sum.amount.blocks += share.amount.blocks;
        if written.times != *times {
            sum.counts = Counts::UpTo;
        }
        if written.times > *times {
            (sum.stack, *times) = (share.stack, written.times);
        }
    }
    merged.into_iter().map(|(share, _)| share).collect()
}

/// What a stack holds.
#[derive(Debug, Clone, Copy)]
struct Share {
    amount: Amount,
    stack: Option<StackId>,
    counts: Counts,
}

/// What a site holds, with the stacks that lead to it.
struct Part {
    amount: Amount,
    stacks: Vec<Share>,
    is_suppressed: bool,
}

/// What is to be shown of a site: of what is live, the suppressed part on request and apart.
fn parts(site: &Site, options: &Options) -> Vec<Part> {
    let pick = |allocated: Amount, peak: Amount, live: Amount| match options.sort {
        Sort::Live => live,
        Sort::Peak => peak,
        Sort::Bytes | Sort::Calls => allocated,
    };
    let of_stack = |s: &SiteStack| Share {
        amount: pick(s.allocated, s.peak, s.live),
        stack: s.stack,
        counts: Counts::Exact,
    };
    let stacks = |is_shown: &dyn Fn(&&SiteStack) -> bool| -> Vec<_> {
        let shown = site.stacks.iter().filter(is_shown).map(of_stack);
        shown.filter(|share| share.amount.blocks > 0).collect()
    };
    let all = pick(site.allocated, site.peak, site.live);
    if options.sort != Sort::Live {
        return vec![Part { amount: all, stacks: stacks(&|_| true), is_suppressed: false }];
    }
    let suppressed = stacks(&|stack| stack.is_suppressed);
    let held = suppressed.iter().fold(Amount::default(), |sum, Share { amount, .. }| Amount {
        bytes: sum.bytes.saturating_add(amount.bytes),
        blocks: sum.blocks + amount.blocks,
    });
    let mut parts = vec![Part {
        amount: difference(all, held),
        stacks: stacks(&|stack| !stack.is_suppressed),
        is_suppressed: false,
    }];
    if options.shows_suppressed {
        parts.push(Part { amount: held, stacks: suppressed, is_suppressed: true });
    }
    parts
}

fn difference(one: Amount, other: Amount) -> Amount {
    Amount {
        bytes: one.bytes.saturating_sub(other.bytes),
        blocks: one.blocks.saturating_sub(other.blocks),
    }
}
