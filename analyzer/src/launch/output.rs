//! Where the traces go.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What a template may hold, for messages.
const PLACEHOLDERS: &str = "%p (pid), %e (program), %t (time), %h (host), %n (number), %q{VAR} (environment \
                            variable), %% (a percent sign)";

/// A name for traces, absolute, with `%p`, `%e` and the like for libmtr.so to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(OsString);

impl Template {
    /// What a command line or environment names as template, or what was expected instead.
    pub fn parse(name: OsString) -> Result<PathBuf, String> {
        let mut rest = match name.as_bytes() {
            [] => return Err("expected the name of a file, got an empty one".into()),
            [.., b'/'] => return Err("expected the name of a file, got that of a folder".into()),
            bytes => bytes,
        };
        while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
            let placeholder = &rest[at..];
            let length = match placeholder {
                [_, b'p' | b'e' | b't' | b'h' | b'n' | b'%', ..] => 2,
                [_, b'q', b'{', name @ ..] if name.contains(&b'}') => 3,
                _ => {
                    let shown = String::from_utf8_lossy(placeholder);
                    let shown = shown.chars().take(2).collect::<String>();
                    return Err(format!("expected one of {PLACEHOLDERS}, got \"{shown}\""));
                }
            };
            rest = &placeholder[length..];
        }
        Ok(name.into())
    }

    /// The template called `name`, relative to `folder`.
    pub fn new(name: &Path, folder: &Path) -> Template {
        if name.is_absolute() {
            return Template(name.into());
        }
        // A percent sign in the folder's own name is meant as it is.
        let mut bytes = Vec::new();
        for byte in folder.as_os_str().as_bytes() {
            bytes.push(*byte);
            if *byte == b'%' {
                bytes.push(b'%');
            }
        }
        let folder = PathBuf::from(OsString::from_vec(bytes));
        Template(folder.join(name).into_os_string())
    }

    /// Value of MTR_OUTPUT.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// The one file that it always stands for; `None` when each process has a name of its own.
    pub fn fixed(&self) -> Option<PathBuf> {
        let mut name = Vec::new();
        let mut bytes = self.0.as_bytes().iter().copied();
        while let Some(byte) = bytes.next() {
            match byte {
                b'%' => match bytes.next()? {
                    b'%' => name.push(b'%'),
                    b'q' => {
                        let braced: Vec<u8> = bytes.by_ref().take_while(|b| *b != b'}').collect();
                        let variable = OsStr::from_bytes(braced.strip_prefix(b"{")?);
                        let value = env::var_os(variable).unwrap_or_default().into_vec();
                        // As libmtr.so does it.
                        name.extend(value.iter().map(|b| if *b == b'/' { b'_' } else { *b }));
                    }
                    _ => return None,
                },
                byte => name.push(byte),
            }
        }
        Some(PathBuf::from(OsString::from_vec(name)))
    }

    /// Files that may be traces of this template: those in its folder, and below it as deep as
    /// the first part of its name that varies.
    pub fn candidates(&self) -> Vec<PathBuf> {
        let path = Path::new(&self.0);
        let parts: Vec<_> = path.components().collect();
        let varies = |part: &std::path::Component<'_>| {
            part.as_os_str().as_bytes().windows(2).any(|w| w[0] == b'%' && w[1] != b'%')
        };
        let fixed = parts.iter().position(varies).unwrap_or(parts.len()).min(parts.len() - 1);
        let folder: PathBuf = parts[..fixed].iter().collect();
        let folder = folder.as_os_str().as_bytes().to_vec();
        let folder = PathBuf::from(OsString::from_vec(unescaped(&folder)));
        let mut files = Vec::new();
        list(&folder, parts.len() - fixed - 1, &mut files);
        files
    }
}

/// `%%` stands for `%`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        plain.push(byte);
        if byte == b'%' {
            bytes.next();
        }
    }
    plain
}

fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(found) = fs::read_dir(folder) else { return };
    for entry in found.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() && depth == 0 && !is_unfinished(&entry.file_name()) => {
                files.push(entry.path());
            }
            Ok(kind) if kind.is_dir() && depth > 0 => list(&entry.path(), depth - 1, files),
            _ => {}
        }
    }
}

/// Whether a process that is just starting is about to give this file another name.
fn is_unfinished(name: &OsStr) -> bool {
    let id = name.as_bytes().strip_prefix(mtr_format::UNFINISHED.as_bytes());
    id.is_some_and(|id| id.len() == 16 && id.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(asked: &str) -> Template {
        Template::new(Path::new(asked), Path::new("/home/100%"))
    }

    #[test]
    fn a_name_of_placeholders_that_are_known_is_taken() {
        for name in ["t", "/tmp/%p/%e.%t-%h.%n", "100%%", "%q{HOME}%q{A}.%%p", "\u{eb}%p"] {
            assert_eq!(Template::parse(name.into()), Ok(name.into()));
        }
    }

    #[test]
    fn any_other_placeholder_is_refused_with_those_that_are_known() {
        let cases = [
            ("%z", "%z"),
            ("a%", "%"),
            ("%q", "%q"),
            ("%q{HOME", "%q"),
            ("%p%%%i", "%i"),
            ("%\u{eb}", "%\u{eb}"),
        ];
        for (name, shown) in cases {
            let message = Template::parse(name.into()).unwrap_err();
            assert!(message.starts_with("expected one of %p (pid), %e (program), "), "{message}");
            assert!(
                message.ends_with(&format!("%% (a percent sign), got \"{shown}\"")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_name_that_can_be_no_file_s_is_refused() {
        assert!(Template::parse("".into()).unwrap_err().ends_with("got an empty one"));
        assert!(Template::parse("out/".into()).unwrap_err().ends_with("got that of a folder"));
    }

    #[test]
    fn a_relative_name_is_below_the_folder_whatever_that_is_called() {
        assert_eq!(template("t.%p").as_os_str(), "/home/100%%/t.%p");
        assert_eq!(template("/tmp/t").as_os_str(), "/tmp/t");
        let plain = Template::new(Path::new("mtr.%e.%p.mtr"), Path::new("/home"));
        assert_eq!(plain.as_os_str(), "/home/mtr.%e.%p.mtr");
    }

    #[test]
    fn a_name_that_does_not_vary_is_one_file() {
        assert_eq!(template("t").fixed(), Some("/home/100%/t".into()));
        assert_eq!(template("t.%p").fixed(), None);
        assert_eq!(template("t%q{MTR_NO_SUCH_VARIABLE}").fixed(), Some("/home/100%/t".into()));
        let folder = env!("CARGO_MANIFEST_DIR").replace('/', "_");
        let expected = PathBuf::from(format!("/home/100%/t{folder}.{folder}"));
        let twice = "t%q{CARGO_MANIFEST_DIR}.%q{CARGO_MANIFEST_DIR}";
        assert_eq!(template(twice).fixed(), Some(expected));
    }

    #[test]
    fn candidates_lie_where_the_template_can_put_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("4711")).unwrap();
        fs::write(folder.path().join("a.mtrace"), "").unwrap();
        fs::write(folder.path().join("4711/b.mtrace"), "").unwrap();
        let found = |asked: &str| Template::new(Path::new(asked), folder.path()).candidates();
        assert_eq!(found("mtr.%p"), [folder.path().join("a.mtrace")]);
        assert_eq!(found("%p/mtr"), [folder.path().join("4711/b.mtrace")]);
        fs::write(folder.path().join(".mtr-9911ef0acc185177"), "").unwrap();
        assert_eq!(found("mtr.%p"), [folder.path().join("a.mtrace")], "not one without its name");
        fs::write(folder.path().join("4711/.mtr-4711"), "").unwrap();
        assert_eq!(found("%p/mtr").len(), 2, "that is nobody's unfinished one");
    }
}
