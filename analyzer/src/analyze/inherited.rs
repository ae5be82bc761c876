//! The blocks that a child made by fork has from its parent.

use std::path::{Path, PathBuf};

use hashbrown::HashSet;

use crate::read::tail::{self, Head, Parent};
use crate::replay::{Order, Replay};

/// Processes between a child and the program; more is damage.
const DEEPEST: u32 = 64;

/// What was live in the parent at the fork, as far as both logs tell it.
pub(super) struct Inherited {
    pub(super) blocks: HashSet<u64>,
    /// There were no other threads. What these did at the moment of the fork may stand on the other
    /// side of it in the log.
    pub(super) is_certain: bool,
}

/// What the process has from its parent, if it is a child made by fork and both logs are whole.
pub(super) fn of_child(trace: &Path) -> Option<Inherited> {
    of(trace, &tail::head(trace).ok()?, DEEPEST)
}

fn of(trace: &Path, head: &Head, depth: u32) -> Option<Inherited> {
    let Parent { pid, position, log, had_threads } = head.parent.as_ref()?;
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
    let mut is_certain = !had_threads;
    if parent.parent.is_some() {
        let inherited = of(&path, &parent, depth)?;
        is_certain &= inherited.is_certain;
        replay.inherit(inherited.blocks);
    }
    let read = crate::read::read_before(&path, position, |event| replay.event(event)).ok()?;
    let is_whole = !read.damage.is_some();
    let is_known = is_whole && read.header.start_by_mtrace == Some(false);
    is_known.then(|| Inherited { blocks: replay.into_live(), is_certain })
}

fn of_session(trace: &Path) -> Option<u64> {
    tail::head(trace).ok()?.session
}
