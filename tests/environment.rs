//! The environment of a traced program: its own, and one variable that names the run.

mod support;

use support::*;

/// The lines that `environment` prints under the library, without those that the test has set, and
/// the values of MTR_SESSION among them.
fn under_the_library(
    folder: &Folder,
    format: Format,
    arguments: &[&str],
    session: Option<&str>,
) -> (Vec<String>, Vec<String>) {
    let program = compile(folder, "environment", &program("environment.c"), &[]);
    let mut traced = format.traced(folder, &program).args(arguments).env("GIVEN", "1");
    if let Some(session) = session {
        traced = traced.env("MTR_SESSION", session);
    }
    let run = traced.run().succeeded();
    assert!(run.output.stderr.is_empty(), "{}", run.description());
    let mut lines: Vec<String> = run.stdout().lines().map(str::to_owned).collect();
    let mut sessions = Vec::new();
    lines.retain(|line| match line.strip_prefix("MTR_SESSION=") {
        Some(value) => {
            sessions.push(value.to_owned());
            false
        }
        None => !["LD_PRELOAD=", "MALLOC_TRACE=", "MTR_"].iter().any(|p| line.starts_with(p)),
    });
    for recorded in Recorded::all_beside(format, &run.path) {
        recorded.is_sound();
        assert_eq!(recorded.notes("session"), sessions, "{}", recorded.path().display());
        std::fs::remove_file(recorded.path()).unwrap();
        let _ = std::fs::remove_file(tail_of(recorded.path()));
    }
    (lines, sessions)
}

#[test]
fn a_program_has_its_own_environment_and_the_run() {
    let folder = Folder::new("environment");
    let plain = compile(&folder, "environment", &program("environment.c"), &[]);
    let plain = clean_command(plain).env("GIVEN", "1").current_dir(folder.path()).output().unwrap();
    let expected: Vec<String> =
        str::from_utf8(&plain.stdout).unwrap().lines().map(str::to_owned).collect();
    for said in ["main got the same", "the auxiliary vector is behind it"] {
        assert!(expected.iter().any(|line| line == said), "{expected:?}");
    }
    for format in FORMATS {
        // Where it is not set, or not to a run, a run begins.
        for (given, arguments) in
            [(None, &[][..]), (Some(""), &[]), (Some("none"), &[]), (None, &["again"])]
        {
            let (lines, sessions) = under_the_library(&folder, format, arguments, given);
            assert_eq!(lines, expected, "{format:?}, {given:?}, {arguments:?}");
            assert_eq!(sessions.len(), 1, "{format:?}, {given:?}, {arguments:?}");
            let is_hex = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
            assert!(sessions[0].len() == 16 && sessions[0].chars().all(is_hex), "{sessions:?}");
        }
        let (lines, sessions) = under_the_library(&folder, format, &[], Some("00000000000000ff"));
        assert_eq!((lines, sessions), (expected.clone(), vec!["00000000000000ff".to_owned()]));
    }
}
