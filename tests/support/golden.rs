//! Expected outputs that live in files.

use super::repository;

/// Compares `actual` with tests/golden/`name`; `MTR_BLESS=1` writes the file instead.
pub(crate) fn compare_with_golden(name: &str, actual: &str) -> Result<(), String> {
    let path = repository().join("tests/golden").join(name);
    if std::env::var_os("MTR_BLESS").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, actual).unwrap();
        return Ok(());
    }
    let expected =
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    if expected == actual {
        return Ok(());
    }
    Err(format!(
        "{}: differs.\n--- expected\n{expected}--- actual\n{actual}---\n\
         If the change is meant: MTR_BLESS=1 and the same test again writes the file.",
        path.display()
    ))
}
