//! Children: each process and each image has a log of its own, and no line of another.

mod support;

use std::path::PathBuf;
use support::*;

/// The log of process `pid` beside that of its parent.
fn child_of(run: &Run, pid: &str) -> PathBuf {
    let mut name = run.path.clone().into_os_string();
    name.push(format!(".{pid}"));
    name.into()
}

#[test]
fn a_forked_child_has_a_log_of_its_own() {
    let folder = Folder::new("fork");
    let program = compile(&folder, "fork", &program("fork.c"), &[]);
    let run = Traced::new(&folder, &program).run().succeeded();
    let parent = run.log();
    parent.is_in_order();
    let path = child_of(&run, run.stdout().trim());
    let child = Log::read(&path).unwrap_or_else(|e| panic!("{e}\n{}", run.description()));
    child.is_sound();
    assert_eq!(child.pid().to_string(), run.stdout().trim());

    let counts = |log: &Log| [7001, 7002, 7003].map(|size| log.blocks_of(size).len());
    assert_eq!(counts(&parent), [1, 1, 0], "the parent's blocks, and none of the child's");
    assert_eq!(counts(&child), [0, 0, 1], "the child's block, and none of the parent's");
    assert_eq!(parent.allocated_and_freed(7001), (1, 0), "the child's free is not the parent's");

    let inherited = parent.blocks_of(7001)[0].allocated().unwrap().0;
    assert!(child.records().any(|r| r.freed() == Some(inherited)), "the child's free is recorded");

    let note = child.note("parent");
    assert_eq!(note[0], parent.pid().to_string());
    assert_eq!(note[2], run.path.to_str().unwrap());
    // What stands before the position is what the child inherited.
    let position: usize = note[1].parse().expect("a position");
    let before = Log::from_bytes(&std::fs::read(&run.path).unwrap()[..position]);
    assert!(before.damaged.is_empty(), "the position is between lines: {:?}", before.damaged);
    assert_eq!(counts(&before), [1, 0, 0]);

    // To free an inherited block is no fault, to keep one no finding.
    let report = mtr_report([&path]).without_faults();
    report.names("main", "fork.c", line_of(&support::program("fork.c"), "malloc(7003)"));
    mtr_report([&run.path]).without_faults();
}

#[test]
fn a_child_may_free_what_it_inherited_and_nothing_else() {
    let folder = Folder::new("fork-inherited");
    let (parent, child) = (folder.join("trace"), folder.join("trace.8"));
    let head = |pid: u32, more: &str| {
        format!(
            "# mtr log 1\n# id 00000000000000{pid:02x}\n# pid {pid}\n# started {pid}.0 1\n\
             # addresses absolute\n# start process\n{more}= Start\n"
        )
    };
    let line = |op: &str| format!("@ ./t:[0x1157] {op}\n");
    // Two blocks, one of them freed again, and a third that the fork came too early for.
    let before = head(7, "") + &line("+ 0x1000 0x10") + &line("+ 0x2000 0x20") + &line("- 0x2000");
    std::fs::write(&parent, before.clone() + &line("+ 0x3000 0x30") + "# exit\n").unwrap();
    let write_child = |position: usize, ops: &[&str], log: &str| {
        let lines: String = ops.iter().map(|op| line(op)).collect();
        let more = format!("# parent 7 {position} {log}\n");
        std::fs::write(&child, head(8, &more) + &lines + "# exit\n").unwrap();
        mtr_report([&child]).succeeded()
    };
    let at = before.len();
    let stated = parent.to_str().unwrap();
    // The log is where it was said to be, or where it has been moved to with the child's.
    for log in [stated, "/no/such/folder/trace"] {
        let report = write_child(at, &["- 0x1000", "+ 0x1000 0x10"], log);
        assert!(report.faults().is_empty(), "{}", report.description());
        assert!(report.text.contains("1 block inherited"), "{}", report.description());
        for wrong in ["- 0x2000", "- 0x3000", "- 0x1008"] {
            let report = write_child(at, &["- 0x1000", wrong], log);
            assert_eq!(report.faults().len(), 1, "{wrong}: {}", report.description());
        }
    }
    // Without the parent's log nobody can tell.
    let report = write_child(at, &["- 0x2000"], "/no/such/folder/other");
    assert!(report.faults().is_empty(), "{}", report.description());
    assert!(report.text.contains("1 block inherited"), "{}", report.description());
}

#[test]
fn children_forked_in_a_loop_tear_no_line_and_repeat_none() {
    const CHILDREN: u64 = 40;
    let folder = Folder::new("fork-loop");
    let program = compile(&folder, "fork_in_a_loop", &program("fork_in_a_loop.c"), &[]);
    let run = Traced::new(&folder, &program).arg(CHILDREN.to_string()).run().succeeded();
    let parent = run.log();
    parent.is_in_order();
    assert_eq!(parent.allocated_and_freed(7000), (CHILDREN as usize, 0));
    let pids: Vec<String> = run.stdout().lines().map(str::to_owned).collect();
    assert_eq!(pids.len(), CHILDREN as usize, "{}", run.description());
    for (number, pid) in (0..).zip(&pids) {
        let child = Log::read(&child_of(&run, pid)).unwrap();
        child.is_sound();
        assert_eq!(child.allocated_and_freed(8000 + number), (100, 100), "child {number}");
        let foreign = child.records().filter_map(Record::allocated);
        let foreign: Vec<_> = foreign.filter(|(_, n)| *n >= 7000 && *n != 8000 + number).collect();
        assert!(foreign.is_empty(), "child {number} has lines of others: {foreign:?}");
        assert_eq!(child.note("parent")[0], parent.pid().to_string());
    }
    assert!((8000..8000 + CHILDREN).all(|size| parent.blocks_of(size).is_empty()));
    assert_eq!(logs_beside(&run.path).len(), 1 + CHILDREN as usize);
}

#[test]
fn a_threaded_program_can_fork_children_that_start_threads() {
    let folder = Folder::new("fork-threads");
    let program =
        compile(&folder, "fork_with_threads", &program("fork_with_threads.c"), &["-pthread"]);
    let run = Traced::new(&folder, &program).arg("20").run().succeeded();
    let logs = logs_beside(&run.path);
    assert_eq!(logs.len(), 21, "{}", run.description());
    for log in &logs {
        log.is_sound();
        if log.path == run.path {
            log.is_in_order();
            assert!(log.blocks_of(7200).is_empty(), "a child's lines in the parent's log");
            assert!(!log.blocks_of(7100).is_empty());
        } else {
            assert_eq!(log.allocated_and_freed(7200), (200, 200), "{}", log.path.display());
            assert!(log.blocks_of(7100).is_empty(), "the parent's lines in a child's log");
        }
        mtr_report([&log.path]).without_faults();
    }
}

#[test]
fn vfork_posix_spawn_and_system_give_each_program_its_own_log() {
    let folder = Folder::new("spawn");
    let program = compile(&folder, "spawn_leaves", &program("spawn_leaves.c"), &[]);
    let run = Traced::new(&folder, &program).run().succeeded();
    let parent = run.log();
    parent.is_in_order();
    assert!(!parent.has_tail);
    assert_eq!(parent.blocks_of(7301).len(), 3, "the parent goes on after each child");
    assert!(parent.blocks_of(7300).is_empty(), "a child's line in the parent's log");

    let logs = logs_beside(&run.path);
    let leaves: Vec<&Log> = logs.iter().filter(|log| !log.blocks_of(7300).is_empty()).collect();
    assert_eq!(leaves.len(), 3, "{:?}", logs.iter().map(|l| &l.path).collect::<Vec<_>>());
    for leaf in leaves {
        leaf.is_in_order();
        assert_eq!(leaf.blocks_of(7300).len(), 1);
        assert!(leaf.blocks_of(7301).is_empty(), "the parent's lines in a child's log");
        assert_eq!(leaf.note("arguments")[1], "leaf");
        assert_ne!(leaf.pid(), parent.pid());
    }
}

/// A child that no handler announces writes nothing into its parent's log.
fn an_unannounced_child_is_kept_out(how: &str) {
    let folder = Folder::new(&format!("raw-{how}"));
    let program = compile(&folder, "raw_fork", &program("raw_fork.c"), &[]);
    let run = Traced::new(&folder, &program).arg(how).run().succeeded();
    let parent = run.log();
    parent.is_in_order();
    assert!(!parent.has_tail);
    assert!(parent.blocks_of(7401).is_empty(), "the child's lines in the parent's log");
    assert_eq!(parent.allocated_and_freed(7400), (1, 1), "freed once: by the parent");
    assert_eq!(parent.allocated_and_freed(7402), (10, 10), "the parent's own lines");
    mtr_report([&run.path]).without_faults();
}

#[test]
fn a_child_of_the_bare_system_call_never_writes_into_its_parents_log() {
    an_unannounced_child_is_kept_out("clone");
}

#[test]
fn a_child_of_underscore_fork_never_writes_into_its_parents_log() {
    an_unannounced_child_is_kept_out("_Fork");
}

#[test]
fn a_child_forked_inside_a_hook_goes_on_and_leaves_its_parents_log_alone() {
    for (name, flags) in [("forked", &[][..]), ("forked_raw", &["-DRAW_FORK"])] {
        let folder = Folder::new(name);
        let program = compile(&folder, name, &program("fork_in_handler.c"), flags);
        let run = Traced::new(&folder, &program).arg("200").run().succeeded();
        assert_eq!(run.stdout(), "0 of 200 died\n");
        let log = run.log();
        log.is_in_order();
        mtr_report([&run.path]).without_faults();
    }
}

/// Children of `jail HOW` run untraced, say nothing and are counted; their parent loses nothing.
#[track_caller]
fn children_that_cannot_be_traced(how: &str, reason: &str) {
    let folder = Folder::new(&format!("jail-{how}"));
    let program = compile(&folder, "jail", &program("jail.c"), &[]);
    std::fs::create_dir(folder.join("root")).unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(folder.path(), closed).unwrap();
    let root = folder.join("root");
    let run = Traced::new(&folder, &program).arg(how).arg(&root).run();
    if run.output.status.code() == Some(77) {
        return skip(how, "it is not permitted here");
    }
    let run = run.succeeded();
    assert!(run.output.stderr.is_empty(), "{}", run.description());
    assert_eq!(logs_beside(&run.path).len(), 1);
    let inside: Vec<_> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(inside.is_empty(), "left in the jail: {inside:?}");
    let log = run.log();
    log.is_in_order();
    assert_eq!(log.allocated_and_freed(7602), (1000, 1000));
    assert!(log.blocks_of(7601).is_empty(), "a child's lines in the parent's log");
    assert_eq!(log.note("untraced")[0], "3");
    let report = mtr_report([&run.path]).without_faults();
    let text = report.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = format!("3 children made by fork could not be traced: {reason}");
    assert!(text.contains(&said), "{}", report.description());
}

#[test]
fn children_below_another_root_leave_nothing_there_and_are_counted() {
    children_that_cannot_be_traced("chroot", "the root folder was another");
    children_that_cannot_be_traced("both", "the root folder was another");
}

#[test]
fn children_without_rights_say_nothing_and_are_counted() {
    children_that_cannot_be_traced("uid", "Permission denied");
}
