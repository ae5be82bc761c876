//! Symbol of a compiler -> name as in the source.
//!
//! A mangled name may describe a text that is exponentially longer than itself, and nobody reads
//! those: names that get longer than [`LONGEST_NAME`] stay as they are.

use std::fmt::{self, Write};

/// Longest symbol that is tried, and longest name that is made of one, in bytes.
const LONGEST_NAME: usize = 16 << 10;

/// The demangled form of a C++ or Rust symbol; any other name as it is. Rust's hashes are left out.
pub(super) fn demangle(raw: &str) -> String {
    if raw.len() > LONGEST_NAME {
        return raw.to_owned();
    }
    let demangled = if is_rust(raw) { demangle_rust(raw) } else { demangle_cpp(raw) };
    demangled.unwrap_or_else(|| raw.to_owned())
}

/// Rust's old mangling is that of C++ with a last name of "h" and 16 hex digits.
fn is_rust(raw: &str) -> bool {
    if raw.starts_with("_R") {
        return true;
    }
    // Behind the E there may be a suffix of LLVM's: ".llvm.123".
    let Some(end) = raw.rfind("17h").filter(|_| raw.starts_with("_ZN")) else { return false };
    let rest = &raw.as_bytes()[end + 3..];
    rest.len() > 16 && rest[..16].iter().all(u8::is_ascii_hexdigit) && rest[16] == b'E'
}

fn demangle_rust(raw: &str) -> Option<String> {
    let name = rustc_demangle::try_demangle(raw).ok()?;
    let mut out = Bounded(String::new());
    write!(out, "{name:#}").ok()?;
    Some(out.0)
}

fn demangle_cpp(raw: &str) -> Option<String> {
    if !raw.starts_with("_Z") && !raw.starts_with("_GLOBAL_") {
        return None;
    }
    let symbol = cpp_demangle::BorrowedSymbol::new(raw.as_bytes()).ok()?;
    let mut out = Bounded(String::new());
    symbol.structured_demangle(&mut out, &cpp_demangle::DemangleOptions::default()).ok()?;
    Some(out.0)
}

/// Text that refuses to grow beyond [`LONGEST_NAME`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > LONGEST_NAME {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_c_stay() {
        for name in ["main", "_Zzz", "_", "", "foo.part.0", "_RNot", "Zo\u{eb}"] {
            assert_eq!(demangle(name), name);
        }
    }

    #[test]
    fn names_of_cpp() {
        assert_eq!(demangle("_ZN3FooC1Ei"), "Foo::Foo(int)");
        assert_eq!(demangle("_Znwm"), "operator new(unsigned long)");
        assert_eq!(demangle("_Z3barIiEvT_"), "void bar<int>(int)");
    }

    #[test]
    fn names_of_rust_lose_the_hash() {
        assert_eq!(
            demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"),
            "core::fmt::Write::write_fmt"
        );
        assert_eq!(demangle("_ZN3foo3bar17h0123456789abcdefE.llvm.99"), "foo::bar");
        assert_eq!(demangle("_RNvC6_123foo3bar"), "123foo::bar");
    }

    #[test]
    fn a_name_that_would_explode_stays_raw() {
        // Each pair<T, T> refers twice to the one before it.
        let mut raw = "_Z1f".to_owned();
        raw.push_str("St4pairIiiE");
        for id in "0123456789ABCDEFGHIJKLMNOPQRS".chars() {
            raw.push_str(&format!("S_IS{id}_S{id}_E"));
        }
        let start = std::time::Instant::now();
        assert_eq!(demangle(&raw), raw);
        assert!(start.elapsed().as_secs() < 2);
    }

    #[test]
    fn a_monstrous_symbol_is_not_tried() {
        let raw = format!("_Z{}", "N".repeat(1 << 20));
        assert_eq!(demangle(&raw), raw);
    }
}
