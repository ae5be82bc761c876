//! What mtr-run promises of the program that it runs, and of those that it does not run.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::*;

/// mtr-run refuses `program` in one line that names `reason`, and runs nothing.
#[track_caller]
fn refuses(folder: &Folder, program: &Path, reason: &str) {
    let output = mtr_run(folder.path()).arg(program).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{}: {stderr}", program.display());
    assert!(output.stdout.is_empty(), "it ran: {output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(reason), "{stderr}");
}

fn script(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    write_script(&path, text);
    path
}

/// Compiles state.c with `flags`, or says that the machine cannot.
fn try_compile(folder: &Folder, name: &str, flags: &[&str]) -> Option<PathBuf> {
    try_compile_by("cc", folder, name, flags)
}

fn try_compile_by(compiler: &str, folder: &Folder, name: &str, flags: &[&str]) -> Option<PathBuf> {
    let path = folder.join(name);
    let source = support::program("state.c");
    let done = clean_command(compiler).args(flags).arg("-o").arg(&path).arg(source).output();
    if !done.is_ok_and(|done| done.status.success()) {
        skip(name, &format!("{compiler} {flags:?} does not work here"));
        return None;
    }
    Some(path)
}

#[test]
fn what_cannot_be_traced_is_said_before_anything_runs() {
    let folder = Folder::new("run-refused");
    let plain = try_compile(&folder, "plain", &[]).expect("a C compiler");
    for flags in [&["-static"][..], &["-static-pie"]] {
        let Some(program) = try_compile(&folder, "static", flags) else { continue };
        refuses(&folder, &program, "it is linked statically");
        let line = format!("#!{}\n", program.display());
        refuses(&folder, &script(&folder, "script", &line), "its interpreter");
        refuses(&folder, &folder.join("script"), "it is linked statically");
    }
    if let Some(program) = try_compile(&folder, "narrow", &["-m32"]) {
        refuses(&folder, &program, "it is a 32-bit program");
    }
    for (flag, name) in SANITIZERS {
        let Some(program) = try_compile(&folder, name, &[&format!("-fsanitize={flag}")]) else {
            continue;
        };
        refuses(&folder, &program, &format!("it was built with {name}"));
    }
    if let Some(program) = try_compile(&folder, "ubsan", &["-fsanitize=undefined"]) {
        let output = mtr_run(folder.path()).arg(program).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    refuses(
        &folder,
        &script(&folder, "lost", "#!/no/such/interpreter -x\n"),
        "/no/such/interpreter",
    );
    let loader = "-Wl,--dynamic-linker=/no/such/loader.so";
    if let Some(program) = try_compile(&folder, "orphan", &[loader]) {
        refuses(&folder, &program, "/no/such/loader.so is missing");
    }
    // Another user's setuid program: the loader would ignore LD_PRELOAD.
    let setuid = folder.join("setuid");
    copy_program(&plain, &setuid);
    match std::os::unix::fs::chown(&setuid, Some(65534), None) {
        Ok(()) => {
            fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
            refuses(&folder, &setuid, "it is setuid");
        }
        Err(error) => skip("a setuid program", &error.to_string()),
    }
    let secret = folder.join("secret");
    copy_program(&plain, &secret);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o111)).unwrap();
    if fs::File::open(&secret).is_ok() {
        skip("a program without read permission", "this user may read everything");
    } else {
        refuses(&folder, &secret, "no permission to read it");
    }
}

const SANITIZERS: [(&str, &str); 3] =
    [("address", "AddressSanitizer"), ("thread", "ThreadSanitizer"), ("leak", "LeakSanitizer")];

#[test]
fn a_sanitizer_that_is_linked_statically_is_known_too() {
    let folder = Folder::new("run-sanitizers");
    for (flag, name) in SANITIZERS {
        let library = match flag {
            "address" => "-static-libasan",
            "thread" => "-static-libtsan",
            _ => "-static-liblsan",
        };
        let sanitize = format!("-fsanitize={flag}");
        // What gcc is asked for is clang's default.
        for (compiler, flags) in [("gcc", &[&*sanitize, library][..]), ("clang", &[&*sanitize])] {
            let Some(program) = try_compile_by(compiler, &folder, name, flags) else { continue };
            refuses(&folder, &program, &format!("it was built with {name}"));
            let stripped = folder.join("stripped");
            let done = clean_command("strip").arg("-o").arg(&stripped).arg(&program).status();
            assert!(done.unwrap().success());
            refuses(&folder, &stripped, "it was built with ");
        }
    }
    // Its own malloc is no reason, and neither is a sanitizer that has none.
    for flags in [&["-fsanitize=undefined", "-static-libubsan"][..], &[]] {
        let Some(program) = try_compile(&folder, "other", flags) else { continue };
        let output = mtr_run(folder.path()).arg(program).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let own = compile(&folder, "own_malloc", &program("own_malloc.c"), &[]);
    assert_ne!(mtr_run(folder.path()).arg(own).output().unwrap().status.code(), Some(125));
}

#[test]
fn a_report_file_that_cannot_be_written_is_said_before_anything_runs() {
    let folder = Folder::new("run-report-file");
    let program = compile(&folder, "stays", &program("stays.c"), &["-pthread"]);
    let run = |file: &str| {
        let mut command = mtr_run(folder.path());
        command.arg(format!("--report-file={file}")).arg(&program).arg("77").output().unwrap()
    };
    for file in ["no/such/folder/report", "."] {
        let output = run(file);
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        assert!(output.stdout.is_empty(), "it ran: {output:?}");
    }
    fs::write(folder.join("report"), "x".repeat(100_000)).unwrap();
    let output = run("report");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report = fs::read_to_string(folder.join("report")).unwrap();
    assert!(report.starts_with("program:") && !report.contains("xxx"), "{report}");
    let full = run("/dev/full");
    assert_eq!(full.status.code(), Some(125), "{full:?}");
    assert_eq!(full.stdout, b"ready\n", "it ran to its end");
}

#[test]
fn the_program_gets_the_signals_and_descriptors_that_mtr_run_got() {
    let folder = Folder::new("run-state");
    let program = compile(&folder, "state", &program("state.c"), &[]);
    let out = folder.join("out");
    let prepare = |command: &mut Command, how: &'static str| {
        let change = move || {
            // SAFETY: async-signal-safe calls on live values.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&mut set);
                match how {
                    "ignored" => {
                        use libc::{SIGCHLD, SIGHUP, SIGPIPE, SIGXFSZ};
                        for signal in [SIGPIPE, SIGHUP, SIGCHLD, SIGXFSZ] {
                            libc::signal(signal, libc::SIG_IGN);
                        }
                    }
                    "blocked" => {
                        for signal in [libc::SIGTERM, libc::SIGUSR1, libc::SIGCHLD] {
                            libc::sigaddset(&mut set, signal);
                        }
                        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
                    }
                    "closed" => {
                        libc::close(0);
                        libc::close(2);
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        // SAFETY: see `change`.
        unsafe { command.pre_exec(change) };
    };
    for how in ["", "ignored", "blocked", "closed"] {
        let mut plain = clean_command(&program);
        plain.arg(&out);
        prepare(&mut plain, how);
        assert!(plain.status().unwrap().success());
        let expected = fs::read_to_string(&out).unwrap();
        let mut traced = mtr_run(folder.path());
        traced.arg("--report-file=report").arg(&program).arg(&out);
        prepare(&mut traced, how);
        assert!(traced.status().unwrap().success(), "{how}");
        assert_eq!(fs::read_to_string(&out).unwrap(), expected, "{how}");
    }
}

#[test]
fn how_the_program_ended_is_said_only_where_it_matters() {
    let folder = Folder::new("run-ends");
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    let report = |end: &str| {
        let output = mtr_run(folder.path()).arg(&program).args([end, "11"]).output().unwrap();
        Report::of_mtr_run(&output)
    };
    for end in ["return", "_exit", "quick_exit"] {
        let report = report(end);
        assert!(!report.text.contains("ended by"), "{}", report.description());
    }
    let killed = report("kill");
    assert_eq!(killed.status.code(), Some(137));
    assert!(killed.text.contains("was ended by SIGKILL (signal 9)"), "{}", killed.description());
}

#[test]
fn a_gate_of_status_0_does_not_hide_how_the_program_ended() {
    let folder = Folder::new("run-gate");
    let program = compile(&folder, "ends", &program("ends.c"), &["-pthread"]);
    let status = |gate: &str| {
        let mut command = mtr_run(folder.path());
        let output = command.arg(gate).arg(&program).args(["kill", "11"]).output().unwrap();
        let report = Report::of_mtr_run(&output);
        assert!(report.summary().in_use_blocks > 0, "{}", report.description());
        report.status.code()
    };
    assert_eq!(status("--error-exitcode=9"), Some(9));
    assert_eq!(status("--error-exitcode=0"), Some(137));
}

#[test]
fn a_signal_that_is_sent_to_mtr_run_alone_reaches_the_program() {
    let folder = Folder::new("run-signal");
    let program = compile(&folder, "stays", &program("stays.c"), &["-pthread"]);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let mut command = mtr_run(folder.path());
        command.arg("--report-file=report").arg(&program).arg("77");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // wait() would close it, which ends the program.
        let _stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // SAFETY: the child has not been waited for, so the process ID is its own.
        unsafe { libc::kill(child.id() as i32, signal) };
        assert_eq!(child.wait().unwrap().code(), Some(128 + signal));
    }
}

#[test]
fn without_tmpdir_and_home_it_runs_as_well() {
    let folder = Folder::new("run-bare");
    let program = compile(&folder, "state", &program("state.c"), &[]);
    let mut command = mtr_run(folder.path());
    for name in ["TMPDIR", "HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    let output = command.arg(&program).output().unwrap();
    Report::of_mtr_run(&output).without_faults();
}

#[test]
fn children_are_left_alone_on_request_whoever_started_them() {
    let folder = Folder::new("run-children");
    let spawns = compile(&folder, "spawn_leaves", &program("spawn_leaves.c"), &[]);
    let forks = compile(&folder, "fork", &program("fork.c"), &[]);
    let traces = |log: &Path| {
        let logs = logs_beside(log);
        let pids: Vec<u32> = logs.iter().map(|log| log.pid()).collect();
        (logs.len(), pids)
    };
    for program in [&spawns, &forks] {
        let run = Traced::new(&folder, program).env("MTR_TRACE_CHILDREN", "no").run().succeeded();
        assert_eq!(traces(&run.path).0, 1, "{}", run.description());
        assert!(run.output.stderr.is_empty(), "{}", run.description());
        fs::remove_file(&run.path).unwrap();
    }
    // What an exec makes of the process itself is no child.
    let run = Traced::new(&folder, "/bin/sh")
        .args(&["-c", "/bin/true; exec /bin/cat /dev/null"])
        .env("MTR_TRACE_CHILDREN", "no")
        .run()
        .succeeded();
    let (count, pids) = traces(&run.path);
    assert_eq!((count, pids[0]), (2, pids[1]), "{pids:?}");
    let output = mtr_run(folder.path())
        .args(["--trace-children=no", "--trace-format=mtrace", "-o", "run.log"])
        .arg(&spawns)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(traces(&folder.join("run.log")).0, 1);
}

#[test]
fn an_option_that_does_not_exist_is_no_program() {
    let folder = Folder::new("run-options");
    let program = compile(&folder, "state", &program("state.c"), &[]);
    let run = |arguments: &[&str]| {
        let output = mtr_run(folder.path()).args(arguments).arg(&program).output().unwrap();
        assert!(output.stdout.is_empty(), "it ran: {output:?}");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = run(&["--dept=3"]);
    assert_eq!(status, Some(125), "{said}");
    assert!(said.contains("unexpected argument '--dept' found"), "{said}");
    assert!(said.contains("'--depth'"), "the nearest option: {said}");
    assert_eq!(run(&["-x"]).0, Some(125));
    // Behind a double dash all is the program's, and so it is behind the program.
    let (status, said) = run(&["--", "--dept=3"]);
    assert_eq!(status, Some(127), "{said}");
    let echo = mtr_run(folder.path()).args(["/bin/echo", "--dept=3", "--", "-o"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&echo.stdout), "--dept=3 -- -o\n", "{echo:?}");
}

/// mtr-run refuses this option, or variable of its environment, and runs nothing.
#[track_caller]
fn refuses_option(folder: &Folder, option: &str, value: &str, reason: &str) {
    let mut command = mtr_run(folder.path());
    match option.strip_prefix("MTR_") {
        Some(_) => command.env(option, value),
        None => command.args([option, value]),
    };
    let output = command.args(["/bin/echo", "ran"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{option} {value}: {stderr}");
    assert!(output.stdout.is_empty(), "it ran: {output:?}");
    assert!(stderr.contains(reason), "{option} {value}: {stderr}");
}

#[test]
fn a_name_that_no_trace_can_have_is_said_before_anything_runs() {
    let folder = Folder::new("run-template");
    for option in ["-o", "MTR_OUTPUT"] {
        let known = "expected one of %p (pid), %e (program), %t (time), %h (host), %n (number), \
                     %q{VAR} (environment variable), %% (a percent sign), got \"%z\"";
        refuses_option(&folder, option, "%z", known);
        refuses_option(&folder, option, "", "expected the name of a file, got an empty one");
        let got_a_folder = "expected the name of a file, got that of a folder";
        refuses_option(&folder, option, "traces/", got_a_folder);
        refuses_option(&folder, option, "%q{MTR_NO_SUCH_VARIABLE}", got_a_folder);
        refuses_option(&folder, option, folder.path().to_str().unwrap(), got_a_folder);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_number_out_of_range_is_said_before_anything_runs() {
    let folder = Folder::new("run-numbers");
    for (option, value, reason) in [
        ("--depth", "0", "expected a whole number, 1 at least"),
        ("MTR_REPORT_DEPTH", "0", "expected a whole number, 1 at least"),
        ("--depth", "-1", "expected a whole number, 1 at least"),
        ("--top", "-1", "expected a whole number"),
        ("--top", "many", "expected a whole number"),
        ("--width", "39", "39 is not in 40..=65535"),
        ("--width", "-1", "-1 is not in 40..=65535"),
        ("--error-exitcode", "256", "256 is not in 0..=255"),
        ("--error-exitcode", "-1", "-1 is not in 0..=255"),
        ("--max-trace-size", "0", "expected a size above 0"),
        ("--max-trace-size", "-1", "expected a number of bytes, or one with K, M or G behind it"),
        ("--max-trace-size", "G", "expected a number of bytes, or one with K, M or G behind it"),
        ("--max-trace-size", "16777216T", "expected a number of bytes, or one with K, M or G"),
        ("--max-trace-size", "17179869184G", "expected less than 16 EiB"),
        ("--keep-free", "99999999999999999999", "expected less than 16 EiB"),
    ] {
        refuses_option(&folder, option, value, reason);
    }
    let all = mtr_run(folder.path()).args(["--top", "99999999999999999999", "/bin/true"]).output();
    assert!(all.unwrap().status.success());
}
