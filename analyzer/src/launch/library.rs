//! libmtr.so, unpacked where the loader can map it.

use std::env;
use std::ffi::CString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use foldhash::fast::FixedState;

/// The library that this program carries.
const LIBRARY: &[u8] = include_bytes!(env!("MTR_LIBRARY"));

/// Unpacks the library unless it is there already, and returns its path.
pub fn unpack() -> io::Result<PathBuf> {
    let mut first = None;
    for folder in folders() {
        match unpack_into(&folder, LIBRARY) {
            Ok(path) => return Ok(path),
            Err(error) => {
                let error = io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| io::Error::other("no folder to put libmtr.so into")))
}

/// Folders that belong to this user, the best first.
fn folders() -> Vec<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let mut folders = Vec::new();
    if let Some(cache) = absolute("XDG_CACHE_HOME") {
        folders.push(cache.join("mtr"));
    } else if let Some(home) = absolute("HOME") {
        folders.push(home.join(".cache/mtr"));
    }
    folders.push(PathBuf::from(format!("/tmp/mtr-{}", user())));
    folders
}

fn user() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

fn unpack_into(folder: &Path, library: &[u8]) -> io::Result<PathBuf> {
    // The loader splits LD_PRELOAD at both and knows no quotes.
    if folder.as_os_str().as_bytes().iter().any(|b| matches!(b, b' ' | b':')) {
        return Err(io::Error::other("LD_PRELOAD cannot hold a path with a blank or colon"));
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != user() || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("expected a folder that only this user can write to"));
    }
    if is_noexec(folder) {
        return Err(io::Error::other("its file system is mounted noexec"));
    }
    let hash = FixedState::default().hash_one(library);
    let path = folder.join(format!("libmtr-{hash:016x}.so"));
    if fs::read(&path).is_ok_and(|there| there == library) {
        return Ok(path);
    }
    // Under another name first: whoever finds the file finds all of it.
    let unfinished = folder.join(format!("libmtr-{hash:016x}.{}", std::process::id()));
    let _ = fs::remove_file(&unfinished);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(library))
        .and_then(|()| fs::rename(&unfinished, &path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written.map(|()| path)
}

fn is_noexec(folder: &Path) -> bool {
    let Ok(folder) = CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: all zeros is a valid statvfs, a struct of integers.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call, and `folder` ends with a NUL.
    let status = unsafe { libc::statvfs(folder.as_ptr(), &mut found) };
    status == 0 && found.f_flag & libc::ST_NOEXEC != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn it_is_written_once_and_repaired_when_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("mtr");
        let path = unpack_into(&cache, b"library").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        assert_eq!(unpack_into(&cache, b"library").unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        fs::write(&path, b"lib").unwrap();
        unpack_into(&cache, b"library").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"library");
        assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
        assert_ne!(unpack_into(&cache, b"another").unwrap(), path);
    }

    #[test]
    fn a_folder_that_others_could_write_to_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(unpack_into(&open, b"library").is_err());
        let link = folder.path().join("link");
        symlink(folder.path(), &link).unwrap();
        assert!(unpack_into(&link, b"library").is_err());
        assert!(unpack_into(&folder.path().join("a b"), b"library").is_err());
    }
}
