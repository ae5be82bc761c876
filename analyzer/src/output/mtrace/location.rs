//! WHERE -> what the script's `location` makes of it when no program is named.

use std::collections::HashMap;

/// The brackets of a WHERE, as the script's three regular expressions find them.
#[derive(Debug, PartialEq, Eq)]
struct Brackets<'a> {
    /// What stands in them, from `0x` on.
    address: &'a [u8],
    /// `[0x..]:FUNCTION`, the form of 1998: the last byte of FUNCTION, because the script's
    /// `(.)*` keeps only its last repetition. `Some(None)` where FUNCTION is empty.
    function: Option<Option<u8>>,
}

/// The script's `location` in its one-argument form, its cache included.
///
/// The cache is keyed by the address alone, so the first form in which an address is asked for
/// decides what every later WHERE with that address prints. That shows where a log has addresses
/// both with and without a function behind the brackets.
#[derive(Debug, Default)]
pub struct Locations {
    printed: HashMap<Vec<u8>, Vec<u8>, foldhash::fast::RandomState>,
}

impl Locations {
    /// Nothing cached yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the script prints for a WHERE: the address in its brackets, or all of it where it has
    /// none.
    pub fn location(&mut self, where_: &[u8]) -> Vec<u8> {
        let Some(Brackets { address, function }) = brackets(where_) else {
            return where_.to_vec();
        };
        if let Some(printed) = self.printed.get(address) {
            return printed.clone();
        }
        let printed = match function {
            None => address.to_vec(),
            Some(last) => [last.as_slice(), b" @ ", address].concat(),
        };
        self.printed.insert(address.to_vec(), printed.clone());
        printed
    }
}

/// What the script prints for a WHERE whose address it has not met before ([`Locations`] is the
/// whole truth).
pub fn script_location(where_: &[u8]) -> Vec<u8> {
    Locations::new().location(where_)
}

/// Whether the script finds an address in this WHERE.
pub(super) fn has_address(where_: &[u8]) -> bool {
    // The usual form first: this is asked of every line.
    ending_brackets(where_).is_some() || brackets(where_).is_some()
}

fn brackets(where_: &[u8]) -> Option<Brackets<'_>> {
    // /.*[[](0x[^]]*)]:(.)*/ is tried first and is greedy: the rightmost brackets with a colon.
    let mut close = None;
    for (i, &byte) in where_.iter().enumerate().rev() {
        match (byte, close) {
            (b']', _) => close = Some(i),
            (b'[', Some(end))
                if where_[i + 1..].starts_with(b"0x") && where_.get(end + 1) == Some(&b':') =>
            {
                let function = where_[end + 2..].last().copied();
                return Some(Brackets { address: &where_[i + 1..end], function: Some(function) });
            }
            _ => {}
        }
    }
    ending_brackets(where_).map(|address| Brackets { address, function: None })
}

/// /^(.*):.*[[](0x[^]]*)]$/ and /^.*[[](0x[^]]*)]$/ differ in the use of the file's name, and
/// without a program there is none. Both are greedy: the rightmost `[0x` that no other `]` ends.
fn ending_brackets(where_: &[u8]) -> Option<&[u8]> {
    let (b']', inner) = where_.split_last()? else { return None };
    for (i, &byte) in inner.iter().enumerate().rev() {
        match byte {
            b']' => return None,
            b'[' if inner[i + 1..].starts_with(b"0x") => return Some(&inner[i + 1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair was printed by the script.
    #[test]
    fn location_prints_what_the_script_prints() {
        for (where_, expected) in [
            ("", ""),
            ("./t:[0x1190]", "0x1190"),
            ("./t:(main+1d)[0x1186]", "0x1186"),
            ("[0x8048209]", "0x8048209"),
            ("./t[0x8048209]:main", "n @ 0x8048209"),
            ("[0x1]:", " @ 0x1"),
            ("[0x1[0x22]:f", "f @ 0x22"),
            ("[0x44]:a]:b", "b @ 0x44"),
            ("[0xzz]q[0x33]", "0x33"),
            ("[0x1[5]", "0x1[5"),
            ("./co:lon/[prog]:[0x1157]", "0x1157"),
            ("[0x]", "0x"),
            ("[0X1]", "[0X1]"),
            ("[0x55]x", "[0x55]x"),
            ("[0x66]]:x", "[0x66]]:x"),
            ("[1]", "[1]"),
            ("file.c:12", "file.c:12"),
            ("]", "]"),
        ] {
            let printed = script_location(where_.as_bytes());
            assert_eq!(String::from_utf8_lossy(&printed), expected, "{where_}");
        }
    }

    #[test]
    fn the_first_form_of_an_address_stays() {
        let mut locations = Locations::new();
        assert_eq!(locations.location(b"./t[0x1]:main"), b"n @ 0x1");
        assert_eq!(locations.location(b"./t:[0x1]"), b"n @ 0x1");
        assert_eq!(locations.location(b"./t:[0x2]"), b"0x2");
        assert_eq!(locations.location(b"./t[0x2]:main"), b"0x2");
    }
}
