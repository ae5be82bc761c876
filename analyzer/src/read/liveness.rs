//! Whether the process that a log speaks of is still running.

use std::fs;

/// Whether the process `pid` that was started at `ticks` (field 22 of /proc/PID/stat) runs. One
/// that has ended and is only waited for does not.
pub fn is_running(pid: u32, ticks: u64) -> bool {
    fs::read(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| state_and_start(&stat))
        .is_some_and(|(state, start)| !matches!(state, b'Z' | b'X') && start == ticks)
}

/// Start time of a process, field 22 of its /proc/PID/stat.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    Some(state_and_start(&stat)?.1)
}

/// Fields 3 and 22. The name in field 2 may hold blanks and parentheses, so count from its end.
fn state_and_start(stat: &[u8]) -> Option<(u8, u64)> {
    let close = stat.iter().rposition(|b| *b == b')')?;
    let mut fields = stat.get(close + 2..)?.split(|b| *b == b' ');
    let state = *fields.next()?.first()?;
    let start = std::str::from_utf8(fields.nth(18)?).ok()?.trim().parse().ok()?;
    Some((state, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_running_and_a_later_one_of_its_pid_is_not() {
        let pid = std::process::id();
        let ticks = start_ticks(pid).unwrap();
        assert!(is_running(pid, ticks));
        assert!(!is_running(pid, ticks + 1));
    }

    #[test]
    fn a_name_may_hold_blanks_and_parentheses() {
        let stat = b"12 (a) b) R 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(state_and_start(stat), Some((b'R', 4711)));
    }
}
