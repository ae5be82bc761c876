//! Who a process is: a PID is used again, but not together with the process's start time.

use core::ffi::CStr;

use crate::global::{Scratch, Text};
use crate::sys;

/// A process for as long as the machine is up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// Process ID.
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot: field 22 of /proc/PID/stat, 0 when that is not to be
    /// had. An exec does not change it.
    pub(crate) ticks: u64,
}

impl Process {
    /// The one that this code runs in.
    pub(crate) fn this() -> Process {
        // Not by its number: in a PID namespace whose /proc is another one's, that is another process.
        Process { pid: sys::getpid(), ticks: start_ticks(c"/proc/self/stat").unwrap_or(0) }
    }

    /// Whether it is still running.
    pub(crate) fn is_alive(&self) -> bool {
        let mut path = Text::<32>::EMPTY;
        path.push(b"/proc/");
        path.push_decimal(self.pid as u64);
        path.push(b"/stat");
        start_ticks(path.as_c_str()) == Some(self.ticks)
    }
}

fn start_ticks(stat: &CStr) -> Option<u64> {
    let mut buffer = Scratch::<512>::new()?;
    let stat = sys::read_file(stat, buffer.space()).ok()?;
    // The name in parentheses may hold anything, blanks and parentheses included.
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let mut fields = stat.get(behind_name..)?.split(|byte| *byte == b' ');
    // A zombie will not write another line, unless it is only the first of several threads that has
    // ended.
    let is_over = matches!(fields.next()?, b"Z" | b"X");
    let threads = crate::config::parse(fields.nth(16)?)?;
    let ticks = crate::config::parse(fields.nth(1)?)?;
    (!is_over || threads > 1).then_some(ticks)
}

/// The writer of a log, from the lines at its beginning.
pub(crate) fn writer_of(log_start: &[u8]) -> Option<Process> {
    if !log_start.starts_with(b"# mtr ") {
        return None;
    }
    let value = |key: &[u8], index: usize| {
        let line = log_start.split(|byte| *byte == b'\n').find(|line| line.starts_with(key))?;
        line.get(key.len()..)?.split(|byte| *byte == b' ').nth(index)
    };
    Some(Process {
        pid: crate::config::parse(value(b"# pid ", 0)?)? as i32,
        ticks: crate::config::parse(value(b"# started ", 1)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let this = Process::this();
        assert!(this.ticks > 0 && this.is_alive());
        assert!(!Process { ticks: this.ticks + 1, ..this }.is_alive());
    }

    #[test]
    fn the_writer_is_named_by_the_first_lines() {
        let log = b"# mtr log 1\n# id 00ff\n# pid 12\n# started 5.000000001 77\n= Start\n";
        assert!(writer_of(log).is_some_and(|writer| writer == Process { pid: 12, ticks: 77 }));
        assert!(writer_of(b"= Start\n@ ./t:[0x1] + 0x1 0x1\n").is_none());
        assert!(writer_of(b"# mtr log 1\n# id 00ff\n# pid 12\n").is_none());
    }
}
