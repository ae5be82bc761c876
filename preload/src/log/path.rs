//! The name of the log: placeholders, and what keeps it from another process's log.

use crate::config;
use crate::environment;
use crate::global::{Path, Scratch};
use crate::sys;

/// Replaces `%p %e %t %h %n %q{VAR} %%` in `template` (docs/log-format.md, "Names"). `number` is
/// what `%n` stands for. An unknown placeholder stays as it is.
pub(super) fn expand(template: &[u8], number: u64, out: &mut Path) {
    out.clear();
    let mut rest = template;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            out.push(&[*byte]);
            continue;
        }
        let Some((placeholder, tail)) = tail.split_first() else {
            out.push(b"%");
            return;
        };
        rest = tail;
        match placeholder {
            b'%' => out.push(b"%"),
            b'p' => out.push_decimal(sys::getpid() as u64),
            b't' => out.push_decimal(sys::wall_clock().0),
            b'n' => out.push_decimal(number),
            b'e' => push_executable(out),
            b'h' => push_host(out),
            b'q' if tail.first() == Some(&b'{') && tail.contains(&b'}') => {
                let end = tail.iter().position(|byte| *byte == b'}').unwrap_or(0);
                push_name(
                    environment::variable(tail.get(1..end).unwrap_or(&[])).unwrap_or(&[]),
                    out,
                );
                rest = tail.get(end + 1..).unwrap_or(&[]);
            }
            other => out.push(&[b'%', *other]),
        }
    }
}

/// Whether `%n` occurs in `template`.
pub(super) fn is_numbered(template: &[u8]) -> bool {
    let mut bytes = template.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' && bytes.next() == Some(&b'n') {
            return true;
        }
    }
    false
}

/// A value inside a file name: a slash would lead elsewhere.
fn push_name(name: &[u8], out: &mut Path) {
    name.iter().for_each(|byte| out.push(&[if *byte == b'/' { b'_' } else { *byte }]));
}

fn push_executable(out: &mut Path) {
    let Some(mut buffer) = Scratch::<{ libc::PATH_MAX as usize }>::new() else { return };
    let path = match sys::readlink(c"/proc/self/exe", buffer.space()) {
        Ok(path) => path,
        Err(_) => config::get().program_name.as_bytes(),
    };
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    push_name(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path), out);
}

fn push_host(out: &mut Path) {
    let Some(mut buffer) = Scratch::<512>::new() else { return };
    if let Ok(name) = sys::host_name(buffer.space()) {
        push_name(name, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(template: &str) -> String {
        let mut out = Path::EMPTY;
        expand(template.as_bytes(), 7, &mut out);
        String::from_utf8(out.as_bytes().to_vec()).expect("UTF-8")
    }

    #[test]
    fn placeholders_are_replaced() {
        let pid = std::process::id();
        assert_eq!(expanded("/tmp/a.%p.%n.log"), format!("/tmp/a.{pid}.7.log"));
        assert_eq!(expanded("100%%"), "100%");
        assert_eq!(expanded("%x%"), "%x%");
    }

    #[test]
    fn the_host_is_the_one_that_the_kernel_names() {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
        assert_eq!(expanded("%h"), host.trim_end());
    }

    #[test]
    fn a_variable_cannot_lead_into_another_folder() {
        let home = std::env::var("HOME").expect("HOME").replace('/', "_");
        assert_eq!(expanded("/tmp/%q{HOME}"), format!("/tmp/{home}"));
        assert_eq!(expanded("/tmp/%q{MTR_NO_SUCH_VARIABLE}x"), "/tmp/x");
        assert_eq!(expanded("/tmp/%q{open"), "/tmp/%q{open");
    }

    #[test]
    fn the_number_is_found_but_not_behind_an_escaped_percent_sign() {
        assert!(is_numbered(b"a%p%n"));
        assert!(!is_numbered(b"a%%n"));
    }
}
