//! Whether the process that a log speaks of is still running.

use std::fs;

/// Whether the process `pid` that was started at `ticks` (field 22 of /proc/PID/stat) runs. One
/// that has ended and is only waited for does not; one whose first thread has ended does.
pub fn is_running(pid: u32, ticks: u64) -> bool {
    fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| Stat::parse(&stat)).is_some_and(
        |stat| {
            let is_over = matches!(stat.state, b'Z' | b'X') && stat.threads <= 1;
            !is_over && stat.start == ticks
        },
    )
}

/// Start time of a process, field 22 of its /proc/PID/stat.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    Some(Stat::parse(&stat)?.start)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Field 3.
    state: u8,
    /// Field 20.
    threads: u64,
    /// Field 22.
    start: u64,
}

impl Stat {
    /// The name in field 2 may hold blanks and parentheses, so fields are counted from its end.
    fn parse(stat: &[u8]) -> Option<Stat> {
        let close = stat.iter().rposition(|b| *b == b')')?;
        let fields: Vec<&[u8]> = stat.get(close + 2..)?.split(|b| *b == b' ').collect();
        let number =
            |field: usize| std::str::from_utf8(fields.get(field - 3)?).ok()?.trim().parse().ok();
        Some(Stat { state: *fields.first()?.first()?, threads: number(20)?, start: number(22)? })
    }
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
        assert_eq!(Stat::parse(stat), Some(Stat { state: b'R', threads: 17, start: 4711 }));
    }
}
