//! The examples: each compiles by the command at its top, without a word of the compiler.

mod support;

use std::path::Path;
use support::*;

#[test]
fn every_example_compiles_by_the_command_at_its_top_without_warnings() {
    let folder = Folder::new("examples");
    let mut copy = clean_command("cp");
    copy.arg("-r").arg(repository().join("examples")).arg(folder.path());
    assert!(copy.status().unwrap().success());
    let mut built = 0;
    for source in ["t_mtrace.c", "leaks.cpp", "leaks.rs", "threads.c", "plugins/host.c"] {
        let text = std::fs::read_to_string(example(source)).unwrap();
        let command = text.lines().map(|l| l.trim_start_matches([' ', '*', '/', '!'])).find(|l| {
            ["cc ", "c++ ", "rustc ", "cd "].iter().any(|compiler| l.starts_with(compiler))
        });
        let command = command.unwrap_or_else(|| panic!("{source}: no command at its top"));
        let output = clean_command("/bin/sh")
            .args(["-c", command])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{source}: {command}\n{said}");
        built += 1;
    }
    assert_eq!(built, sources(&repository().join("examples")), "one command per program");
}

/// Programs in examples/: the plugins belong to their host.
fn sources(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|p| p.is_file()).count() + 1
}
