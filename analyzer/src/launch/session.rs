//! The traces of one run of `mtr-run`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::read::tail::{self, Absorbed, Head};

use super::file_size;
use super::output::Template;

/// The trace of one process, or of one image of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub size: u64,
    /// Process ID.
    pub pid: u32,
    /// When it began: seconds and nanoseconds.
    pub started: (u64, u64),
}

/// What a run left behind.
#[derive(Debug, Default)]
pub struct Session {
    /// The last image of the program that was started.
    pub program: Option<Trace>,
    /// All others, largest first.
    pub others: Vec<Trace>,
    /// Traces whose tail could not be written into them, and why; they can be read all the same.
    pub with_tail: Vec<(PathBuf, String)>,
}

/// A number for this run: nanoseconds since 1970, so that the higher one of two began later, but for
/// the lowest 16 bits, which are drawn, for those that begin at the same moment.
pub fn new_id() -> u64 {
    const DRAWN: u64 = 0xffff;
    let mut drawn = [0; 8];
    // SAFETY: `drawn` has room for as many bytes as are asked for.
    let filled = unsafe { libc::getrandom(drawn.as_mut_ptr().cast(), drawn.len(), 0) };
    let drawn = match filled == drawn.len() as isize {
        true => u64::from_ne_bytes(drawn),
        false => u64::from(std::process::id()),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64) & !DRAWN | drawn & DRAWN
}

/// Finds the traces of session `id` and completes those of processes that have ended, up to the size
/// `max_size`. `pid` is the program that was started.
pub fn collect(template: &Template, id: u64, pid: u32, max_size: u64) -> Session {
    let mut session = Session::default();
    let mut traces = Vec::new();
    for path in template.candidates() {
        let Some(head) = head_of(&path).filter(|head| head.session == Some(id)) else { continue };
        let reason = why_not_absorbed(&path, max_size);
        // A process that outlives the program may remove or rename it at any time.
        let Ok(found) = fs::metadata(&path) else { continue };
        let size = found.len();
        session.with_tail.extend(reason.map(|reason| (path.clone(), reason)));
        let pid = head.pid.unwrap_or(0);
        traces.push(Trace { path, size, pid, started: head.started.unwrap_or_default() });
    }
    let program = last_image(&traces, pid).cloned();
    traces.retain(|trace| Some(trace) != program.as_ref());
    traces.sort_by_key(|trace| std::cmp::Reverse(trace.size));
    Session { program, others: traces, ..session }
}

/// Writes the tail of a trace into it; why it could not.
fn why_not_absorbed(trace: &Path, max_size: u64) -> Option<String> {
    let file_size = file_size::limit();
    match tail::absorb(trace, max_size.min(file_size)) {
        Ok(Absorbed::NoRoom) if file_size < max_size => {
            Some("the trace would be larger than files may be (ulimit -f)".into())
        }
        Ok(Absorbed::NoRoom) => Some("the trace would be larger than --max-trace-size".into()),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn head_of(path: &Path) -> Option<Head> {
    let head = tail::head(path);
    head.ok().filter(|head: &Head| head.session.is_some())
}

/// The trace of process `pid` that began last: those before it are of images that an exec replaced.
fn last_image(traces: &[Trace], pid: u32) -> Option<&Trace> {
    traces.iter().filter(|trace| trace.pid == pid).max_by_key(|trace| trace.started)
}

/// Whether `path` is a file that this run must not write over.
pub fn is_in_the_way(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        // A device or pipe keeps nothing that could be lost.
        Ok(found) => Ok(found.is_file() && found.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::compact::writer::Writer;

    fn trace(path: &str, pid: u32, started: (u64, u64)) -> Trace {
        Trace { path: path.into(), size: 1, pid, started }
    }

    #[test]
    fn the_program_is_the_last_image_of_the_process() {
        let traces = [
            trace("/t.sh.5", 5, (7, 900)),
            trace("/t.sort.5", 5, (8, 5)),
            trace("/t.sort.6", 6, (8, 7)),
            trace("/t.env.5", 5, (8, 1)),
        ];
        assert_eq!(last_image(&traces, 5), Some(&traces[1]));
        assert_eq!(last_image(&traces, 7), None);
    }

    #[test]
    fn only_traces_of_the_session_are_collected() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, session: &str, pid: u32| {
            let text = format!("# mtr log 1\n# id {pid:016x}\n# session {session}\n# pid {pid}\n");
            fs::write(folder.path().join(name), text).unwrap();
        };
        write("mtr.a.5.mtrace", "00000000000000ff", 5);
        let mut compact = Writer::default();
        compact.text(b"# mtr trace 2\n# id 06\n# session 00000000000000ff\n# pid 6\n");
        fs::write(folder.path().join("mtr.b.6.mtr"), compact.bytes()).unwrap();
        write("mtr.a.7.mtrace", "00000000000000fe", 7);
        fs::write(folder.path().join("notes.txt"), "hello").unwrap();
        // A tail that lies around holds the same lines.
        let stray = [&b"MTRTAIL1\n# session 00000000000000ff\n# pid 8\n"[..], &[0; 4096]].concat();
        fs::write(folder.path().join("mtr.a.8.mtrace.tail"), stray).unwrap();
        let template = Template::new(Path::new("mtr.%e.%p.mtr"), folder.path());
        let session = collect(&template, 0xff, 5, u64::MAX);
        assert_eq!(session.program.unwrap().path, folder.path().join("mtr.a.5.mtrace"));
        let others: Vec<_> = session.others.iter().map(|trace| trace.pid).collect();
        assert_eq!(others, [6]);
    }
}
