//! `--format mtrace`: the lines of a log through the replay of glibc's script.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use mtr_format::text::decode::Place;
use mtr_format::text::escape::unescape;

use super::mtrace_log::{self, Caller};
use crate::error::Error;
use crate::output::mtrace::{Locations, Script};
use crate::read::lines::CHUNK;
use crate::read::mtrace_text::read_lines;
use crate::read::{self, Opened};
use crate::symbolize::{self, Options};

/// What stopped the output.
#[derive(Debug)]
pub enum Stop {
    /// The log could not be read.
    Log(Error),
    /// The output could not be written.
    Out(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Log(error)
    }
}

/// What came of a run of the script.
#[derive(Debug)]
pub struct Ran {
    /// Blocks were left, which is when the script exits 1.
    pub left: bool,
    /// The trace, and what is missing from it.
    pub log: read::Log,
}

/// Prints what the script prints of `log`. With a program, places are symbolized; what cannot be is printed as the script
/// does without one.
pub fn run(
    programs: &[PathBuf],
    log: &Path,
    caller: Caller,
    out: &mut impl Write,
) -> Result<Ran, Stop> {
    let (known, escaped) = match programs {
        [] => (HashMap::new(), false),
        programs => resolved(programs, log).map_err(Stop::Log)?,
    };
    let mut locations = Locations::new();
    let mut place = |text: &[u8]| match known.get(&identity(text, escaped)) {
        Some(line) => line.clone(),
        None => locations.location(text),
    };
    let mut script = Script::new();
    let trace = Opened::open(log).map_err(Stop::Log)?;
    let log = if trace.chunks().is_some() {
        let each = |line: &[u8]| script.line(line, out, &mut place);
        mtrace_log::convert(log, caller, &mut EachLine { line: Vec::new(), each })?
    } else {
        read_log(trace, log, |line| script.line(line, out, &mut place))?
    };
    let left = script.finish(out, &mut place).map_err(Stop::Out)?;
    out.flush().map_err(Stop::Out)?;
    Ok(Ran { left, log })
}

/// Hands every line of a log to `each`.
fn read_log(
    mut log: Opened,
    path: &Path,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<read::Log, Stop> {
    let holes = log.holes();
    let mut read =
        read_lines(log.input(), path, CHUNK, holes, |taken| each(taken.bytes).map_err(Stop::Out))?;
    log.complete(&mut read);
    Ok(read)
}

/// An output that hands every line to `each`, without its newline.
struct EachLine<F> {
    line: Vec<u8>,
    each: F,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for EachLine<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if let Some(line) = self.line.strip_suffix(b"\n") {
                (self.each)(line)?;
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tells one place from another, its names unescaped.
type Identity = (Option<Vec<u8>>, Option<(Vec<u8>, u64)>, Option<u64>);

fn identity(text: &[u8], escaped: bool) -> Identity {
    let place = Place::parse(text);
    let plain = |name: &[u8]| match escaped {
        true => unescape(name).collect(),
        false => name.to_vec(),
    };
    let symbol = place.symbol.map(|symbol| (plain(symbol.name), symbol.offset));
    (place.object.map(plain), symbol, place.address)
}

/// Place -> file and line.
type Lines = HashMap<Identity, Vec<u8>>;

/// File and line of every place of the log that has them, as addr2line prints them, and whether
/// names in the log are escaped.
fn resolved(programs: &[PathBuf], log: &Path) -> Result<(Lines, bool), Error> {
    let read::Log { sites, header, .. } = read::read(log, |_| {})?;
    let options = Options {
        programs: programs.to_vec(),
        trace_folder: log.parent().map(Path::to_path_buf),
        ..Options::default()
    };
    let places = symbolize::resolve(&sites, &options).places;
    let lines = sites.sites.into_iter().zip(places).filter_map(|(site, place)| {
        let frame = place.frames.first()?;
        let mut line = OsString::from(frame.file.as_ref()?);
        line.push(format!(":{}", frame.line?));
        Some(((site.object, site.symbol, site.address), line.as_bytes().to_vec()))
    });
    Ok((lines.collect(), header.version.is_some()))
}
