//! Which file will run, and whether it can be traced.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::sanitizer;

/// Why a program is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Exit status: 125 cannot be traced, 126 cannot be executed, 127 not found.
    pub status: u8,
    /// One line.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

const UNTRACEABLE: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Interpreters of interpreters; the kernel allows as many.
const DEEPEST: u32 = 4;

/// Finds the file that `name` stands for, as a shell does, and checks that it can be traced.
pub fn find(name: &OsStr) -> Result<PathBuf, Refusal> {
    let path = look_up(name)?;
    check(&path, DEEPEST)?;
    Ok(path)
}

fn look_up(name: &OsStr) -> Result<PathBuf, Refusal> {
    let refusal = |status, message: &str| {
        Err(Refusal { status, message: format!("{}: {message}", name.display()) })
    };
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refusal(NOT_EXECUTABLE, "permission denied")
            }
            Err(_) => refusal(NOT_FOUND, "no such file"),
            Ok(found) if found.is_dir() => refusal(NOT_EXECUTABLE, "is a folder"),
            Ok(_) if !is_executable(&path) => refusal(NOT_EXECUTABLE, "is not executable"),
            Ok(_) => Ok(path),
        };
    }
    let mut there = false;
    let folders = env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    for folder in env::split_paths(&folders) {
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        let path = folder.join(name);
        if !fs::metadata(&path).is_ok_and(|found| found.is_file()) {
            continue;
        }
        if is_executable(&path) {
            return Ok(path);
        }
        there = true;
    }
    match there {
        true => refusal(NOT_EXECUTABLE, "is not executable"),
        false => refusal(NOT_FOUND, "command not found"),
    }
}

fn is_executable(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: `path` ends with a NUL and lives through the call.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) == 0 }
}

fn check(path: &Path, depth: u32) -> Result<(), Refusal> {
    let untraceable = |reason: &str| {
        Err(Refusal {
            status: UNTRACEABLE,
            message: format!("{} cannot be traced: {reason}", path.display()),
        })
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return untraceable("no permission to read it");
        }
        Err(error) => return untraceable(&error.to_string()),
    };
    if let Some(reason) = gains_privileges(&file, path) {
        return untraceable(reason);
    }
    let mut front = Vec::new();
    if let Err(error) = (&file).take(4096).read_to_end(&mut front) {
        return untraceable(&error.to_string());
    }
    if front.starts_with(b"\x7fELF") {
        return match elf(&file, &front) {
            Ok(()) => match sanitizer::of(&file) {
                Some(name) => {
                    untraceable(&format!("it was built with {name}, which has its own malloc"))
                }
                None => Ok(()),
            },
            Err(reason) => untraceable(&reason),
        };
    }
    // A file without a first line of its own is run by the shell.
    let interpreter = if front.starts_with(b"#!") {
        match interpreter(&front) {
            Some(interpreter) => interpreter,
            None => return untraceable("its first line names no interpreter"),
        }
    } else {
        PathBuf::from("/bin/sh")
    };
    if depth == 0 {
        return untraceable("its interpreters are scripts of scripts");
    }
    match look_up(interpreter.as_os_str()) {
        Err(missing) => untraceable(&format!("its interpreter {missing}")),
        Ok(found) => check(&found, depth - 1).map_err(|refusal| Refusal {
            message: format!("{}: its interpreter {refusal}", path.display()),
            ..refusal
        }),
    }
}

/// The loader ignores LD_PRELOAD in a program that has more rights than who started it.
fn gains_privileges(file: &File, path: &Path) -> Option<&'static str> {
    let found = file.metadata().ok()?;
    // SAFETY: neither has preconditions, and neither can fail.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    if found.mode() & libc::S_ISUID != 0 && found.uid() != user {
        return Some("it is setuid");
    }
    let setgid = libc::S_ISGID | libc::S_IXGRP;
    if found.mode() & setgid == setgid && found.gid() != group {
        return Some("it is setgid");
    }
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let name = c"security.capability";
    // SAFETY: both strings end with a NUL; with size 0 nothing is stored.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    (size > 0 && user != 0).then_some("it has file capabilities")
}

/// What runs a script, `env` looked through.
fn interpreter(front: &[u8]) -> Option<PathBuf> {
    let line = front[2..].split(|b| *b == b'\n').next()?;
    let mut words = line.split(|b| matches!(b, b' ' | b'\t' | b'\r')).filter(|w| !w.is_empty());
    let first = Path::new(OsStr::from_bytes(words.next()?));
    if first.file_name() != Some(OsStr::new("env")) {
        return Some(first.into());
    }
    let program = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
    Some(PathBuf::from(OsStr::from_bytes(program)))
}

const PT_INTERP: u32 = 3;
const EM_X86_64: u16 = 62;

/// Checks an ELF file; the error is the reason.
fn elf(file: &File, front: &[u8]) -> Result<(), String> {
    const DAMAGED: &str = "its ELF header is damaged";
    let half = |at: usize| Some(u16::from_le_bytes(front.get(at..at + 2)?.try_into().ok()?));
    let long =
        |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    match front.get(4) {
        Some(2) => {}
        Some(1) => return Err("it is a 32-bit program".into()),
        _ => return Err(DAMAGED.into()),
    }
    if half(18) != Some(EM_X86_64) {
        return Err("it is not a program for x86-64".into());
    }
    let (offset, size, count) =
        long(front, 32).zip(half(54)).zip(half(56)).map(|((a, b), c)| (a, b, c)).ok_or(DAMAGED)?;
    let mut headers = vec![0; usize::from(size) * usize::from(count)];
    file.read_exact_at(&mut headers, offset).map_err(|_| DAMAGED)?;
    let header = headers
        .chunks_exact(usize::from(size).max(56))
        .find(|header| header[..4] == PT_INTERP.to_le_bytes());
    let Some(header) = header else {
        return Err("it is linked statically, so nothing can be preloaded into it".into());
    };
    let (at, length) = long(header, 8).zip(long(header, 32)).ok_or(DAMAGED)?;
    let mut name = vec![0; length.min(4096) as usize];
    file.read_exact_at(&mut name, at).map_err(|_| DAMAGED)?;
    let name = name.split(|b| *b == 0).next().unwrap_or_default();
    let loader = Path::new(OsStr::from_bytes(name));
    if !loader.exists() {
        return Err(format!("its ELF interpreter {} is missing", loader.display()));
    }
    if loader.to_string_lossy().contains("ld-musl") {
        return Err("it uses musl; libmtr.so needs glibc".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (folder, path)
    }

    fn refused(path: &Path) -> Refusal {
        find(path.as_os_str()).unwrap_err()
    }

    #[test]
    fn programs_and_scripts_that_can_be_traced_are_found() {
        assert!(find(OsStr::new("ls")).is_ok());
        for line in ["#!/bin/sh\n", "#! /usr/bin/env sh\n", "#!/usr/bin/env -S A=b sh -e\n", "ls\n"]
        {
            let (_folder, path) = script(line);
            assert_eq!(find(path.as_os_str()), Ok(path.clone()), "{line}");
        }
    }

    #[test]
    fn what_a_shell_could_not_run_has_its_status() {
        assert_eq!(find(OsStr::new("no-such-program")).unwrap_err().status, 127);
        assert_eq!(find(OsStr::new("./no-such-program")).unwrap_err().status, 127);
        assert_eq!(find(OsStr::new("/etc/passwd")).unwrap_err().status, 126);
        assert_eq!(find(OsStr::new("/")).unwrap_err().status, 126);
    }

    #[test]
    fn a_script_without_its_interpreter_is_refused() {
        let (_folder, path) = script("#!/no/such/shell\n");
        assert_eq!(refused(&path).status, 125);
        assert!(refused(&path).message.contains("/no/such/shell"));
        let (_folder, path) = script("#!/usr/bin/env no-such-program\n");
        assert_eq!(refused(&path).status, 125);
    }

    #[test]
    fn an_elf_file_that_cannot_be_preloaded_into_is_refused_with_the_reason() {
        let own = fs::read("/proc/self/exe").unwrap();
        let changed = |at: usize, bytes: &[u8]| {
            let mut elf = own.clone();
            elf[at..at + bytes.len()].copy_from_slice(bytes);
            let (folder, path) = script("");
            fs::write(&path, elf).unwrap();
            let message = refused(&path).message;
            drop(folder);
            message
        };
        assert!(changed(4, &[1]).ends_with("it is a 32-bit program"));
        assert!(changed(18, &[183]).ends_with("not a program for x86-64"));
        assert!(changed(56, &[0, 0]).contains("linked statically"));
        assert!(changed(32, &[0xff; 8]).ends_with("damaged"));
    }
}
