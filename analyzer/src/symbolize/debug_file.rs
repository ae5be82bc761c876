//! Where the debug information of a file is: in itself, in a separate debug file, in files that
//! these refer to.

use super::object_file::{FileBytes, has_dwarf};
use object::Object;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Folder that distributions install debug files into.
const SYSTEM_FOLDER: &str = "/usr/lib/debug";

/// Environment variable: more folders like `/usr/lib/debug`, separated by colons, searched first.
const FOLDERS_VARIABLE: &str = "MTR_DEBUG_PATH";

/// A debug file and what belongs to it.
pub(super) struct DebugFile {
    pub(super) path: PathBuf,
    pub(super) bytes: FileBytes,
}

/// Folders that hold debug files, in the order in which they are searched.
pub(super) fn folders() -> Vec<PathBuf> {
    let variable = std::env::var_os(FOLDERS_VARIABLE).unwrap_or_default();
    let named = std::env::split_paths(&variable).filter(|path| !path.as_os_str().is_empty());
    named.chain([PathBuf::from(SYSTEM_FOLDER)]).collect()
}

/// The debug file of a stripped file, by build ID, then by `.gnu_debuglink`.
pub(super) fn find(
    path: &Path,
    object: &object::File<'_>,
    notes: &mut Vec<String>,
) -> Option<DebugFile> {
    let build_id = object.build_id().ok().flatten().unwrap_or_default();
    by_build_id(build_id, notes).or_else(|| by_link(path, object, notes))
}

/// The debug file with a build ID.
pub(super) fn by_build_id(build_id: &[u8], notes: &mut Vec<String>) -> Option<DebugFile> {
    build_id_paths(build_id).into_iter().find_map(|path| open_if(&path, build_id, notes))
}

fn build_id_paths(build_id: &[u8]) -> Vec<PathBuf> {
    // Two bytes at least: one for the folder, one for the name.
    let [first, rest @ ..] = build_id else { return Vec::new() };
    if rest.is_empty() {
        return Vec::new();
    }
    let name = format!(".build-id/{first:02x}/{}.debug", hex(rest));
    folders().into_iter().map(|folder| folder.join(&name)).collect()
}

/// Build ID as everyone writes it.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens a debug file, unless it is that of another build.
fn open_if(path: &Path, build_id: &[u8], notes: &mut Vec<String>) -> Option<DebugFile> {
    let bytes = FileBytes::open(path).ok()?;
    let object = match object::File::parse(&*bytes) {
        Ok(object) => object,
        Err(error) => {
            notes.push(format!("{}: no usable debug file: {error}", path.display()));
            return None;
        }
    };
    let found = object.build_id().ok().flatten().unwrap_or_default();
    if !build_id.is_empty() && found != build_id {
        notes.push(format!(
            "{}: debug file of another build (build ID {}, expected {}): not used",
            path.display(),
            hex(found),
            hex(build_id)
        ));
        return None;
    }
    let usable = has_dwarf(&object) || object.symbols().next().is_some();
    drop(object);
    usable.then(|| DebugFile { path: path.to_owned(), bytes })
}

fn by_link(path: &Path, object: &object::File<'_>, notes: &mut Vec<String>) -> Option<DebugFile> {
    let (name, expected) = object.gnu_debuglink().ok().flatten()?;
    let name = Path::new(OsStr::from_bytes(name));
    let build_id = object.build_id().ok().flatten().unwrap_or_default();
    // Symbolic links lead to where the debug file is, too.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = real.parent()?;
    let mut candidates = vec![folder.join(name), folder.join(".debug").join(name)];
    let below = folder.strip_prefix("/").unwrap_or(folder);
    candidates.extend(folders().into_iter().map(|debug| debug.join(below).join(name)));
    for candidate in candidates {
        // A link that names the file itself leads nowhere.
        if candidate.canonicalize().ok().as_ref() == Some(&real) {
            continue;
        }
        let Ok(bytes) = FileBytes::open(&candidate) else { continue };
        let found = crc32fast::hash(&bytes);
        if found != expected {
            notes.push(format!(
                "{}: debug file of another build (CRC {found:08x}, expected {expected:08x}): not used",
                candidate.display()
            ));
            continue;
        }
        drop(bytes);
        if let Some(file) = open_if(&candidate, build_id, notes) {
            return Some(file);
        }
    }
    None
}

/// The file that dwz moved common parts of several debug files to.
pub(super) fn supplementary(
    path: &Path,
    object: &object::File<'_>,
    notes: &mut Vec<String>,
) -> Option<DebugFile> {
    let (name, build_id) = object.gnu_debugaltlink().ok().flatten()?;
    // Some strip tools leave the link in a file that has nothing to complete.
    if !has_dwarf(object) {
        return None;
    }
    let name = Path::new(OsStr::from_bytes(name));
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut candidates = vec![real.parent().unwrap_or(Path::new("")).join(name)];
    candidates.extend(build_id_paths(build_id));
    if let Some(file) = name.file_name() {
        candidates.extend(folders().into_iter().map(|debug| debug.join(".dwz").join(file)));
    }
    let found = candidates.iter().find_map(|path| open_if(path, build_id, notes));
    if found.is_none() {
        notes.push(format!(
            "{}: its supplementary debug file {} (build ID {}) was not found: names may be missing",
            path.display(),
            name.display(),
            hex(build_id)
        ));
    }
    found
}

/// Packages of split DWARF, next to the debug file or next to the file itself.
pub(super) fn packages(debug: &Path, object: &Path) -> Vec<FileBytes> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in [debug, object] {
        let mut name = path.as_os_str().to_owned();
        name.push(".dwp");
        let name = PathBuf::from(name);
        if !paths.contains(&name) {
            paths.push(name);
        }
    }
    paths.iter().filter_map(|path| FileBytes::open(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_is_a_folder_and_a_name() {
        let paths = build_id_paths(&[0xab, 0x01, 0xff]);
        assert!(paths.contains(&PathBuf::from("/usr/lib/debug/.build-id/ab/01ff.debug")));
        assert!(build_id_paths(&[]).is_empty());
        assert!(build_id_paths(&[1]).is_empty());
    }
}
