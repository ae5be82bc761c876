//! Programs that may not do what recording needs, and those that may do more than their user.

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::*;

/// state.c, where another user can run it.
fn state(folder: &Folder) -> Option<PathBuf> {
    need_ordinary_user("a read-only folder")
        .then(|| compile(folder, "state", &program("state.c"), &[]))
}

/// Runs it in a folder where its user can make no file.
fn run_closed(command: &mut Command, folder: &Folder) -> Output {
    by_ordinary_user(command);
    let set = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    set(0o555);
    let output = command.current_dir(folder.path()).output().unwrap();
    set(0o755);
    output
}

/// `output` is that of the program, which says once that it runs untraced.
#[track_caller]
fn runs_untraced(output: &Output, plain: &Output, reason: &str) {
    assert_eq!(output.status, plain.status, "{output:?}");
    assert_eq!(output.stdout, plain.stdout, "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("mtr: cannot create "), "{stderr}");
    assert!(stderr.contains(&format!("{reason}; the program runs untraced")), "{stderr}");
}

fn traced(program: impl AsRef<Path>, folder: &Folder) -> Command {
    let mut command = clean_command(program.as_ref());
    command.env("LD_PRELOAD", library()).env("MALLOC_TRACE", folder.join("trace.log"));
    command
}

#[test]
fn where_no_log_can_be_made_the_program_says_so_once_and_runs() {
    let folder = Folder::new("rights-closed");
    let Some(program) = state(&folder) else { return };
    let plain = run_closed(&mut clean_command(&program), &folder);
    let output = run_closed(&mut traced(&program, &folder), &folder);
    runs_untraced(&output, &plain, "Permission denied");
    // What it starts says nothing more.
    let twice = format!("{0}; {0}; :", program.display());
    let mut shell = clean_command("/bin/sh");
    let plain = run_closed(shell.args(["-c", &twice]), &folder);
    let output = run_closed(traced("/bin/sh", &folder).args(["-c", &twice]), &folder);
    runs_untraced(&output, &plain, "Permission denied");
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [program]);
}

#[test]
fn mtr_run_that_gets_no_trace_fails_but_not_the_program() {
    let folder = Folder::new("rights-run");
    let cache = Folder::new("rights-cache");
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let Some(program) = state(&folder) else { return };
    let mut command = mtr_run(folder.path());
    let output = run_closed(command.env("XDG_CACHE_HOME", cache.path()).arg(program), &folder);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(output.stdout.starts_with(b"ignored:"), "it has run: {output:?}");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].ends_with("Permission denied; the program runs untraced"), "{stderr}");
    assert!(lines[1].contains(" wrote no trace to "), "{stderr}");
}

#[test]
fn a_read_only_file_system_is_named() {
    let folder = Folder::new("rights-read-only");
    let program = compile(&folder, "state", &program("state.c"), &[]);
    let disk = folder.join("disk");
    fs::create_dir(&disk).unwrap();
    let in_namespace = |set: &str| {
        let script = format!(
            "mount -t tmpfs -o ro none {0} || exit 77; cd {0} && {set} exec {1}",
            disk.display(),
            program.display()
        );
        clean_command("unshare").args(["-Urm", "sh", "-c", &script]).output()
    };
    let plain = match in_namespace("") {
        Ok(plain) if plain.status.success() => plain,
        _ => return skip("a read-only file system", "unshare or mount does not work here"),
    };
    let set = format!("LD_PRELOAD={} MALLOC_TRACE=trace.log", library());
    runs_untraced(&in_namespace(&set).unwrap(), &plain, "Read-only file system");
}

/// A setuid program of another user, and the same without that bit.
fn setuid(folder: &Folder) -> Option<(PathBuf, PathBuf)> {
    let plain = compile(folder, "plain", &program("secure.c"), &[]);
    let setuid = folder.join("setuid");
    copy_program(&plain, &setuid);
    let _ = chown(&setuid, Some(NOBODY), None);
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
    if run_plain(&setuid, &[]).stdout != b"secure: 1\n" {
        skip("a setuid program", "it needs a user who may give files away, without nosuid");
        return None;
    }
    Some((setuid, plain))
}

#[test]
fn the_loader_keeps_the_library_out_of_a_setuid_program() {
    let folder = Folder::new("rights-setuid");
    let Some((setuid, _)) = setuid(&folder) else { return };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for format in FORMATS {
        let run = format.traced(&folder, &setuid).run().succeeded();
        assert_eq!((run.stdout(), run.output.stderr.len()), ("secure: 1\n".into(), 0));
        assert!(!run.path.exists(), "{}", run.path.display());
    }
}

#[test]
fn the_library_does_nothing_in_a_setuid_program_even_if_it_is_loaded() {
    let folder = Folder::new("rights-preloaded");
    let Some((setuid, plain)) = setuid(&folder) else { return };
    let (etc, logs) = (folder.join("etc"), folder.join("logs"));
    fs::create_dir(&etc).unwrap();
    fs::create_dir(&logs).unwrap();
    fs::set_permissions(&logs, fs::Permissions::from_mode(0o777)).unwrap();
    // Of /etc/ld.so.preload the loader loads everything, everywhere.
    let script = format!(
        "mount -t tmpfs none {0} && cp /etc/ld.so.cache {0} && mount --bind {0} /etc || exit 77
         echo {1} >/etc/ld.so.preload; export MTR_OUTPUT={2}/%e
         {3}; {4}",
        etc.display(),
        library(),
        logs.display(),
        setuid.display(),
        plain.display()
    );
    let output = clean_command("unshare").args(["-m", "sh", "-c", &script]).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        _ => return skip("/etc/ld.so.preload", "unshare or mount does not work here"),
    };
    assert_eq!(output.stdout, b"secure: 1\nsecure: 0\n", "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(logs.join("plain").exists(), "the library was not loaded");
    assert!(!logs.join("setuid").exists(), "a setuid program was traced");
}
