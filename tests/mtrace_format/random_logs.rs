//! Logs of random lines, most of them sound, in all spellings that the script reads.

/// SplitMix64: the same logs on every machine for a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Few distinct addresses, so that blocks are freed, reused and duplicated.
pub(crate) fn address(random: &mut Random) -> String {
    let usual = 0x5555_5555_9000 + random.below(600) * 16;
    match random.below(40) {
        0 => "(nil)".into(),
        1 => format!("{:#X}", random.below(64)),
        2 => format!("0x{:04x}", random.below(64)),
        3 => format!("{:x}", random.below(64)),
        4 => format!("0x{:x}_{:x}", random.below(8), random.below(8)),
        5 => format!("0x1{:016x}{:x}", random.next(), random.below(4)),
        6 => format!("{:#x}", random.next()),
        7..20 => format!("{:#x}", random.below(0x400)),
        _ => format!("{usual:#x}"),
    }
}

pub(crate) fn size(random: &mut Random) -> String {
    match random.below(30) {
        0 => String::new(),
        1 => "0".into(),
        2 => "100".into(),
        3 => "0x10_0".into(),
        4 => format!("{:#x}", random.next()),
        5 => format!("0x{:x}{:x}", random.next(), random.next()),
        6 => random.pick(&["0xg", "x1", "0X2F", "_1", "1__2", "0x", "-5", "Z", "0x0x1"]).into(),
        _ => format!("{:#x}", random.below(1 << 30)),
    }
}

/// A place with `file` in it, in all dialects since 1998 and some that are none.
fn place(random: &mut Random, file: &str) -> String {
    let address = random.below(48);
    match random.below(24) {
        0 => format!("{file}[{address:#x}]:main{address}"),
        1 => format!("{file}:[{address:#x}]:"),
        2 => format!("{file}.c:{address}"),
        3 => format!("[{address:#x}]"),
        4 => format!("[{address:#x}]:f"),
        5 => format!("{file}:[{address:x}]"),
        6 => format!("{file}[0x][[{address:#x}]]"),
        7 => format!("{file}:(a[0x1]b+1d)[{address:#x}]"),
        8..12 => format!("{file}:(main+{address:x})[{address:#x}]"),
        12..15 => format!("{file}:(_Znwm+{address:#x})[0x7ffff7e5{address:04x}]"),
        _ => format!("{file}:[{address:#x}]"),
    }
}

const FILES: [&str; 7] = [
    "./t",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "t",
    "./co:lon/p",
    "./br[0x9]k",
    "é\u{85}\u{a0}",
    "",
];

fn line(random: &mut Random) -> Vec<u8> {
    let blank = |random: &mut Random| if random.one_in(50) { "\t  " } else { " " };
    let mut line = String::new();
    if random.one_in(60) {
        line += random.pick(&[" ", "\t", "\u{b}", "\u{c}", "\r"]);
    }
    if !random.one_in(12) {
        let file = random.pick(&FILES);
        line = format!("{line}@{}{}{}", blank(random), place(random, file), blank(random));
    }
    let address = address(random);
    line += &match random.below(20) {
        0..7 => format!("+{}{address}{}{}", blank(random), blank(random), size(random)),
        7..12 => format!("-{}{address}", blank(random)),
        12..15 => format!("<{}{address}", blank(random)),
        15..18 => format!(">{}{address}{}{}", blank(random), blank(random), size(random)),
        18 => format!("! {address} {}", size(random)),
        _ => random
            .pick(&["= Start", "= End", "", "# pid 4711", "? 0x1 0x2", "+", "-", "<", ">"])
            .into(),
    };
    if random.one_in(60) {
        line += random.pick(&["\r", " ", " extra", "\t0x1 0x2", "\0", "\0\0\0"]);
    }
    line.into_bytes()
}

/// What a crash, a fork or a full disk makes of a line, and bytes that no one wrote.
fn damage(random: &mut Random, line: &mut Vec<u8>) {
    let at = random.below(line.len() + 1);
    match random.below(8) {
        0 => line.truncate(at),
        1 => drop(line.drain(..at)),
        2 => line.insert(at, random.next() as u8),
        3 => line.insert(
            at,
            *random.pick(&[b" ", b"@", b"[", b"]", b":", b"\0", b"\r", b"x"]).first().unwrap(),
        ),
        4 if at < line.len() => line[at] = random.next() as u8,
        5 if at < line.len() => drop(line.remove(at)),
        6 => line.extend_from_within(at..),
        _ => {
            line.truncate(at);
            line.extend(self::line(random));
        }
    }
}

/// Whether a line may be one of a path with blanks that the script drops or misreads: a whole place
/// and an operation come later than the third column, and no place before. On all others, torn
/// ones too, we must agree.
fn may_have_blanks_in_its_path(line: &[u8]) -> bool {
    let columns: Vec<&[u8]> = line
        .split(|byte| matches!(byte, b' ' | b'\t'..=b'\r'))
        .filter(|column| !column.is_empty())
        .collect();
    let operation = |i: usize| {
        columns.get(i).is_some_and(|column| matches!(column, [b'+' | b'-' | b'<' | b'>' | b'!']))
    };
    let place = |i: usize| columns[i].windows(3).any(|bytes| bytes == b"[0x");
    let misread = || !place(1) && !columns[1..].iter().any(|column| column.ends_with(b"@"));
    columns.first() == Some(&&b"@"[..])
        && (!operation(2) || misread())
        && (2..columns.len()).any(|i| {
            place(i) && columns[i].ends_with(b"]") && operation(i + 1) && !(1..i).any(place)
        })
}

pub(crate) fn random_log(seed: u64) -> (Vec<Vec<u8>>, usize) {
    let mut random = Random(seed);
    let (count, damaged) = (random.below(6000), [0, 3, 20, 200][random.below(4)]);
    let (mut lines, mut left_out) = (Vec::new(), 0);
    for _ in 0..count {
        let mut line = line(&mut random);
        if damaged != 0 && random.one_in(damaged) {
            damage(&mut random, &mut line);
        }
        // A damaged line may be several, and so may be those it becomes part of.
        if line.split(|&byte| byte == b'\n').any(may_have_blanks_in_its_path) {
            left_out += 1;
        } else {
            lines.push(line);
        }
    }
    (lines, left_out)
}
