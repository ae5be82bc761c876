//! Whether a module has an operator delete of its own.
//!
//! Such an operator may pass by the hooks and end in free; what it frees may then rightly come from
//! operator new. The answer "no" has to be certain.

use object::{Object, ObjectSection, ObjectSymbol};

use super::object_file::ObjectFile;

/// Front of all forms: `operator delete(void*` and `operator delete[](void*`.
const DELETES: [&[u8]; 2] = [b"_ZdlPv", b"_ZdaPv"];

fn is_delete(name: &[u8]) -> bool {
    DELETES.iter().any(|front| name.starts_with(front))
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
