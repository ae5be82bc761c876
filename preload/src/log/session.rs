//! The run that a process belongs to: the first program that is traced, whatever that forks and
//! executes, and what those do, daemons included. Traces of one run never replace each other.
//!
//! A run is a number that begins with the time, so the higher one of two began later. The children
//! of fork have it in memory, programs find it in the environment (`MTR_SESSION`): mtr-run sets it,
//! else the first program does ([`crate::config::name_session`]). A program that gets libmtr.so but
//! not the variable begins a run.

use super::process::Process;
use crate::{config, sys};

const NANOSECONDS: u64 = 1_000_000_000;
/// Bits that tell apart runs that begin at the same moment.
const DRAWN: u64 = 0xffff;

/// Number of a run that begins now: nanoseconds since 1970, but for the lowest bits.
pub(crate) fn new() -> u64 {
    let (seconds, nanoseconds) = sys::wall_clock();
    let now = seconds.wrapping_mul(NANOSECONDS).wrapping_add(nanoseconds);
    now & !DRAWN | super::new_id(Process::this()) & DRAWN
}

/// A number as `MTR_SESSION` and the line `# session` state it.
pub(crate) fn parse(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// The run of a log, from the lines at its beginning.
pub(super) fn of(log_start: &[u8]) -> Option<u64> {
    let mut lines = log_start.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"# session ")).and_then(parse)
}

/// Whether this process may replace a log of the run `of_log` when nobody writes it any more.
///
/// For whoever begins a run, each other run is an earlier one, even where the clock says otherwise.
pub(super) fn may_replace(of_log: Option<u64>, is_forked: bool) -> bool {
    let config = config::get();
    is_earlier(of_log, config.session, config.begins_session && !is_forked)
}

fn is_earlier(run: Option<u64>, own: u64, begins: bool) -> bool {
    // Logs of older versions state no run.
    run.is_none_or(|run| run < own || begins && run != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_runs_has_the_higher_number() {
        let first = new();
        let is_later = |session: u64| session & !DRAWN > first & !DRAWN;
        while !is_later(new()) {}
        assert!(first > 0x1000_0000_0000_0000, "it begins with the time");
    }

    #[test]
    fn the_first_lines_name_the_run() {
        let log = b"# mtr log 1\n# id 00ff\n# session 00000000000000aa\n# pid 12\n";
        assert_eq!(of(log), Some(0xaa));
        assert_eq!(of(b"# mtr log 1\n# id 00ff\n# pid 12\n"), None);
        assert_eq!(of(b"# mtr log 1\n# session none\n"), None);
    }

    #[test]
    fn a_run_is_earlier_by_its_number_and_each_other_one_is_for_the_first_program() {
        for begins in [false, true] {
            assert!(is_earlier(None, 5, begins));
            assert!(is_earlier(Some(4), 5, begins));
            assert!(!is_earlier(Some(5), 5, begins));
            assert_eq!(is_earlier(Some(6), 5, begins), begins);
        }
    }
}
