//! Programs of the machine that know nothing of mtr behave under the library as they do without it,
//! and leave a log that is sound.

mod support;

use std::path::Path;
use support::*;

/// Runs `program` in `folder` without and with the library and compares all that one can see.
/// Returns the logs of every process.
#[track_caller]
fn behaves_the_same(folder: &Folder, program: &Path, arguments: &[&str]) -> Vec<Log> {
    let traces = Folder::new("unmodified-traces");
    let prepare = || {
        let mut command = clean_command(program);
        command.args(arguments).current_dir(folder.path());
        command.env("HOME", folder.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        command
    };
    let plain = prepare().output().unwrap();
    let path = traces.join("trace.log");
    let traced =
        prepare().env("LD_PRELOAD", library()).env("MALLOC_TRACE", &path).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let what = format!("{} {arguments:?}", program.display());
    assert_eq!(traced.status, plain.status, "{what}\n{}", text(&traced.stderr));
    assert_eq!(text(&traced.stdout), text(&plain.stdout), "{what}");
    assert_eq!(text(&traced.stderr), text(&plain.stderr), "{what}");

    let logs = logs_beside(&path);
    assert!(logs.iter().any(|log| log.path == path), "{what}: no log");
    for log in &logs {
        log.is_sound();
        if log.notes("parent").is_empty() {
            log.is_in_order();
            assert!(log.records().next().is_some(), "{what}: no records");
        }
        assert!(log.notes("program").len() == 1, "{what}: {}", log.path.display());
        let report = mtr_report([&log.path]).without_faults();
        if log.notes("parent").is_empty() {
            let summary = report.summary();
            assert_eq!(summary.in_use_blocks, log.live().len() as u64, "{what}\n{}", report.text);
        }
    }
    logs
}

#[test]
fn git_behaves_the_same() {
    let Some(git) = need_elf("git", "git_behaves_the_same") else { return };
    let folder = Folder::new("unmodified-git");
    behaves_the_same(&folder, &git, &["--version"]);
    let quiet = clean_command(&git)
        .args(["init", "-q"])
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .status();
    assert!(quiet.unwrap().success());
    std::fs::write(folder.join("new file"), "text\n").unwrap();
    behaves_the_same(&folder, &git, &["status"]);
    // One that fails, too.
    behaves_the_same(&folder, &git, &["show", "no-such-commit"]);
}

#[test]
fn python_behaves_the_same() {
    let Some(python) = need_elf("python3", "python_behaves_the_same") else { return };
    let folder = Folder::new("unmodified-python");
    let script = "import json, sys\n\
        data = json.loads('[' + ', '.join('{\"a\": [%d, \"x\"]}' % i for i in range(2000)) + ']')\n\
        print(len(json.dumps(data)), sum(d['a'][0] for d in data))\n\
        print('done', file=sys.stderr)\n\
        sys.exit(3)\n";
    std::fs::write(folder.join("script.py"), script).unwrap();
    let logs = behaves_the_same(&folder, &python, &["-I", "script.py"]);
    assert_eq!(logs[0].note("program"), [python.to_str().unwrap()]);
    // Every line of its memory as a block of its own, through dlopen'd extensions.
    behaves_the_same(&folder, &python, &["-I", "-X", "dev", "-c", "import ctypes, decimal"]);
}

#[test]
fn perl_behaves_the_same() {
    let Some(perl) = need_elf("perl", "perl_behaves_the_same") else { return };
    let folder = Folder::new("unmodified-perl");
    let script = "my %h; $h{$_ % 100} .= \"x$_\" for 1..5000; print length(join '', values %h), \
        \"\\n\"; print STDERR qx(echo from a child); exit 4";
    let logs = behaves_the_same(&folder, &perl, &["-e", script]);
    assert!(logs.len() > 1, "its child is traced, too");
}

#[test]
fn bash_behaves_the_same() {
    let Some(bash) = need_elf("bash", "bash_behaves_the_same") else { return };
    let folder = Folder::new("unmodified-bash");
    let script = "for i in {1..50}; do x=$x$(printf %03d $i); done; echo ${#x} | cat; \
        (exit 3) & wait $!; echo $? >&2; exit 5";
    behaves_the_same(&folder, &bash, &["-c", script]);
    // A process that ends by a signal.
    behaves_the_same(&folder, &bash, &["-c", "ulimit -c 0; kill -SEGV $$"]);
}

#[test]
fn sort_behaves_the_same() {
    let Some(sort) = need_elf("sort", "sort_behaves_the_same") else { return };
    let folder = Folder::new("unmodified-sort");
    let lines: Vec<String> = (0..20_000u64).map(|i| format!("{}\n", i * 7919 % 20_011)).collect();
    std::fs::write(folder.join("input"), lines.concat()).unwrap();
    // Threads, and a merge of temporary files.
    behaves_the_same(&folder, &sort, &["-n", "--parallel=4", "-S", "64K", "input"]);
    behaves_the_same(&folder, &sort, &["no such file"]);
}

#[test]
fn a_compiler_behaves_the_same() {
    let Some(gcc) = need_elf("gcc", "a_compiler_behaves_the_same") else { return };
    let folder = Folder::new("unmodified-gcc");
    let source = "#include <stdio.h>\nint main(void) { int unused; puts(\"built\"); }\n";
    std::fs::write(folder.join("small.c"), source).unwrap();
    let arguments = ["-O2", "-Wall", "-g", "small.c", "-o", "small"];
    let logs = behaves_the_same(&folder, &gcc, &arguments);
    assert!(logs.len() >= 4, "the driver, cc1, as, collect2, ld: {}", logs.len());
    let built = run_plain(&folder.join("small"), &[]);
    assert_eq!(built.stdout, b"built\n", "what the traced compiler made runs");
    std::fs::write(folder.join("small.c"), "int main(void) { return x; }\n").unwrap();
    behaves_the_same(&folder, &gcc, &arguments);
}
