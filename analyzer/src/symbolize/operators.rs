//! Whether a module has an operator delete of its own.
//!
//! Such an operator may pass by the hooks and end in free; what it frees may then rightly come from
//! operator new. The answer "no" has to be certain.

use object::{Object, ObjectSection, ObjectSymbol};

use super::object_file::ObjectFile;

/// Whether a symbol is one of the forms that a program can replace, those with a place not among
/// them: these free nothing.
fn is_delete(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b"_ZdlPv").or_else(|| name.strip_prefix(b"_ZdaPv"));
    let rest = rest.map(|rest| rest.strip_prefix(b"m").unwrap_or(rest));
    rest.is_some_and(|rest| {
        rest.is_empty() || rest.starts_with(b"St11align_val_t") || rest == b"RKSt9nothrow_t"
    })
}

/// Whether the file defines a form of operator delete, or may once have had a name for one.
pub(super) fn may_define_delete(file: &ObjectFile) -> bool {
    let Some(object) = file.parsed() else { return true };
    let mut imports = false;
    for symbol in object.symbols().chain(object.dynamic_symbols()) {
        if symbol.name_bytes().is_ok_and(is_delete) {
            if symbol.is_definition() {
                return true;
            }
            imports = true;
        }
    }
    // Who has them of its own does not import them. Code without exceptions is no C++ runtime.
    let is_stripped = object.symbols().next().is_none();
    let has_exceptions = object.sections().any(|s| s.name() == Ok(".gcc_except_table"));
    is_stripped && has_exceptions && !imports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_forms_are_no_replacement() {
        for name in ["_ZdlPv", "_ZdaPvm", "_ZdlPvmSt11align_val_t", "_ZdaPvRKSt9nothrow_t"] {
            assert!(is_delete(name.as_bytes()), "{name}");
        }
        for name in ["_ZdlPvS_", "_ZdaPvS_", "_ZdlPvR5Arena", "_Znwm", "free"] {
            assert!(!is_delete(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn who_imports_delete_has_none_of_its_own() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let source = folder.path().join("p.cpp");
        let builds = [
            ("int main() { delete new int; }", &[][..], false),
            ("int main() { delete new int; }", &["-s"], false),
            ("int main() { return 0; }", &["-s"], false),
            ("int main() { delete new int; }", &["-static-libstdc++"], true),
            (
                "int main() { delete new int; }",
                &["-static-libstdc++", "-static-libgcc", "-s"],
                true,
            ),
        ];
        for (text, flags, expected) in builds {
            std::fs::write(&source, text).expect("source written");
            let program = folder.path().join("p");
            let mut compiler = std::process::Command::new("c++");
            let compiler = compiler.arg("-o").arg(&program).arg(&source).args(flags);
            let Ok(status) = compiler.status() else {
                return println!("skipped: who_imports_delete (needs c++)");
            };
            assert!(status.success(), "{flags:?}");
            let file = ObjectFile::open(&program).expect("program opened");
            assert_eq!(may_define_delete(&file), expected, "{text} {flags:?}");
        }
    }
}
