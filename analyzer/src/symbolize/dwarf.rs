//! SVMAs of one file -> frames, from DWARF, else from the symbol tables.
//!
//! The whole batch of one file is looked up at once: what DWARF was parsed into borrows the bytes
//! of the files, and both live exactly as long as the batch.

use super::Frame;
use super::address::{ReturnAddress, Svma};
use super::debug_file::{self, DebugFile};
use super::demangle::demangle;
use super::object_file::{FileBytes, ObjectFile, has_dwarf};
use super::symbols::SymbolTable;
use addr2line::gimli::{self, EndianSlice, RunTimeEndian};
use addr2line::{Context, LookupContinuation, LookupResult, SplitDwarfLoad};
use object::{Object, ObjectSection};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use typed_arena::Arena;

type Slice<'a> = EndianSlice<'a, RunTimeEndian>;
type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;

/// Bytes that live as long as the batch.
#[derive(Default)]
struct Bytes {
    files: Arena<FileBytes>,
    sections: Arena<Vec<u8>>,
}

/// What a file says of its addresses.
pub(super) struct Frames {
    /// The frames at each address, innermost first; none where nothing is known.
    pub(super) frames: Vec<Vec<Frame>>,
    /// It or its debug file has DWARF.
    pub(super) has_debug_info: bool,
}

/// The frames at each address.
///
/// Addresses should be sorted and distinct: neighbours share a unit.
pub(super) fn frames(
    object: &ObjectFile,
    addresses: &[ReturnAddress],
    notes: &mut Vec<String>,
) -> Frames {
    let debug = match object.parsed() {
        Some(parsed) if !object.has_dwarf() => debug_file::find(&object.path, &parsed, notes),
        _ => None,
    };
    let bytes = Bytes::default();
    let lookup = Lookup::new(object, debug.as_ref(), &bytes, notes);
    let frames = addresses.iter().map(|&address| lookup.frames(address.for_lookup())).collect();
    lookup.report(notes);
    let of_debug_file = debug.as_ref().and_then(|file| object::File::parse(&*file.bytes).ok());
    let has_debug_info =
        object.has_dwarf() || of_debug_file.is_some_and(|parsed| has_dwarf(&parsed));
    Frames { frames, has_debug_info }
}

/// All that knows something about the addresses of one file.
struct Lookup<'a> {
    object: &'a ObjectFile,
    /// Symbols of the separate debug file, and the bytes that hold their names.
    debug_symbols: Option<(SymbolTable, &'a [u8])>,
    context: Option<Context<Slice<'a>>>,
    packages: Vec<gimli::DwarfPackage<Slice<'a>>>,
    debug_path: &'a Path,
    bytes: &'a Bytes,
    problems: std::cell::RefCell<Problems>,
}

/// What went wrong during the lookups, to be said once.
#[derive(Default)]
struct Problems {
    missing_dwo: Vec<PathBuf>,
    errors: Vec<String>,
}

impl<'a> Lookup<'a> {
    fn new(
        object: &'a ObjectFile,
        debug: Option<&'a DebugFile>,
        bytes: &'a Bytes,
        notes: &mut Vec<String>,
    ) -> Lookup<'a> {
        let (debug_path, data) = match debug {
            Some(file) => (file.path.as_path(), &*file.bytes),
            None => (object.path.as_path(), &*object.bytes),
        };
        let parsed = object::File::parse(data).ok();
        let debug_symbols = match (&parsed, debug) {
            (Some(parsed), Some(_)) => Some((SymbolTable::new(data, parsed.symbols()), data)),
            _ => None,
        };
        let context = parsed.and_then(|parsed| {
            let context = open_context(debug_path, &parsed, bytes, notes);
            context
                .map_err(|error| {
                    notes.push(format!(
                        "{}: debug information cannot be read: {error}",
                        debug_path.display()
                    ));
                })
                .ok()
        });
        let packages = debug_file::packages(debug_path, &object.path)
            .into_iter()
            .filter_map(|file| open_package(bytes.files.alloc(file), bytes))
            .collect();
        let problems = Default::default();
        Lookup { object, debug_symbols, context, packages, debug_path, bytes, problems }
    }

    fn frames(&self, address: Svma) -> Vec<Frame> {
        let mut frames = self.dwarf_frames(address);
        // -gline-tables-only and assembler have lines without functions. Inlined frames always
        // have a function, so the one that lacks it is the outermost.
        match frames.last_mut() {
            Some(outermost) if outermost.function.is_none() => {
                outermost.function = self.symbol(address);
            }
            Some(_) => {}
            None => frames.extend(
                self.symbol(address).map(|name| Frame { function: Some(name), ..Frame::default() }),
            ),
        }
        if let Some(outermost) = frames.last_mut()
            && let Some(function) = &outermost.function
            && let Some(public) = self.public_name(address, function)
        {
            outermost.function = Some(public);
        }
        frames
    }

    /// The name by which programs call a function that has an internal one, too: `strdup` for libc's
    /// `__GI___strdup`. It is what the module exports at the same address.
    fn public_name(&self, address: Svma, internal: &str) -> Option<String> {
        let underscores = |name: &str| name.len() - name.trim_start_matches('_').len();
        if underscores(internal) == 0 {
            return None;
        }
        let table = self.object.dynamic_symbols();
        let aliases = table.at(table.containing(address)?.address).iter();
        let names = aliases.filter_map(|alias| str::from_utf8(alias.name(&self.object.bytes)).ok());
        let best = names.min_by_key(|name| {
            (underscores(name), !internal.ends_with(name), name.len(), name.to_owned())
        })?;
        (underscores(best) < underscores(internal)).then(|| demangle(best))
    }

    /// Name of the symbol that holds an address: static ones know more than dynamic ones.
    fn symbol(&self, address: Svma) -> Option<String> {
        let object = &*self.object.bytes;
        let in_table = |table: &SymbolTable, bytes| {
            let name = table.containing(address)?.name(bytes);
            Some(demangle(&String::from_utf8_lossy(name)))
        };
        in_table(self.object.static_symbols(), object)
            .or_else(|| self.debug_symbols.as_ref().and_then(|(table, data)| in_table(table, data)))
            .or_else(|| in_table(self.object.dynamic_symbols(), object))
    }

    fn dwarf_frames(&self, address: Svma) -> Vec<Frame> {
        let mut frames = Vec::new();
        let Some(context) = &self.context else { return frames };
        let mut result = context.find_frames(address.0);
        let found = loop {
            match result {
                LookupResult::Output(found) => break found,
                LookupResult::Load { load, continuation } => {
                    result = continuation.resume(self.load_split(load));
                }
            }
        };
        let add_all = || -> Result<(), gimli::Error> {
            let mut found = found?;
            while let Some(frame) = found.next()? {
                let function = match &frame.function {
                    Some(name) => Some(demangle(&name.raw_name()?)),
                    None => None,
                };
                let location = frame.location.as_ref();
                frames.push(Frame {
                    function,
                    file: location.and_then(|location| location.file).map(PathBuf::from),
                    line: location.and_then(|location| location.line).filter(|&line| line != 0),
                    inlined: true,
                });
            }
            Ok(())
        };
        if let Err(error) = add_all() {
            let mut problems = self.problems.borrow_mut();
            let error = error.to_string();
            if !problems.errors.contains(&error) {
                problems.errors.push(error);
            }
        }
        if let Some(outermost) = frames.last_mut() {
            outermost.inlined = false;
        }
        frames.retain(|frame| frame.function.is_some() || frame.file.is_some() || !frame.inlined);
        frames
    }

    /// The part of a unit that -gsplit-dwarf put into a file of its own.
    fn load_split(&self, load: SplitDwarfLoad<Slice<'a>>) -> Option<Arc<Dwarf<'a>>> {
        for package in &self.packages {
            if let Ok(Some(dwarf)) = package.find_cu(load.dwo_id, &load.parent) {
                return Some(Arc::new(dwarf));
            }
        }
        let to_path = |slice: &Slice<'_>| PathBuf::from(OsStr::from_bytes(slice.slice()));
        let name = load.path.as_ref().map(to_path)?;
        let compiled_in = load.comp_dir.as_ref().map(to_path).unwrap_or_default();
        // Where the compiler put it; else where the program or its debug file is now.
        let folders =
            [Some(compiled_in.as_path()), self.debug_path.parent(), self.object.path.parent()];
        let file_name = Path::new(name.file_name()?);
        let candidates = folders
            .iter()
            .flatten()
            .flat_map(|folder| [folder.join(&name), folder.join(file_name)]);
        for candidate in candidates {
            if let Some(dwarf) = self.open_split(&candidate, &load) {
                return Some(Arc::new(dwarf));
            }
        }
        self.problems.borrow_mut().missing_dwo.push(compiled_in.join(name));
        None
    }

    fn open_split(&self, path: &Path, load: &SplitDwarfLoad<Slice<'a>>) -> Option<Dwarf<'a>> {
        let file = self.bytes.files.alloc(FileBytes::open(path).ok()?);
        let object = object::File::parse(&**file).ok()?;
        let mut dwarf =
            gimli::Dwarf::load(|id| section(id.dwo_name(), &object, self.bytes)).ok()?;
        let header = dwarf.units().next().ok()??;
        if dwarf.unit(header).ok()?.dwo_id != Some(load.dwo_id) {
            return None;
        }
        dwarf.make_dwo(&load.parent);
        Some(dwarf)
    }

    fn report(self, notes: &mut Vec<String>) {
        let Problems { missing_dwo, errors } = self.problems.into_inner();
        let path = self.debug_path.display();
        for error in errors {
            notes.push(format!("{path}: some debug information cannot be read: {error}"));
        }
        if let [first, rest @ ..] = &missing_dwo[..] {
            let more =
                if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            notes.push(format!(
                "{path}: split debug information not found: {}{more}: no inlined frames there",
                first.display()
            ));
        }
    }
}

fn open_context<'a>(
    path: &Path,
    object: &object::File<'a>,
    bytes: &'a Bytes,
    notes: &mut Vec<String>,
) -> Result<Context<Slice<'a>>, String> {
    let load = |id: gimli::SectionId| section(Some(id.name()), object, bytes);
    let mut dwarf = gimli::Dwarf::load(load)?;
    if let Some(file) = debug_file::supplementary(path, object, notes) {
        let file = bytes.files.alloc(file.bytes);
        let object = object::File::parse(&**file).map_err(|error| error.to_string())?;
        dwarf.load_sup(|id| section(Some(id.name()), &object, bytes))?;
    }
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    Context::from_dwarf(dwarf).map_err(|error| error.to_string())
}

fn open_package<'a>(
    file: &'a FileBytes,
    bytes: &'a Bytes,
) -> Option<gimli::DwarfPackage<Slice<'a>>> {
    let object = object::File::parse(&**file).ok()?;
    let empty = EndianSlice::new(&[][..], endian(&object));
    // The error type only has to be one that gimli's converts to.
    let load =
        |id: gimli::SectionId| section(id.dwo_name(), &object, bytes).map_err(|_| gimli::Error::Io);
    gimli::DwarfPackage::load(load, empty).ok()
}

/// A section, decompressed; an empty one where the file has none.
fn section<'a>(
    name: Option<&str>,
    object: &object::File<'a>,
    bytes: &'a Bytes,
) -> Result<Slice<'a>, String> {
    let section = name.and_then(|name| object.section_by_name(name));
    let data = match section.map(|section| section.uncompressed_data()) {
        None => &[],
        Some(Ok(Cow::Borrowed(data))) => data,
        Some(Ok(Cow::Owned(data))) => bytes.sections.alloc(data),
        Some(Err(error)) => return Err(format!("{}: {error}", name.unwrap_or_default())),
    };
    Ok(EndianSlice::new(data, endian(object)))
}

fn endian(object: &object::File<'_>) -> RunTimeEndian {
    if object.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big }
}
