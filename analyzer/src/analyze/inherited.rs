//! The blocks that a child made by fork has from its parent.

use std::path::{Path, PathBuf};

use hashbrown::HashSet;

use crate::read::tail::{self, Head, Parent};
use crate::replay::{Order, Replay};

/// Processes between a child and the program; more is damage.
const DEEPEST: u32 = 64;

/// The addresses that were live in the parent at the fork, where both logs tell it for sure.
pub(super) fn blocks(trace: &Path) -> Option<HashSet<u64>> {
    of(trace, &tail::head(trace).ok()?, DEEPEST)
}

fn of(trace: &Path, head: &Head, depth: u32) -> Option<HashSet<u64>> {
    let Parent { pid, position, log } = head.parent.as_ref()?;
    let (position, depth) = ((*position)?, depth.checked_sub(1)?);
    // Where it was, or where it was taken to together with the child's.
    let beside = trace.with_file_name(log.file_name()?);
    let is_it = |head: &Head| head.pid == Some(*pid) && head.session == of_session(trace);
    let (path, parent): (PathBuf, Head) = [log.clone(), beside]
        .into_iter()
        .find_map(|path| Some(path.clone()).zip(tail::head(&path).ok().filter(is_it)))?;
    if parent.started > head.started {
        return None;
    }
    let mut replay = Replay::new(Order::Kept);
    if parent.parent.is_some() {
        replay.inherit(of(&path, &parent, depth)?);
    }
    let read = crate::read::read_before(&path, position, |event| replay.event(event)).ok()?;
    let is_whole = !read.damage.hides_records() && !read.damage.cut;
    let is_known = is_whole && read.header.start_by_mtrace == Some(false);
    is_known.then(|| replay.into_live())
}

fn of_session(trace: &Path) -> Option<u64> {
    tail::head(trace).ok()?.session
}
