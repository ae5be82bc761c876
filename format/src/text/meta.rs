//! The `#` lines of our logs, read.

/// What a `#` line says. Names are escaped still; `escape::unescape` undoes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta<'a> {
    /// `# mtr log VERSION`.
    Version(u64),
    /// `# mtr trace VERSION`, in a compact trace.
    TraceVersion(u64),
    /// `# id HEX`.
    Id(u64),
    /// `# session HEX`.
    Session(u64),
    /// `# pid PID`.
    Pid(u64),
    /// `# started SEC.NSEC TICKS`.
    Started {
        /// Wall-clock seconds since 1970.
        seconds: u64,
        /// And nanoseconds.
        nanoseconds: u64,
        /// Start time of the process, field 22 of /proc/PID/stat.
        ticks: u64,
    },
    /// `# program PATH`.
    Program(&'a [u8]),
    /// `# arguments ARG...`, separated by blanks.
    Arguments(&'a [u8]),
    /// `# directory PATH`.
    Directory(&'a [u8]),
    /// `# addresses absolute` (false) or `relative` (true).
    RelativeAddresses(bool),
    /// `# start process` (false) or `mtrace` (true).
    StartByMtrace(bool),
    /// `# stacks caller`, in a compact trace: of each call stack only the caller was recorded.
    CallerOnly,
    /// `# preceded NAME`: the module that takes calls of malloc before they can be recorded.
    Preceded(&'a [u8]),
    /// `# operators standard`: new and delete are those of a C++ runtime or an allocator.
    StandardOperators,
    /// `# parent PID POSITION PATH`.
    Parent {
        /// Process ID of the parent.
        pid: u64,
        /// Byte position in its log at the fork.
        position: Option<u64>,
        /// Its log.
        path: &'a [u8],
    },
    /// `# forked beside threads`: the parent had others at the fork, and what they did at that moment
    /// may stand on the other side of POSITION.
    ForkedBesideThreads,
    /// `# earlier PATH`.
    Earlier(&'a [u8]),
    /// `# module START END BIAS BUILDID PATH NAME`.
    Module {
        /// AVMA of the first mapping.
        start: u64,
        /// AVMA behind the last mapping.
        end: u64,
        /// AVMA - SVMA.
        bias: u64,
        /// Build ID in hex, empty for `-`.
        build_id: &'a [u8],
        /// Path of the file.
        path: &'a [u8],
        /// Name in the places of records.
        name: &'a [u8],
    },
    /// `# unload START END`.
    Unload {
        /// AVMA of the first mapping.
        start: u64,
        /// AVMA behind the last mapping.
        end: u64,
    },
    /// `# lost RECORDS ERRNO SINCE`.
    Lost {
        /// Records that could not be written so far.
        records: u64,
        /// Why.
        errno: u64,
        /// Nanoseconds from the start of the log to the first of them.
        since: Option<u64>,
    },
    /// `# unsaved STREAMS` or `# unsaved all`: there was no file for what so many streams recorded
    /// last. Without `# exit` it is missing.
    Unsaved {
        /// How many; `u64::MAX` for all.
        streams: u64,
    },
    /// `# untraced CHILDREN ERRNO PROGRAMS`.
    Untraced {
        /// Children made by fork that have no trace.
        children: u64,
        /// Why the first has none.
        errno: u64,
        /// Programs that were started without the library.
        programs: u64,
    },
    /// `# left PATH`: the process executes this program, without the library.
    Left(&'a [u8]),
    /// `# stayed`: it has failed to.
    Stayed,
    /// `# exit`.
    Exit,
    /// `# closed BYTES CHUNKS STAMP TIME`, in a compact trace.
    Closed(Closed),
    /// What a log that was made from another trace says of what was missing there.
    Source(Source<'a>),
    /// A comment, or a line of a newer version.
    Unknown,
}

/// What the file of a compact trace had when it was whole without its tail. Zeros before that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closed {
    /// Its bytes.
    pub bytes: u64,
    /// For each stream, how many chunks it had begun, added up.
    pub chunks: u64,
    /// A stamp, 0 when its time is not known.
    pub stamp: u64,
    /// The time of this stamp, in nanoseconds since the trace began.
    pub time: u64,
}

/// What was missing, in a trace that a log was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// `# missing CHUNKS SINCE`: so many chunks so far, the first of them since so many nanoseconds.
    Missing {
        /// How many.
        chunks: u64,
        /// Nanoseconds from the start to the first of them.
        since: Option<u64>,
    },
    /// `# damaged CHUNKS BYTES`.
    Damaged {
        /// Chunks that could not be read.
        chunks: u64,
        /// About how many bytes.
        bytes: u64,
    },
    /// `# meaningless RECORDS`: records that referred to what was missing.
    Meaningless(u64),
    /// `# hole BYTES`: in this place.
    Hole(u64),
    /// `# torn LINES`: lines that were stored only in part, so far.
    Torn(u64),
    /// `# cut line`: the last line, which was not whole, was left out.
    CutLine,
    /// `# cut chunk`: it ended inside of a chunk.
    CutChunk,
    /// `# cut THERE WHOLE`: so many bytes of it were there, of so many.
    Cut {
        /// Bytes that were there.
        there: u64,
        /// Bytes that it had had.
        whole: u64,
    },
    /// `# tail missing`.
    TailMissing,
    /// `# tail unused REASON`.
    TailUnused(&'a [u8]),
    /// `# streams STREAMS`: threads at once, about, whose events are in order only where they have a
    /// block in common.
    Streams(u64),
    /// `# running`: its process ran when it was read.
    Running,
}

impl<'a> Meta<'a> {
    /// Reads a line that begins with `#`; the error says what was expected.
    pub fn parse(line: &'a [u8]) -> Result<Meta<'a>, &'static str> {
        let text = line.strip_prefix(b"#").unwrap_or(line);
        let text = text.strip_prefix(b" ").unwrap_or(text);
        let mut values = Values { rest: text };
        match values.word() {
            b"mtr" => match values.word() {
                b"log" => values.number().map(Meta::Version).ok_or("\"# mtr log\" and a version"),
                b"trace" => {
                    values.number().map(Meta::TraceVersion).ok_or("\"# mtr trace\" and a version")
                }
                _ => Ok(Meta::Unknown),
            },
            b"id" => values.hex().map(Meta::Id).ok_or("\"# id\" and 16 hex digits"),
            b"session" => values.hex().map(Meta::Session).ok_or("\"# session\" and hex digits"),
            b"pid" => values.number().map(Meta::Pid).ok_or("\"# pid\" and a process ID"),
            b"started" => started(&mut values).ok_or("\"# started SEC.NSEC TICKS\""),
            b"program" => Ok(Meta::Program(values.rest)),
            b"arguments" => Ok(Meta::Arguments(values.rest)),
            b"directory" => Ok(Meta::Directory(values.rest)),
            b"addresses" => match values.word() {
                b"absolute" => Ok(Meta::RelativeAddresses(false)),
                b"relative" => Ok(Meta::RelativeAddresses(true)),
                _ => Err("\"# addresses absolute\" or \"# addresses relative\""),
            },
            b"start" => match values.word() {
                b"process" => Ok(Meta::StartByMtrace(false)),
                b"mtrace" => Ok(Meta::StartByMtrace(true)),
                _ => Err("\"# start process\" or \"# start mtrace\""),
            },
            b"stacks" if values.rest == b"caller" => Ok(Meta::CallerOnly),
            b"preceded" => Ok(Meta::Preceded(values.rest)),
            b"operators" if values.rest == b"standard" => Ok(Meta::StandardOperators),
            b"parent" => parent(&mut values).ok_or("\"# parent PID POSITION PATH\""),
            b"forked" if values.rest == b"beside threads" => Ok(Meta::ForkedBesideThreads),
            b"earlier" => Ok(Meta::Earlier(values.rest)),
            b"module" => module(&mut values).ok_or("\"# module START END BIAS BUILDID PATH NAME\""),
            b"unload" => unload(&mut values).ok_or("\"# unload START END\""),
            b"lost" => lost(&mut values).ok_or("\"# lost RECORDS ERRNO\""),
            b"unsaved" if values.rest == b"all" => Ok(Meta::Unsaved { streams: u64::MAX }),
            b"unsaved" => match values.number() {
                Some(streams) => Ok(Meta::Unsaved { streams }),
                None => Err("\"# unsaved STREAMS\""),
            },
            b"untraced" => untraced(&mut values).ok_or("\"# untraced CHILDREN ERRNO\""),
            b"left" => Ok(Meta::Left(values.rest)),
            b"stayed" => Ok(Meta::Stayed),
            b"exit" => Ok(Meta::Exit),
            b"closed" => {
                closed(&mut values).map(Meta::Closed).ok_or("\"# closed BYTES CHUNKS STAMP TIME\"")
            }
            word => source(word, &mut values),
        }
    }
}

/// The lines of a log that was made from another trace.
fn source<'a>(word: &[u8], values: &mut Values<'a>) -> Result<Meta<'a>, &'static str> {
    let (source, expected) = match word {
        b"missing" => (missing(values), "\"# missing CHUNKS SINCE\""),
        b"damaged" => (damaged(values), "\"# damaged CHUNKS BYTES\""),
        b"meaningless" => (values.number().map(Source::Meaningless), "\"# meaningless RECORDS\""),
        b"hole" => (values.number().map(Source::Hole), "\"# hole BYTES\""),
        b"torn" => (values.number().map(Source::Torn), "\"# torn LINES\""),
        b"cut" => (cut(values), "\"# cut\" and a line, a chunk or THERE WHOLE"),
        b"streams" => (values.number().map(Source::Streams), "\"# streams STREAMS\""),
        b"running" if values.rest.is_empty() => (Some(Source::Running), ""),
        b"tail" => match values.word() {
            b"missing" => (Some(Source::TailMissing), ""),
            b"unused" => (Some(Source::TailUnused(values.rest)), ""),
            _ => return Ok(Meta::Unknown),
        },
        _ => return Ok(Meta::Unknown),
    };
    source.map(Meta::Source).ok_or(expected)
}

fn missing<'a>(values: &mut Values<'_>) -> Option<Source<'a>> {
    Some(Source::Missing { chunks: values.number()?, since: values.number() })
}

fn damaged<'a>(values: &mut Values<'_>) -> Option<Source<'a>> {
    Some(Source::Damaged { chunks: values.number()?, bytes: values.number()? })
}

fn cut<'a>(values: &mut Values<'_>) -> Option<Source<'a>> {
    match values.rest {
        b"line" => Some(Source::CutLine),
        b"chunk" => Some(Source::CutChunk),
        _ => Some(Source::Cut { there: values.number()?, whole: values.number()? }),
    }
}

fn started<'a>(values: &mut Values<'a>) -> Option<Meta<'a>> {
    let time = values.word();
    let point = time.iter().position(|b| *b == b'.')?;
    let seconds = number(&time[..point])?;
    let nanoseconds = number(&time[point + 1..])?;
    Some(Meta::Started { seconds, nanoseconds, ticks: values.number()? })
}

fn parent<'a>(values: &mut Values<'a>) -> Option<Meta<'a>> {
    let pid = values.number()?;
    let position = match values.word() {
        b"-" => None,
        position => Some(number(position)?),
    };
    Some(Meta::Parent { pid, position, path: values.rest })
}

fn module<'a>(values: &mut Values<'a>) -> Option<Meta<'a>> {
    let (start, end, bias) = (values.number()?, values.number()?, values.number()?);
    let build_id = match values.word() {
        b"-" => &[],
        id if id.iter().all(u8::is_ascii_hexdigit) && id.len() % 2 == 0 => id,
        _ => return None,
    };
    let path = values.word();
    Some(Meta::Module { start, end, bias, build_id, path, name: values.word() })
}

fn unload<'a>(values: &mut Values<'a>) -> Option<Meta<'a>> {
    Some(Meta::Unload { start: values.number()?, end: values.number()? })
}

fn untraced<'a>(values: &mut Values<'a>) -> Option<Meta<'a>> {
    let (children, errno) = (values.number()?, values.number()?);
    // Older logs do not count them.
    Some(Meta::Untraced { children, errno, programs: values.number().unwrap_or(0) })
}

fn lost<'a>(values: &mut Values<'a>) -> Option<Meta<'a>> {
    let (records, errno) = (values.number()?, values.number()?);
    Some(Meta::Lost { records, errno, since: values.number() })
}

fn closed(values: &mut Values<'_>) -> Option<Closed> {
    let (bytes, chunks) = (values.number()?, values.number()?);
    Some(Closed { bytes, chunks, stamp: values.number()?, time: values.number()? })
}

/// The values of a line that are not read yet.
struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Values<'a> {
    /// Up to the next blank; empty at the end and for an empty value.
    fn word(&mut self) -> &'a [u8] {
        let length = self.rest.iter().position(|b| *b == b' ').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest.get(1..).unwrap_or_default();
        word
    }

    fn number(&mut self) -> Option<u64> {
        number(self.word())
    }

    fn hex(&mut self) -> Option<u64> {
        digits(self.word(), 16)
    }
}

/// Decimal unless it begins with `0x`.
fn number(word: &[u8]) -> Option<u64> {
    match word {
        [b'0', b'x', hex @ ..] => digits(hex, 16),
        decimal => digits(decimal, 10),
    }
}

fn digits(word: &[u8], radix: u32) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |value, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_format_document_is_read() {
        let lines: [(&str, Meta<'_>); 25] = [
            ("# mtr log 1", Meta::Version(1)),
            ("# mtr trace 1", Meta::TraceVersion(1)),
            ("# id 1f2e3d4c5b6a7988", Meta::Id(0x1f2e_3d4c_5b6a_7988)),
            ("# pid 4711", Meta::Pid(4711)),
            (
                "# started 1790000000.123456789 88231",
                Meta::Started { seconds: 1_790_000_000, nanoseconds: 123_456_789, ticks: 88_231 },
            ),
            ("# program /home/ann/t\\040mtrace", Meta::Program(b"/home/ann/t\\040mtrace")),
            ("# arguments ./t -v", Meta::Arguments(b"./t -v")),
            ("# addresses absolute", Meta::RelativeAddresses(false)),
            ("# start mtrace", Meta::StartByMtrace(true)),
            ("# stacks caller", Meta::CallerOnly),
            ("# preceded ./t", Meta::Preceded(b"./t")),
            ("# operators standard", Meta::StandardOperators),
            ("# forked beside threads", Meta::ForkedBesideThreads),
            ("# parent 12 - t.mtrace", Meta::Parent { pid: 12, position: None, path: b"t.mtrace" }),
            (
                "# module 0x1000 0x2000 0x0 9d1ce2 /bin/t ./t",
                Meta::Module {
                    start: 0x1000,
                    end: 0x2000,
                    bias: 0,
                    build_id: b"9d1ce2",
                    path: b"/bin/t",
                    name: b"./t",
                },
            ),
            ("# unsaved all", Meta::Unsaved { streams: u64::MAX }),
            ("# unsaved 42", Meta::Unsaved { streams: 42 }),
            ("# lost 17 28", Meta::Lost { records: 17, errno: 28, since: None }),
            (
                "# lost 00000000000000000017 00028 00000000000000000900",
                Meta::Lost { records: 17, errno: 28, since: Some(900) },
            ),
            ("# untraced 2 13", Meta::Untraced { children: 2, errno: 13, programs: 0 }),
            ("# untraced 0 0 7", Meta::Untraced { children: 0, errno: 0, programs: 7 }),
            ("# left /bin/ls", Meta::Left(b"/bin/ls")),
            ("# stayed", Meta::Stayed),
            ("# exit", Meta::Exit),
            (
                "# closed 00983040 0030 7 08",
                Meta::Closed(Closed { bytes: 983_040, chunks: 30, stamp: 7, time: 8 }),
            ),
        ];
        for (line, meta) in lines {
            assert_eq!(Meta::parse(line.as_bytes()), Ok(meta), "{line}");
        }
    }

    #[test]
    fn what_a_log_says_of_the_trace_that_it_was_made_from_is_read() {
        let lines: [(&str, Source<'_>); 13] = [
            ("# missing 3 1500", Source::Missing { chunks: 3, since: Some(1500) }),
            ("# missing 3", Source::Missing { chunks: 3, since: None }),
            ("# damaged 2 500", Source::Damaged { chunks: 2, bytes: 500 }),
            ("# meaningless 7", Source::Meaningless(7)),
            ("# hole 8192", Source::Hole(8192)),
            ("# torn 1", Source::Torn(1)),
            ("# cut line", Source::CutLine),
            ("# cut chunk", Source::CutChunk),
            ("# cut 5 6", Source::Cut { there: 5, whole: 6 }),
            ("# tail missing", Source::TailMissing),
            ("# tail unused t:\\040no", Source::TailUnused(b"t:\\040no")),
            ("# streams 2", Source::Streams(2)),
            ("# running", Source::Running),
        ];
        for (line, source) in lines {
            assert_eq!(Meta::parse(line.as_bytes()), Ok(Meta::Source(source)), "{line}");
        }
        assert_eq!(Meta::parse(b"# tail wagged"), Ok(Meta::Unknown));
        assert!(Meta::parse(b"# cut 5").is_err() && Meta::parse(b"# hole x").is_err());
    }

    #[test]
    fn a_comment_and_a_word_of_a_newer_version_are_unknown() {
        assert_eq!(Meta::parse(b"#"), Ok(Meta::Unknown));
        assert_eq!(Meta::parse(b"# colour blue"), Ok(Meta::Unknown));
    }

    #[test]
    fn a_known_word_with_wrong_values_says_what_was_expected() {
        assert_eq!(Meta::parse(b"# unload 0x1000"), Err("\"# unload START END\""));
        assert_eq!(Meta::parse(b"# pid x"), Err("\"# pid\" and a process ID"));
    }
}
