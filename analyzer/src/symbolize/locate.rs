//! Which file a module of the trace is, and opening each file once.

use super::Options;
use super::debug_file::{self, hex};
use super::object_file::ObjectFile;
use crate::read::{CallSites, Module};
use hashbrown::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Index of an opened file.
pub(super) type FileId = usize;

/// What the kernel appends to the name of a file that is gone.
const DELETED: &[u8] = b" (deleted)";

/// The files that were opened, and where to look for more.
pub(super) struct Files<'a> {
    opened: Vec<ObjectFile>,
    by_path: HashMap<PathBuf, Result<FileId, String>>,
    programs: Vec<FileId>,
    sites: &'a CallSites,
    options: &'a Options,
}

impl<'a> Files<'a> {
    /// Opens the programs that the user named.
    pub(super) fn new(
        sites: &'a CallSites,
        options: &'a Options,
        notes: &mut Vec<String>,
    ) -> Files<'a> {
        let mut files = Files {
            opened: Vec::new(),
            by_path: HashMap::new(),
            programs: Vec::new(),
            sites,
            options,
        };
        for path in &options.programs {
            match files.open(path) {
                Ok(id) => files.programs.push(id),
                Err(error) => notes.push(format!("{}: {error}", path.display())),
            }
        }
        files
    }

    pub(super) fn get(&self, id: FileId) -> &ObjectFile {
        &self.opened[id]
    }

    /// The programs that the user named.
    pub(super) fn programs(&self) -> &[FileId] {
        &self.programs
    }

    fn open(&mut self, path: &Path) -> Result<FileId, String> {
        if let Some(known) = self.by_path.get(path) {
            return known.clone();
        }
        let result = ObjectFile::open(path).map(|file| {
            self.opened.push(file);
            self.opened.len() - 1
        });
        self.by_path.insert(path.to_owned(), result.clone());
        result
    }

    /// The file of a module of the module map, or why there is none.
    pub(super) fn for_module(
        &mut self,
        module: &Module,
        notes: &mut Vec<String>,
    ) -> Option<FileId> {
        let name = module.path.as_os_str().as_bytes();
        // [vdso], [stack] and the like are no files.
        if name.is_empty() || name.starts_with(b"[") || name.starts_with(b"linux-vdso.so") {
            return None;
        }
        let path = Path::new(OsStr::from_bytes(name.strip_suffix(DELETED).unwrap_or(name)));
        let own = self.open(path);
        let is_right =
            |file: &ObjectFile| module.build_id.is_empty() || file.build_id == module.build_id;
        if let Ok(id) = own
            && is_right(self.get(id))
        {
            return Some(id);
        }
        let named = self.programs.iter().copied().find(|&id| {
            let file = self.get(id);
            if module.build_id.is_empty() {
                file.path.file_name() == path.file_name()
            } else {
                file.build_id == module.build_id
            }
        });
        // A debug file has the addresses and names of the file that it was split from.
        if let Some(id) = named.or_else(|| self.debug_file(&module.build_id, notes)) {
            return Some(id);
        }
        let path_text = path.display();
        notes.push(match own {
            Ok(id) => format!(
                "{path_text} has been changed since it was traced (build ID {}, expected {}): no \
                 file:line",
                build_id_text(&self.get(id).build_id),
                build_id_text(&module.build_id)
            ),
            Err(error) => format!("{path_text}: {error}: no file:line"),
        });
        None
    }

    fn debug_file(&mut self, build_id: &[u8], notes: &mut Vec<String>) -> Option<FileId> {
        let file = debug_file::by_build_id(build_id, notes)?;
        self.open(&file.path).ok()
    }

    /// Programs that the user named although they are nowhere in the module map.
    pub(super) fn report_unused_programs(&self, notes: &mut Vec<String>) {
        if self.sites.modules.is_empty() {
            return;
        }
        for &id in &self.programs {
            let program = self.get(id);
            let is_module = self.sites.modules.iter().any(|module| {
                if module.build_id.is_empty() {
                    module.path.file_name() == program.path.file_name()
                } else {
                    module.build_id == program.build_id
                }
            });
            if !is_module {
                notes.push(format!(
                    "{} is not the program that was traced (build ID {}): not used",
                    program.path.display(),
                    build_id_text(&program.build_id)
                ));
            }
        }
    }

    /// The files that FILE of a log without a module map may mean, likeliest first. `is_program`
    /// is whether it is the only object of the log that is no shared library.
    pub(super) fn for_name(
        &mut self,
        name: &[u8],
        is_program: bool,
    ) -> Result<Vec<FileId>, String> {
        let path = Path::new(OsStr::from_bytes(name));
        // What the user names is meant, even when something else is found more easily.
        let same_name = |id: &FileId| self.get(*id).path.file_name() == path.file_name();
        let named: Vec<FileId> = self.programs.iter().copied().filter(same_name).collect();
        if !named.is_empty() {
            return Ok(named);
        }
        if let ([program], true) = (&self.programs[..], is_program) {
            return Ok(vec![*program]);
        }
        let mut found = Vec::new();
        let mut problem = None;
        for candidate in self.candidates(path) {
            match self.open(&candidate) {
                Ok(id) if !found.contains(&id) => found.push(id),
                Ok(_) => {}
                Err(error) if candidate.exists() => {
                    problem.get_or_insert(format!("{}: {error}", candidate.display()));
                }
                Err(_) => {}
            }
        }
        if found.is_empty() {
            return Err(problem.unwrap_or_else(|| "file not found".to_owned()));
        }
        Ok(found)
    }

    fn candidates(&self, path: &Path) -> Vec<PathBuf> {
        let mut candidates = vec![path.to_owned()];
        if path.is_absolute() {
            return candidates;
        }
        let folders = [self.sites.directory.as_deref(), self.options.trace_folder.as_deref()];
        for folder in folders.into_iter().flatten() {
            candidates.push(folder.join(path));
            candidates.extend(path.file_name().map(|name| folder.join(name)));
        }
        if path.components().count() == 1 && !path.as_os_str().as_bytes().contains(&b'/') {
            let variable = std::env::var_os("PATH").unwrap_or_default();
            candidates.extend(std::env::split_paths(&variable).map(|folder| folder.join(path)));
        }
        candidates
    }
}

fn build_id_text(build_id: &[u8]) -> String {
    if build_id.is_empty() { "none".to_owned() } else { hex(build_id) }
}

/// Whether a file name is that of a shared library: `.so` at its end or before a version.
pub(super) fn is_shared_library_name(name: &[u8]) -> bool {
    let file = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    file.ends_with(b".so") || file.windows(4).any(|window| window == b".so.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_libraries_are_known_by_name() {
        for name in ["/lib/libc.so.6", "libfoo.so", "ld-linux-x86-64.so.2"] {
            assert!(is_shared_library_name(name.as_bytes()), "{name}");
        }
        for name in ["./t_mtrace", "/opt/x.so.d/prog", "so", "prog.sorted"] {
            assert!(!is_shared_library_name(name.as_bytes()), "{name}");
        }
    }
}
