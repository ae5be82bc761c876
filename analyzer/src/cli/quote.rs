//! Names as a shell takes them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// `name` so that a shell reads it as one word that means `name`.
pub fn quoted(name: &OsStr) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_./,:+@%=".contains(b);
    let bytes = name.as_bytes();
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
        _ => {
            let escape = |b: &u8| match b {
                b'\'' | b'\\' => format!("\\{}", char::from(*b)),
                b' '..=b'~' => char::from(*b).to_string(),
                b => format!("\\{b:03o}"),
            };
            format!("$'{}'", bytes.iter().map(escape).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        let text = |name: &[u8]| quoted(OsStr::from_bytes(name));
        assert_eq!(text(b"/tmp/mtr.a.5.mtrace"), "/tmp/mtr.a.5.mtrace");
        assert_eq!(text(b"a b"), "'a b'");
        assert_eq!(text(b"it's $HOME"), "'it'\\''s $HOME'");
        assert_eq!(text(b"\xff\n'"), "$'\\377\\012\\''");
        assert_eq!(text(b""), "''");
    }
}
