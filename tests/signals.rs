//! Signals that ask a program to end: each reaches the program once, whether it was sent to mtr-run,
//! to the whole process group, or to what else belongs to mtr-run.

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use support::*;

/// mtr-run at work on counts_signals, in a process group of its own.
struct Job {
    _folder: Folder,
    mtr_run: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Job {
    fn start(name: &str, arguments: &[&str]) -> Job {
        let folder = Folder::new(name);
        let program = compile(&folder, "counts_signals", &program("counts_signals.c"), &[]);
        let mut command = mtr_run(folder.path());
        command.arg("--report-file=report").arg(program).args(arguments).process_group(0);
        let mut mtr_run = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (mtr_run.stdin.take().unwrap(), mtr_run.stdout.take().unwrap());
        let mut job = Job { _folder: folder, mtr_run, stdin, stdout };
        assert_eq!(job.letter(), '.');
        job.is_waiting();
        job
    }

    fn pid(&self) -> i32 {
        self.mtr_run.id() as i32
    }

    /// The next letter of the program.
    fn letter(&mut self) -> char {
        let mut letter = [0];
        self.stdout.read_exact(&mut letter).expect("a letter of the program");
        letter[0].into()
    }

    /// Comes back when mtr-run is through with all that it was sent: has nothing pending any more, and
    /// waits. The second alone would not do: until a processor turns to it, a process that a signal
    /// has waked is shown in the system call that it slept in.
    fn is_waiting(&self) {
        while status(self.pid(), "ShdPnd:").contains(|digit| digit != '0') {
            std::thread::yield_now();
        }
        let path = format!("/proc/{}/syscall", self.pid());
        let waits = format!("{} ", libc::SYS_rt_sigtimedwait);
        while !fs::read_to_string(&path).unwrap().starts_with(&waits) {
            std::thread::yield_now();
        }
    }

    /// The witness, once it has taken its name.
    fn witness(&self) -> i32 {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        loop {
            let children = fs::read_to_string(&path).unwrap();
            let mut pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
            if let Some(pid) = pids.find(|pid| cmdline(*pid) == "signal-witness") {
                return pid;
            }
            std::thread::yield_now();
        }
    }

    /// Ends the program and returns what it has written since.
    fn end(self) -> String {
        let Job { _folder, mut mtr_run, stdin, mut stdout } = self;
        drop(stdin);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert!(mtr_run.wait().unwrap().success());
        rest
    }
}

/// A value of /proc/PID/status.
fn status(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    value.unwrap_or_default().trim().to_owned()
}

fn cmdline(pid: i32) -> String {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.trim_end_matches('\0').to_owned()
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: no preconditions.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal} to {pid}");
}

const LETTERS: [(i32, char); 4] =
    [(libc::SIGHUP, 'h'), (libc::SIGINT, 'i'), (libc::SIGQUIT, 'q'), (libc::SIGTERM, 't')];

#[test]
fn a_signal_for_the_whole_group_reaches_the_program_once() {
    let mut job = Job::start("signals-group", &[]);
    for (signal, letter) in LETTERS.repeat(100) {
        for _ in 0..10 {
            kill(-job.pid(), signal);
            assert_eq!(job.letter(), letter, "one signal too many");
        }
        job.is_waiting();
    }
    assert_eq!(job.end(), "");
}

#[test]
fn a_signal_for_mtr_run_alone_reaches_the_program_each_time() {
    let mut job = Job::start("signals-alone", &[]);
    for (signal, letter) in LETTERS {
        for _ in 0..1000 {
            kill(job.pid(), signal);
            assert_eq!(job.letter(), letter);
        }
    }
    job.is_waiting();
    assert_eq!(job.end(), "");
}

#[test]
fn signals_for_the_group_and_for_mtr_run_are_told_apart() {
    let mut job = Job::start("signals-both", &[]);
    for (signal, letter) in LETTERS {
        for round in 0..300 {
            let to = if round % 3 == 0 { job.pid() } else { -job.pid() };
            kill(to, signal);
            assert_eq!(job.letter(), letter);
            job.is_waiting();
        }
    }
    assert_eq!(job.end(), "");
}

#[test]
fn a_program_that_has_left_the_group_gets_its_signals() {
    let mut job = Job::start("signals-apart", &["apart"]);
    for (signal, letter) in LETTERS {
        kill(-job.pid(), signal);
        assert_eq!(job.letter(), letter);
        job.is_waiting();
    }
    assert_eq!(job.end(), "");
}

#[test]
fn a_signal_that_only_the_witness_got_swallows_no_other() {
    let mut job = Job::start("signals-stray", &[]);
    let witness = job.witness();
    kill(witness, libc::SIGTERM);
    while status(witness, "ShdPnd:").contains(|digit| digit != '0') {
        std::thread::yield_now();
    }
    job.is_waiting();
    kill(job.pid(), libc::SIGTERM);
    assert_eq!(job.letter(), 't');
    assert_eq!(job.end(), "");
}

#[test]
fn signals_arrive_without_the_witness_too() {
    let mut job = Job::start("signals-unwitnessed", &[]);
    kill(job.witness(), libc::SIGKILL);
    for (signal, letter) in LETTERS {
        kill(job.pid(), signal);
        assert_eq!(job.letter(), letter);
    }
    job.is_waiting();
    assert_eq!(job.end(), "");
}

#[test]
fn a_job_that_was_stopped_goes_on_as_before() {
    let mut job = Job::start("signals-stopped", &[]);
    let witness = job.witness();
    kill(-job.pid(), libc::SIGTSTP);
    while !status(job.pid(), "State:").starts_with('T') {
        std::thread::yield_now();
    }
    assert!(!status(witness, "State:").starts_with('T'), "{}", status(witness, "State:"));
    kill(-job.pid(), libc::SIGCONT);
    job.is_waiting();
    for to in [-job.pid(), job.pid(), -job.pid()] {
        kill(to, libc::SIGTERM);
        assert_eq!(job.letter(), 't');
        job.is_waiting();
    }
    assert_eq!(job.end(), "");
}

#[test]
fn the_witness_holds_nothing_has_its_own_name_and_ends_with_mtr_run() {
    let mut job = Job::start("signals-witness", &[]);
    let witness = job.witness();
    // Asked once, it has done what it does before.
    kill(job.pid(), libc::SIGTERM);
    assert_eq!(job.letter(), 't');
    let held = fs::read_dir(format!("/proc/{witness}/fd")).unwrap().count();
    assert_eq!(held, 1, "descriptors of the witness");
    assert_eq!(status(witness, "Name:"), "signal-witness");
    kill(job.pid(), libc::SIGKILL);
    job.mtr_run.wait().unwrap();
    // Nobody may be there to wait for it.
    while !["", "Z"].contains(&status(witness, "State:").get(..1).unwrap_or_default()) {
        std::thread::yield_now();
    }
}
