//! What kind of file this is, by its first bytes.

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use mtr_format::compact::chunk;
use mtr_format::tail as layout;
use mtr_format::text::decode::Line;

use super::{compact, front, tail};
use crate::error::Error;

/// A kind of file that the commands know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ELF file: a program or a library.
    Program,
    /// A log of libmtr.so.
    OurLog,
    /// A compact trace of libmtr.so.
    CompactTrace,
    /// A log of glibc's mtrace.
    GlibcLog,
    /// The tail of a log or trace; [`crate::read::tail`] finds it by the name of its log.
    Tail,
}

impl Kind {
    /// Whether libmtr.so wrote it: its events are in the order of the calls.
    pub fn is_ours(self) -> bool {
        matches!(self, Kind::OurLog | Kind::CompactTrace)
    }
}

/// Lines looked at: a fork can tear those at the front of a glibc log.
const LINES: usize = 20;

/// Tells what `path` is; anything unknown is an error that says what it looks like.
pub fn sniff(path: &Path) -> Result<Kind, Error> {
    let file = File::open(path).map_err(|source| Error::Open { path: path.into(), source })?;
    let unreadable = |source| Error::Read { path: path.into(), position: 0, source };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        // A pipe would lose what is read here; it can only be a log.
        return match metadata.is_dir() {
            true => Err(Error::NotATrace { path: path.into(), found: "a folder".into() }),
            false => Ok(Kind::GlibcLog),
        };
    }
    let front = front::of(&file).map_err(unreadable)?;
    match kind_of(&front) {
        Ok(kind) => Ok(kind),
        // All that a killed process recorded may be in its tail still.
        Err(_) if front.iter().all(|b| *b == 0) && tail::tail_path(path).exists() => {
            match tail::head(path) {
                Ok(head) if head.is_compact => Ok(Kind::CompactTrace),
                _ => Ok(Kind::OurLog),
            }
        }
        Err(found) => Err(Error::NotATrace { path: path.into(), found: found.into() }),
    }
}

/// The kind of a file that begins with `front`, or what it looks like.
fn kind_of(front: &[u8]) -> Result<Kind, Cow<'static, str>> {
    const OTHERS: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "a gzip file (unpack it first)"),
        (b"\x28\xb5\x2f\xfd", "a zstd file (unpack it first)"),
        (b"\xfd7zXZ", "an xz file (unpack it first)"),
        (b"#!", "a script"),
        (b"PK\x03\x04", "a zip file"),
        (b"!<arch>", "a static library"),
    ];
    if front.starts_with(b"\x7fELF") {
        return Ok(Kind::Program);
    }
    if front.starts_with(&layout::MAGIC) || front.starts_with(&layout::MAGIC2) {
        return Ok(Kind::Tail);
    }
    if let Some((_, found)) = OTHERS.iter().find(|(magic, _)| front.starts_with(magic)) {
        return Err((*found).into());
    }
    if compact::id_of(front).is_some() {
        return Ok(Kind::CompactTrace);
    }
    match chunk::version_of(front) {
        // A later version is a trace, too; reading it says what is needed.
        Some(version) if version > chunk::VERSION => return Ok(Kind::CompactTrace),
        Some(version) if version < chunk::VERSION => {
            return Err(format!("a compact trace of version {version}, which is too old").into());
        }
        Some(_) if front.len() < chunk::HEADER => {
            return Err(format!("only the first {} bytes of a compact trace", front.len()).into());
        }
        Some(_) => return Err("a compact trace without a sound chunk".into()),
        None => {}
    }
    let text = &front[front.iter().take_while(|b| **b == 0).count()..];
    if text.starts_with(b"# mtr log ") {
        return Ok(Kind::OurLog);
    }
    match text {
        [] if front.is_empty() => return Err("an empty file".into()),
        [] => return Err("nothing but NUL bytes".into()),
        _ => {}
    }
    let lines = text.split(|b| matches!(b, b'\n' | 0)).take(LINES);
    let known = |line| matches!(Line::parse(line), Line::Start | Line::End | Line::Record { .. });
    if lines.clone().any(known) {
        return Ok(Kind::GlibcLog);
    }
    match std::str::from_utf8(text) {
        Ok(_) => Err("some other text".into()),
        Err(error) if error.error_len().is_none() => Err("some other text".into()),
        Err(_) => Err("some other binary file".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::compact::writer::Writer;

    #[test]
    fn the_first_bytes_tell() {
        assert_eq!(kind_of(b"\x7fELF\x02\x01"), Ok(Kind::Program));
        assert_eq!(kind_of(b"# mtr log 1\n"), Ok(Kind::OurLog));
        assert_eq!(kind_of(b"\0\0\0# mtr log 1\n"), Ok(Kind::OurLog));
        assert_eq!(kind_of(&Writer::new().bytes()), Ok(Kind::CompactTrace));
        assert_eq!(
            kind_of(&[&[0; 640][..], &Writer::new().bytes()].concat()),
            Ok(Kind::CompactTrace)
        );
        assert_eq!(kind_of(b"mtr\x03 and whatever it has"), Ok(Kind::CompactTrace));
        assert_eq!(kind_of(b"MTRTAIL1\0\0"), Ok(Kind::Tail));
        assert_eq!(kind_of(b"MTRTAIL2\0\0"), Ok(Kind::Tail));
        assert_eq!(kind_of(b"= Start\n"), Ok(Kind::GlibcLog));
        assert_eq!(kind_of(b"@ ./t:[0x1157] + 0x10 0x20\n"), Ok(Kind::GlibcLog));
        assert_eq!(kind_of(b"+ 0x10 0x20\n"), Ok(Kind::GlibcLog));
        assert_eq!(kind_of(b"4a0\n- 0x5568f909d= Start\n- 0x10\n"), Ok(Kind::GlibcLog));
    }

    #[track_caller]
    fn refuses(front: &[u8], found: &str) {
        assert_eq!(kind_of(front), Err(found.into()));
    }

    #[test]
    fn anything_else_is_named() {
        refuses(b"", "an empty file");
        refuses(b"\0\0", "nothing but NUL bytes");
        refuses(b"\x1f\x8b\x08", "a gzip file (unpack it first)");
        refuses(b"hello\n", "some other text");
        refuses(b"\x80\xffa\n", "some other binary file");
    }

    #[test]
    fn a_compact_trace_that_cannot_be_read_is_named_as_one() {
        let bytes = Writer::new().bytes();
        refuses(&bytes[..40], "only the first 40 bytes of a compact trace");
        refuses(b"mtr\x02", "only the first 4 bytes of a compact trace");
        let mut old = bytes.clone();
        old[3] = 1;
        refuses(&old, "a compact trace of version 1, which is too old");
        let mut damaged = bytes;
        damaged[chunk::LENGTH..][..4].fill(0xff);
        refuses(&damaged, "a compact trace without a sound chunk");
    }
}
