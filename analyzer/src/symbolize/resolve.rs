//! Call sites -> places.

use super::address::{Avma, LoadBias, ReturnAddress, Svma};
use super::calls::CallCheck;
use super::demangle::demangle;
use super::load_bias::{self, Because, Claim, Found, Unknown};
use super::locate::{FileId, Files, is_shared_library_name};
use super::{Certainty, Frame, Options, Place, Resolved, dwarf, operators, x86_64};
use crate::read::{Addressing, CallSite, CallSites, ModuleId, SiteId};
use hashbrown::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::Hash;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Resolves all call sites of a trace.
///
/// A site whose module or address is not certain gets no line. It may still get one frame: the
/// symbol that the log itself states.
pub fn resolve(sites: &CallSites, options: &Options) -> Resolved {
    let mut notes = Vec::new();
    let files = Files::new(sites, options, &mut notes);
    let unresolved = Place { certainty: Certainty::Unresolved, ..Place::default() };
    let mut work = Work {
        sites,
        files,
        notes,
        places: vec![unresolved; sites.sites.len()],
        lookups: HashMap::new(),
        without_debug_info: HashSet::new(),
    };
    work.place_by_module_map();
    work.place_by_name();
    work.place_without_name();
    let call_targets = work.call_targets(&options.call_targets);
    let may_define_delete = work.may_define_delete(&options.deletes_in);
    work.look_up();
    work.files.report_unused_programs(&mut work.notes);

    let mut seen = HashSet::new();
    work.notes.retain(|note| seen.insert(note.clone()));
    Resolved {
        places: work.places,
        notes: work.notes,
        call_targets,
        without_debug_info: work.without_debug_info,
        may_define_delete,
    }
}

/// What is known so far.
struct Work<'a> {
    sites: &'a CallSites,
    files: Files<'a>,
    notes: Vec<String>,
    places: Vec<Place>,
    /// The addresses to look up in each file, and for which site.
    lookups: HashMap<FileId, Vec<(ReturnAddress, usize)>>,
    /// Modules whose files have none.
    without_debug_info: HashSet<PathBuf>,
}

impl<'a> Work<'a> {
    /// Sites whose module the trace states.
    fn place_by_module_map(&mut self) {
        for (id, members) in self.group(|site| site.module) {
            let Some(module) = self.sites.modules.get(id as usize) else { continue };
            let file = self.files.for_module(module, &mut self.notes);
            let bias_of = |site: &CallSite| match site.addressing {
                Addressing::Relative => LoadBias(module.bias.wrapping_sub(module.start)),
                Addressing::Absolute | Addressing::Unknown => LoadBias(module.bias),
            };
            // Without a build ID the file may be another build: ask its calls.
            let doubtful = file.filter(|_| module.build_id.is_empty());
            let file = match doubtful {
                Some(id) if !self.agrees(id, &members, &bias_of) => {
                    self.notes.push(format!(
                        "{} has been changed since it was traced: addresses of the trace do not \
                         follow fitting calls in it: no file:line",
                        self.files.get(id).path.display()
                    ));
                    None
                }
                _ => file,
            };
            for member in members {
                let site = &self.sites.sites[member];
                let svma = site.address.map(|address| Avma(address).to_svma(bias_of(site)));
                self.place(member, module.path.clone(), svma, file, Certainty::Stated);
            }
        }
    }

    /// Whether the calls of a file agree with the biases that the trace states.
    fn agrees(
        &self,
        file: FileId,
        members: &[usize],
        bias_of: &dyn Fn(&CallSite) -> LoadBias,
    ) -> bool {
        let by_bias = group_by(members, |&member| Some(bias_of(&self.sites.sites[member])));
        by_bias.into_iter().all(|(bias, members)| {
            load_bias::verify(self.files.get(file), bias, &self.claims(&members)).is_ok()
        })
    }

    /// Sites of which the log states FILE and no more.
    fn place_by_name(&mut self) {
        let groups = self.group(|site| match (site.module, &site.object, site.address) {
            (None, Some(object), Some(_)) => {
                Some((object.as_slice(), site.addressing == Addressing::Relative))
            }
            _ => None,
        });
        let programs: HashSet<&[u8]> = groups
            .iter()
            .map(|((name, _), _)| *name)
            .filter(|name| !is_shared_library_name(name))
            .collect();
        for ((name, _), members) in groups {
            let is_program = programs.len() == 1 && programs.contains(name);
            self.place_object(name, is_program, &members);
        }
    }

    fn place_object(&mut self, name: &[u8], is_program: bool, members: &[usize]) {
        let shown = String::from_utf8_lossy(name).into_owned();
        let as_named = PathBuf::from(OsStr::from_bytes(name));
        let candidates = match self.files.for_name(name, is_program) {
            Ok(candidates) => candidates,
            Err(error) => {
                self.notes.push(format!("{shown}: {error}: no file:line"));
                for &member in members {
                    self.place(member, as_named.clone(), None, None, Certainty::Unresolved);
                }
                return;
            }
        };
        let claims = self.claims(members);
        let mut failure = None;
        for file in candidates {
            match load_bias::find(self.files.get(file), &claims) {
                Ok(found) => return self.place_found(&shown, file, members, &found),
                Err(unknown) => {
                    failure.get_or_insert((file, unknown));
                }
            }
        }
        let Some((file, unknown)) = failure else { return };
        let path = self.files.get(file).path.clone();
        self.notes.push(misfit(&shown, &path, &unknown, members.len()));
        for &member in members {
            self.place(member, as_named.clone(), None, None, Certainty::Unresolved);
        }
    }

    fn place_found(&mut self, shown: &str, file: FileId, members: &[usize], found: &Found) {
        let object = self.files.get(file);
        let path = object.path.clone();
        let load_address = found.bias.0.wrapping_add(object.extent.start);
        let evidence = match found.because {
            Because::Calls => Some("its calls"),
            Because::Symbols => Some("its symbols in the log"),
            Because::Stated | Because::OnlyMeaning => None,
        };
        if let Some(evidence) = evidence {
            self.notes.push(format!(
                "load address of {shown} inferred from {evidence}: {load_address:#x} (the log has \
                 no module map)"
            ));
        }
        let misfits = found.fits.iter().filter(|fits| !**fits).count();
        if misfits > 0 {
            let (do_not, them) = if misfits == 1 { ("does not", "it") } else { ("do not", "them") };
            self.notes.push(format!(
                "{shown}: {misfits} of its {} addresses in the log {do_not} follow a fitting call: \
                 no file:line for {them}",
                members.len()
            ));
        }
        let certainty = match found.because {
            Because::Stated => Certainty::Stated,
            _ => Certainty::Inferred,
        };
        for (&member, &fits) in members.iter().zip(&found.fits) {
            let address = self.sites.sites[member].address.filter(|_| fits);
            match address {
                Some(address) => {
                    let svma = Avma(address).to_svma(found.bias);
                    self.place(member, path.clone(), Some(svma), Some(file), certainty);
                }
                None => self.place(member, path.clone(), None, None, Certainty::Unresolved),
            }
        }
    }

    /// Addresses without FILE: code that no file holds, or a log older than FILE. The latter can be
    /// looked up in a program that cannot have been loaded elsewhere.
    fn place_without_name(&mut self) {
        let &[program] = self.files.programs() else { return };
        if !self.files.get(program).is_fixed || !self.sites.modules.is_empty() {
            return;
        }
        let bare = |site: &CallSite| site.module.is_none() && site.object.is_none();
        let members: Vec<usize> = (0..self.sites.sites.len())
            .filter(|&i| bare(&self.sites.sites[i]) && self.sites.sites[i].address.is_some())
            .collect();
        let claims = self.claims(&members);
        let Ok(found) = load_bias::verify(self.files.get(program), LoadBias(0), &claims) else {
            return;
        };
        let path = self.files.get(program).path.clone();
        for ((&member, claim), _) in members.iter().zip(&claims).zip(&found.fits).filter(|f| *f.1) {
            let svma = Some(Svma(claim.address));
            self.place(member, path.clone(), svma, Some(program), Certainty::Inferred);
        }
    }

    /// Notes down a place, to be looked up where the file is known. Until then, and where DWARF and
    /// symbol tables say nothing, the function is the symbol that the log states.
    fn place(
        &mut self,
        site: usize,
        module: PathBuf,
        svma: Option<Svma>,
        file: Option<FileId>,
        certainty: Certainty,
    ) {
        if let (Some(file), Some(svma)) = (file, svma) {
            self.lookups.entry(file).or_default().push((ReturnAddress(svma), site));
        }
        let symbol = self.sites.sites[site].symbol.as_ref();
        let frames = symbol.map(|(name, _)| Frame {
            function: Some(demangle(&String::from_utf8_lossy(name))),
            ..Frame::default()
        });
        self.places[site] = Place {
            module: Some(module),
            svma: svma.map(|svma| svma.0),
            frames: frames.into_iter().collect(),
            certainty,
            ends_signal: false,
        };
    }

    /// The imported symbols that are called at some of the sites.
    fn call_targets(&self, wanted: &HashSet<SiteId>) -> HashMap<SiteId, String> {
        let mut targets = HashMap::new();
        for (file, lookups) in &self.lookups {
            let of_file = lookups.iter().filter(|(_, site)| wanted.contains(&(*site as SiteId)));
            let mut check = None;
            for (address, site) in of_file {
                let check = check.get_or_insert_with(|| CallCheck::new(self.files.get(*file)));
                if let Some(symbol) = check.call_target_symbol(*address) {
                    targets.insert(*site as SiteId, symbol);
                }
            }
        }
        targets
    }

    /// Whether one of these modules has an operator delete of its own, as far as its file can rule
    /// that out.
    fn may_define_delete(&mut self, modules: &[ModuleId]) -> bool {
        let sites = self.sites;
        modules.iter().filter_map(|id| sites.modules.get(*id as usize)).any(|module| {
            // A note on a file that is missing stands there already if it matters.
            match self.files.for_module(module, &mut Vec::new()) {
                Some(file) => operators::may_define_delete(self.files.get(file)),
                None => true,
            }
        })
    }

    /// Asks each file once for all of its addresses.
    fn look_up(&mut self) {
        let mut lookups: Vec<_> = self.lookups.drain().collect();
        lookups.sort_unstable_by_key(|(file, _)| *file);
        for (file, mut lookups) in lookups {
            lookups.sort_unstable();
            let mut addresses: Vec<ReturnAddress> = lookups.iter().map(|lookup| lookup.0).collect();
            addresses.dedup();
            let found = dwarf::frames(self.files.get(file), &addresses, &mut self.notes);
            let object = self.files.get(file);
            let is_known = object.machine == object::Architecture::X86_64;
            for (address, site) in lookups {
                if !found.has_debug_info
                    && let Some(module) = &self.places[site].module
                    && !self.without_debug_info.contains(module)
                {
                    self.without_debug_info.insert(module.clone());
                }
                self.places[site].ends_signal =
                    is_known && x86_64::ends_signal(object.code_from(address.0));
                if let Ok(index) = addresses.binary_search(&address)
                    && !found.frames[index].is_empty()
                {
                    self.places[site].frames = found.frames[index].clone();
                }
            }
        }
    }

    fn claims(&self, members: &[usize]) -> Vec<Claim<'a>> {
        members.iter().filter_map(|&member| Claim::of(&self.sites.sites[member])).collect()
    }

    /// Indices of the sites that have a key, by key.
    fn group<K: Hash + Eq + Clone>(
        &self,
        key: impl Fn(&'a CallSite) -> Option<K>,
    ) -> Vec<(K, Vec<usize>)> {
        let sites: Vec<usize> = (0..self.sites.sites.len()).collect();
        let all = self.sites;
        group_by(&sites, |&index| key(&all.sites[index]))
    }
}

/// Why the file at `path` does not tell where `shown` was loaded, of which the log has so many addresses.
fn misfit(shown: &str, path: &Path, unknown: &Unknown, addresses: usize) -> String {
    let file = path.display();
    let addresses = match addresses {
        1 => "the one address".into(),
        many => format!("the {many} addresses"),
    };
    match unknown {
        Unknown::Contradiction => format!(
            "{file} is not the {shown} that was traced, or was changed since: its calls do not fit \
             {addresses} in the log: no file:line"
        ),
        Unknown::Several(fitting) => format!(
            "{shown}: {fitting} load addresses fit {addresses} in the log, which has no module map: \
             no file:line, as it would be a guess"
        ),
    }
}

/// Groups in the order in which their first member appears.
fn group_by<K: Hash + Eq + Clone>(
    members: &[usize],
    key: impl Fn(&usize) -> Option<K>,
) -> Vec<(K, Vec<usize>)> {
    let mut index: HashMap<K, usize> = HashMap::new();
    let mut groups: Vec<(K, Vec<usize>)> = Vec::new();
    for &member in members {
        let Some(key) = key(&member) else { continue };
        let group = *index.entry(key.clone()).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(member);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_not_called_addresses() {
        let say = |unknown, addresses| misfit("./t", Path::new("/t"), &unknown, addresses);
        let one = say(Unknown::Several(3), 1);
        assert!(one.starts_with("./t: 3 load addresses fit the one address in the log, "), "{one}");
        let many = say(Unknown::Contradiction, 12);
        assert!(many.contains("its calls do not fit the 12 addresses in the log"), "{many}");
    }
}
