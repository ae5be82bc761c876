use super::*;
use crate::profile::StackId;

/// A profile whose one site has these stacks, each of functions from the outermost on: 10 bytes in
/// a block each. A function's line is its place in the alphabet.
fn with_stacks(stacks: &[&str]) -> Profile {
    let call = |function: char| {
        let location = at(&function.to_string(), "/home/ann/a.c", function as u32 - 'a' as u32 + 1);
        Call::new(location.place, String::new())
    };
    let calls = ('a'..='z').map(call).collect();
    let mut profile = three_leaks();
    let (mut nodes, mut shares) = (Vec::new(), Vec::new());
    for functions in stacks {
        let mut parent = None;
        for function in functions.bytes() {
            nodes.push(StackNode { parent, link: Link::Call((function - b'a').into()) });
            parent = Some(nodes.len() as StackId - 1);
        }
        let live = Amount { bytes: 10, blocks: 1 };
        shares.push(SiteStack { stack: parent, live, ..SiteStack::default() });
    }
    let live = Amount { bytes: 10 * stacks.len() as u64, blocks: stacks.len() as u64 };
    profile.sites = vec![Site { live, stacks: shares, ..Site::default() }];
    profile.stacks = Stacks { calls, nodes, are_whole: true };
    profile
}

/// The functions and remarks of the list, one word or remark each.
fn shown(stacks: &[&str], group_by: GroupBy) -> String {
    let options = Options { group_by, ..in_home() };
    let text = report(&with_stacks(stacks), &options);
    let (_, list) = text.split_once(":\n\n  ").unwrap();
    let short = |line: &str| {
        let line = line.trim();
        let name = line.strip_prefix("called from ").unwrap_or(line);
        name.split_once(" at a.c").map_or(line, |(name, _)| name).to_owned()
    };
    list.lines().map(short).collect::<Vec<_>>().join(" | ")
}

#[track_caller]
fn shows(stack: &str, expected: &str) {
    assert_eq!(shown(&[stack], GroupBy::Site), format!("10 bytes in 1 block | {expected}"));
}

#[test]
fn a_function_that_calls_itself_is_shown_once_and_what_called_it_too() {
    shows("mffffffg", "g | f | (recursion: 5 more frames) | m");
    shows("mfff", "f | (recursion: 2 more frames) | m");
    let deep = ["m", &"f".repeat(2_000), "g"].concat();
    shows(&deep, "g | f | (recursion: 1,999 more frames) | m");
}

#[test]
fn functions_that_call_each_other_are_shown_once() {
    shows("mabcabcabcabcg", "g | c | b | a | (recursion: these 3 frames 3 more times) | m");
    // It may end in the middle of a turn.
    shows("mbabababg", "g | b | a | (recursion: these 2 frames 2 more times) | b | m");
}

#[test]
fn what_comes_twice_only_is_shown_twice() {
    shows("mffg", "g | f | f | m");
    shows("mababg", "g | b | a | b | a | (--depth 20 shows more of the stacks)");
}

#[test]
fn a_recursion_that_goes_on_behind_the_depth_is_said_to_do_so() {
    let again = "(recursion: 3 more frames)";
    shows(
        "mpqrffffst",
        &format!("t | s | f | {again} | r | q | (--depth 20 shows more of the stacks)"),
    );
    shows(
        "mffffqrst",
        &format!("t | s | r | q | f | {again} | (--depth 20 shows more of the stacks)"),
    );
}

#[test]
fn stacks_that_differ_in_the_length_of_a_recursion_are_one() {
    let stacks = ["mfffg", "mffffffg", "mffffg"];
    let expected = "30 bytes in 3 blocks | g | f | (recursion: up to 5 more frames) | m";
    assert_eq!(shown(&stacks, GroupBy::Site), expected);
    assert_eq!(shown(&stacks, GroupBy::Stack), expected);
    let same = ["mfffg", "mfffg"];
    let expected = "20 bytes in 2 blocks | g | f | (recursion: 2 more frames) | m";
    assert_eq!(shown(&same, GroupBy::Stack), expected);
}

#[test]
fn stacks_of_several_recursions_are_one_only_if_all_are_as_long() {
    let one = "10 bytes in 1 block | g | f | (recursion: 2 more frames) | e | (recursion: 3 more frames) | m";
    let other = "10 bytes in 1 block | g | f | (recursion: 3 more frames) | e | (recursion: 2 more frames) | m";
    let expected = format!("{one} | {other}");
    assert_eq!(shown(&["meeeefffg", "meeeffffg"], GroupBy::Stack), expected);
}
