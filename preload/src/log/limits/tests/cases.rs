//! The model with every combination of fates: nothing is wrong with our rules, and each of them is needed.

use super::*;

#[test]
fn what_is_in_the_file_is_what_nobody_has_counted() {
    const FATES: [Fate; 5] = [Fine, Limit(3), NearlyFull, Full(0), Full(1)];
    let of = |index: usize| FATES[index % FATES.len()];
    let all = (0..FATES.len().pow(3)).map(|index| [of(index), of(index / 5), of(index / 25)]);
    let mut most = 0;
    for fates in all.filter(|fates| fates.contains(&Fine)) {
        // A write that fails has not written all.
        let can_be =
            |log: &Log| !fates.iter().any(|fate| matches!(fate, Full(n) if *n >= log.block));
        for log in LOGS.into_iter().filter(can_be) {
            let (complaints, states) = explore(OURS, log, fates);
            assert!(complaints.is_empty(), "{log:?} {fates:?} {complaints:?}");
            most = most.max(states);
        }
    }
    assert!(most > 10_000, "{most}");
}

#[test]
fn every_rule_is_needed() {
    let without = [
        (Rules { announces_before_asking_again: false, ..OURS }, CHUNKS, [Fine, NearlyFull, Fine]),
        (Rules { asks_again: false, ..OURS }, CHUNKS, [Fine, Limit(3), Fine]),
        (Rules { looks_again_at_highest: false, ..OURS }, CHUNKS, [Fine, Full(0), Fine]),
        (Rules { keeps_to_earlier_end: false, ..OURS }, CHUNKS, [NearlyFull, NearlyFull, Fine]),
        (Rules { keeps_to_earlier_end: false, ..OURS }, SHORT, [Full(0), NearlyFull, Fine]),
        (Rules { trims_only_at_highest: false, ..OURS }, CROSSING, [Fine, Full(0), Fine]),
        (Rules { trims_only_whole_parts: false, ..OURS }, PIECES, [Fine, NearlyFull, Fine]),
        (Rules { trims_only_whole_parts: false, ..OURS }, PIECES, [Fine, Fine, Limit(3)]),
        (Rules { trims_only_whole_parts: false, ..OURS }, PIECES, [Fine, Fine, Full(0)]),
    ];
    for (index, (rules, log, fates)) in without.into_iter().enumerate() {
        let complaints = explore(rules, log, fates).0;
        assert!(complaints.contains("it is gone, and not counted"), "{index}");
    }
    let rules = Rules { counts_before_cutting: false, ..OURS };
    let complaints = explore(rules, CROSSING, [Fine, Full(0), Fine]).0;
    assert!(complaints.contains("a kill hides it"));
    let rules = Rules { keeps_front: false, ..OURS };
    let complaints = explore(rules, WITH_FRONT, [Full(0), Fine, Fine]).0;
    assert!(complaints.contains("the first lines are gone"));
    for log in [CHUNKS, SHORT, CROSSING] {
        let rules = Rules { counts_before_giving_up: false, ..OURS };
        let complaints = explore(rules, log, [Fine, Full(0), Fine]).0;
        assert!(complaints.contains("a kill hides it"), "{log:?}");
    }
}
