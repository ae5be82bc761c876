//! Programs of the machine that serve as independent checks.

use super::clean_command;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Says that a test, or a part of one, did not run.
pub(crate) fn skip(name: &str, why: &str) {
    // Past the capture of the test harness: a skipped test must be seen.
    let _ = writeln!(std::io::stderr(), "skipped: {name} ({why})");
}

/// The first executable file called `name` in `PATH`.
pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| {
        file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    })
}

/// [`find_tool`], or a line that says that `test` skips for want of it.
pub(crate) fn need(name: &str, test: &str) -> Option<PathBuf> {
    let found = find_tool(name);
    if found.is_none() {
        skip(test, &format!("{name} is not installed"));
    }
    found
}

/// The first ELF file called `name` in `PATH`: the interpreter itself where `name` is a script that looks for one (pyenv and its like).
pub(crate) fn real_elf(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find_map(|file| {
        let file = file.canonicalize().ok()?;
        std::fs::read(&file).ok()?.starts_with(b"\x7fELF").then_some(file)
    })
}

/// [`real_elf`], or a line that says that `test` skips for want of it.
pub(crate) fn need_elf(name: &str, test: &str) -> Option<PathBuf> {
    let found = real_elf(name);
    if found.is_none() {
        skip(test, &format!("{name} is not installed"));
    }
    found
}

/// A place in the source as addr2line tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Location {
    /// Innermost function, inlined ones included.
    pub(crate) function: String,
    /// Last component of the file's name.
    pub(crate) file: String,
    pub(crate) line: u32,
}

/// What `addr2line` says of addresses (SVMAs) of `module`; `None` for those without debug
/// information.
pub(crate) fn addr2line(module: &Path, addresses: &[u64]) -> Vec<Option<Location>> {
    let output = clean_command("addr2line")
        .arg("-C")
        .arg("-f")
        .arg("-e")
        .arg(module)
        .args(addresses.iter().map(|a| format!("{a:#x}")))
        .output()
        .expect("addr2line");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 * addresses.len(), "addr2line -e {module:?} said:\n{text}");
    lines
        .chunks(2)
        .map(|pair| {
            let place = pair[1].split(" (discriminator").next().unwrap();
            let (file, line) = place.rsplit_once(':')?;
            let line = line.parse().ok().filter(|line| *line > 0)?;
            let file = file.rsplit('/').next().unwrap().to_owned();
            Some(Location { function: pair[0].to_owned(), file, line })
        })
        .collect()
}

/// What glibc's `mtrace` script says of a log.
#[derive(Debug)]
pub(crate) struct Script {
    /// Address and size of the blocks that are not freed, by address.
    pub(crate) blocks: Vec<(u64, u64)>,
    /// Its other lines.
    pub(crate) others: Vec<String>,
}

/// Runs glibc's `mtrace` script, where it is installed, in its one-argument form.
pub(crate) fn mtrace_script(log: &Path) -> Option<Script> {
    let script = find_tool("mtrace")?;
    let output = clean_command(script).arg(log).output().expect("mtrace");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "mtrace {log:?}: {:?}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let (mut blocks, mut others) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [address, size, "at", ..] => blocks.push((hex(address), hex(size))),
            _ => others.push(line.to_owned()),
        }
    }
    blocks.sort_unstable();
    Some(Script { blocks, others })
}

fn hex(word: &str) -> u64 {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    u64::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{word}: {e}"))
}
