//! Children of all kinds, in both formats: each has a record of its own, and nothing of another's.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use support::*;

fn build(folder: &Folder, name: &str, flags: &[&str]) -> PathBuf {
    let output = name.split('.').next().unwrap();
    compile(folder, output, &program(name), &[flags, &["-pthread"]].concat())
}

/// The records of all processes of a run, the parent's first, and their counts.
#[track_caller]
fn all_of(format: Format, run: &Run) -> Vec<(Recorded, Counts)> {
    let mut all = Recorded::all_beside(format, &run.path);
    all.sort_by_key(|recorded| recorded.path() != run.path);
    let counted = |recorded: Recorded| {
        recorded.is_sound();
        let counts = recorded.counts();
        (recorded, counts)
    };
    let all: Vec<_> = all.into_iter().map(counted).collect();
    all[0].0.is_finished();
    the_report_agrees(&all[0].0);
    all
}

#[test]
fn children_forked_in_a_loop_have_records_of_their_own() {
    const CHILDREN: u64 = 30;
    let folder = Folder::new("fork-loop");
    let program = build(&folder, "fork_in_a_loop.c", &[]);
    let arguments = [&*CHILDREN.to_string()];
    for (format, run) in Hazard::new(&program, &arguments).differs_by_run().run(&folder) {
        let all = all_of(format, &run);
        assert_eq!(all.len() as u64, 1 + CHILDREN, "{format:?}");
        assert_eq!(all[0].1[&7000], (CHILDREN, 0), "{format:?}");
        let by_pid: BTreeMap<String, &Counts> =
            all.iter().map(|(recorded, counts)| (recorded.pid().to_string(), counts)).collect();
        for (number, pid) in (0..).zip(run.stdout().lines()) {
            let own: Vec<_> = by_pid[pid].range(7000..8000 + CHILDREN).collect();
            assert_eq!(own, [(&(8000 + number), &(100, 100))], "{format:?}, child {number}");
        }
    }
}

#[test]
fn children_of_a_threaded_program_start_threads_of_their_own() {
    let folder = Folder::new("fork-threads");
    let program = build(&folder, "fork_with_threads.c", &[]);
    for (format, run) in Hazard::new(&program, &["20"]).run(&folder) {
        let all = all_of(format, &run);
        assert_eq!(all.len(), 21, "{format:?}");
        assert!(!all[0].1.contains_key(&7200), "{format:?}: a child's records are its parent's");
        for (recorded, counts) in &all[1..] {
            assert_eq!(counts[&7200], (200, 200), "{format:?}: {}", recorded.path().display());
            assert!(!counts.contains_key(&7100), "{format:?}: the parent's are its child's");
            mtr_report([recorded.path()]).without_faults();
        }
    }
}

#[test]
fn what_other_threads_allocate_while_fork_is_under_way_is_inherited() {
    let folder = Folder::new("fork-beside");
    let program = build(&folder, "fork_beside_threads.c", &[]);
    for (format, run) in Hazard::new(&program, &[]).run(&folder) {
        let all = all_of(format, &run);
        assert_eq!(all[0].1[&7400], (1, 0), "{format:?}");
        for (recorded, counts) in &all[1..] {
            assert!(!counts.contains_key(&7400), "{format:?}: the parent's are its child's");
            let report = mtr_report([recorded.path()]).without_faults();
            let freed = "1 block inherited from the parent process was freed.";
            assert!(report.text.contains(freed), "{format:?}: {}", report.description());
        }
        assert_eq!(all.len(), 3, "{format:?}: a child and a child of it");
    }
}

#[test]
fn vfork_posix_spawn_and_system_start_programs_with_records_of_their_own() {
    let folder = Folder::new("spawn");
    let program = build(&folder, "spawn_leaves.c", &[]);
    for (format, run) in Hazard::new(&program, &[]).run(&folder) {
        let all = all_of(format, &run);
        assert_eq!(all[0].1[&7301], (3, 0), "{format:?}");
        let leaves = all[1..].iter().filter(|(_, counts)| counts.get(&7300) == Some(&(1, 0)));
        assert_eq!(leaves.count(), 3, "{format:?}");
        let with = |size| all.iter().filter(|(_, counts)| counts.contains_key(&size)).count();
        assert_eq!((with(7300), with(7301)), (3, 1), "{format:?}");
    }
}

#[test]
fn children_that_no_handler_hears_of_write_nothing_into_their_parents_record() {
    let folder = Folder::new("raw");
    let program = build(&folder, "raw_fork.c", &[]);
    for how in ["clone", "_Fork"] {
        for (format, run) in Hazard::new(&program, &[how]).run(&folder) {
            let all = all_of(format, &run);
            let own = [7400, 7401, 7402].map(|size| all[0].1.get(&size).copied());
            assert_eq!(own, [Some((1, 1)), None, Some((10, 10))], "{format:?}, {how}");
            for (_, counts) in &all[1..] {
                assert_eq!(counts.get(&7401), Some(&(50, 0)), "{format:?}, {how}");
                assert!(!counts.contains_key(&7402), "{format:?}, {how}");
            }
            assert_eq!(all.len(), 11, "{format:?}, {how}");
            for (recorded, _) in all {
                std::fs::remove_file(recorded.path()).unwrap();
            }
        }
    }
}

#[test]
fn children_forked_in_the_middle_of_hooks_go_on_and_leave_their_parents_record_alone() {
    for (name, flags) in [("forked", &[][..]), ("forked_raw", &["-DRAW_FORK"])] {
        let folder = Folder::new(name);
        let program = compile(&folder, name, &program("fork_in_handler.c"), flags);
        for (format, run) in Hazard::new(&program, &["250"]).run(&folder) {
            assert_eq!(run.stdout(), "0 of 250 died\n", "{format:?}");
            let recorded = Recorded::of(format, &run);
            recorded.is_finished();
            the_report_agrees(&recorded);
        }
    }
}

#[test]
fn what_children_do_to_memory_that_they_share_is_their_parents() {
    let folder = Folder::new("shared-memory");
    for name in ["shared_memory_children.c", "vfork_that_allocates.c"] {
        let program = build(&folder, name, &[]);
        Hazard::new(&program, &[]).is_recorded(&folder);
    }
}
