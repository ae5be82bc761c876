//! Compact traces of real programs, which behave as without them.

mod support;

use std::path::Path;
use support::*;

/// Runs `program` in `folder` without and with the library and compares all that one can see.
/// Returns the traces of every process.
#[track_caller]
fn behaves_the_same(folder: &Folder, program: &Path, arguments: &[&str]) -> Vec<Trace> {
    let traces = Folder::new("compact-traces");
    let prepare = || {
        let mut command = clean_command(program);
        command.args(arguments).current_dir(folder.path());
        command.env("HOME", folder.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        command.env("PYTHONMALLOC", "malloc");
        command
    };
    let plain = prepare().output().unwrap();
    let path = traces.join("trace.mtr");
    let mut traced = prepare();
    traced.env("LD_PRELOAD", library()).env("MTR_TRACE_FORMAT", "compact");
    let traced = traced.env("MTR_OUTPUT", &path).output().unwrap();
    let what = format!("{} {arguments:?}: {traced:?}", program.display());
    assert_eq!(traced.status, plain.status, "{what}");
    assert!(traced.stdout == plain.stdout && traced.stderr == plain.stderr, "{what}\n{plain:?}");
    let all = traces_beside(&path);
    assert!(all.iter().any(|trace| trace.path == path), "{what}: no trace");
    for trace in &all {
        trace.is_sound();
        if trace.notes("parent").is_empty() {
            trace.is_in_order();
            assert!(!trace.events.is_empty(), "{what}: no events");
        }
        // Stacks of compiled code have roots, not ends.
        let allocations = || trace.events.iter().filter(|e| e.kind == Kind::Alloc);
        let ended = allocations().filter(|e| trace.stack_of(e).is_ended).count();
        assert!(ended * 100 <= allocations().count(), "{what}: {ended} stacks are incomplete");
    }
    all
}

#[test]
fn python_behaves_the_same_and_has_sound_traces() {
    let Some(python) = need_elf("python3", "python, compact") else { return };
    let folder = Folder::new("compact-python");
    let script = "import json, sys, decimal\n\
        data = json.loads('[' + ', '.join('{\"a\": [%d, \"x\"]}' % i for i in range(2000)) + ']')\n\
        print(len(json.dumps(data)), sum(d['a'][0] for d in data))\n\
        print('done', file=sys.stderr)\n\
        sys.exit(3)\n";
    std::fs::write(folder.join("script.py"), script).unwrap();
    let traces = behaves_the_same(&folder, &python, &["-s", "script.py"]);
    assert!(traces[0].events.len() > 100_000, "{} events", traces[0].events.len());
}

#[test]
fn a_compiler_behaves_the_same_and_has_sound_traces() {
    let Some(gcc) = need_elf("gcc", "gcc, compact") else { return };
    let folder = Folder::new("compact-gcc");
    let source = "#include <stdio.h>\nint main(void) { int unused; puts(\"built\"); }\n";
    std::fs::write(folder.join("small.c"), source).unwrap();
    let arguments = ["-O2", "-Wall", "-g", "small.c", "-o", "small"];
    let traces = behaves_the_same(&folder, &gcc, &arguments);
    assert!(traces.len() >= 4, "the driver, cc1, as, collect2, ld: {}", traces.len());
    assert_eq!(run_plain(&folder.join("small"), &[]).stdout, b"built\n");
}

#[test]
fn git_behaves_the_same_and_has_sound_traces() {
    let Some(git) = need_elf("git", "git, compact") else { return };
    let folder = Folder::new("compact-git");
    behaves_the_same(&folder, &git, &["--version"]);
    let mut init = clean_command(&git);
    init.args(["init", "-q"]).current_dir(folder.path()).env("HOME", folder.path());
    assert!(init.status().unwrap().success());
    std::fs::write(folder.join("new file"), "text\n").unwrap();
    behaves_the_same(&folder, &git, &["status"]);
    behaves_the_same(&folder, &git, &["show", "no-such-commit"]);
}
