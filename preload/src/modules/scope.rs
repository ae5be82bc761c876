//! The modules that the process was started with, in the order in which the loader looks through
//! them for a symbol.

use core::ffi::CStr;

use super::elf::{self, LinkMap};
use super::find;

/// The record of libmtr.so.
fn own() -> Option<&'static LinkMap> {
    let own = find(own as *const () as usize)?;
    // SAFETY: this module stays loaded.
    Some(unsafe { &*own.link_map })
}

/// The name by which libmtr.so was loaded.
pub(crate) fn own_name() -> &'static [u8] {
    own().map_or(&[], LinkMap::name)
}

/// Whether an address is in libmtr.so.
pub(crate) fn is_own(address: usize) -> bool {
    let module = find(address).map(|module| module.link_map);
    module.is_some() && module == own().map(core::ptr::from_ref)
}

/// Modules from `first` on, each reached from the one before by `step`.
fn chain(
    first: Option<&'static LinkMap>,
    step: impl Fn(&'static LinkMap) -> Option<&'static LinkMap>,
) -> impl Iterator<Item = &'static LinkMap> {
    core::iter::successors(first, move |link_map| step(link_map))
}

/// # Safety
/// No module is being loaded or unloaded while the result is used.
unsafe fn before_us() -> impl Iterator<Item = &'static LinkMap> {
    // SAFETY: the caller's promise.
    let step = |link_map: &'static LinkMap| unsafe { link_map.previous() };
    chain(own().and_then(step), step)
}

/// # Safety
/// No module is being loaded or unloaded while the result is used.
unsafe fn behind_us() -> impl Iterator<Item = &'static LinkMap> {
    // SAFETY: the caller's promise.
    let step = |link_map: &'static LinkMap| unsafe { link_map.next() };
    chain(own().and_then(step), step)
}

/// All modules but libmtr.so, in no particular order.
///
/// # Safety
/// No module is being loaded or unloaded while the result is used.
pub(crate) unsafe fn others() -> impl Iterator<Item = &'static LinkMap> {
    // SAFETY: the caller's promise.
    unsafe { before_us().chain(behind_us()) }
}

/// Address and module of the first function `name` behind libmtr.so: what dlsym(RTLD_NEXT) finds,
/// but without the message that it allocates when there is none.
///
/// # Safety
/// No module is being loaded or unloaded.
pub(crate) unsafe fn next_export(name: &CStr) -> Option<(usize, &'static LinkMap)> {
    // SAFETY: the caller's promise.
    unsafe { behind_us() }.find_map(|link_map| Some((elf::export(link_map, name)?, link_map)))
}

/// The module that takes calls of `name` before they can reach libmtr.so.
///
/// # Safety
/// No module is being loaded or unloaded.
pub(crate) unsafe fn export_before_us(name: &CStr) -> Option<&'static LinkMap> {
    // The first of them is the last that is met; which one is named does not matter.
    // SAFETY: the caller's promise.
    unsafe { before_us() }.filter(|link_map| elf::export(link_map, name).is_some()).last()
}

/// Whether a module exports the function `name`.
pub(crate) fn defines(link_map: &LinkMap, name: &CStr) -> bool {
    elf::export(link_map, name).is_some()
}

/// Whether a library is the runtime of C++, by the name of its file.
pub(crate) fn is_cpp_runtime(link_map: &LinkMap) -> bool {
    const RUNTIMES: [&[u8]; 3] = [b"libstdc++.so", b"libc++.so", b"libc++abi.so"];
    let file = link_map.name().rsplit(|byte| *byte == b'/').next().unwrap_or(&[]);
    RUNTIMES.iter().any(|runtime| file.starts_with(runtime))
}

/// Address of the function `name` that the module of `address` exports.
pub(crate) fn export_of_module_at(address: usize, name: &CStr) -> Option<usize> {
    // SAFETY: code of the module is running.
    elf::export(unsafe { &*find(address)?.link_map }, name)
}

/// Takes the function `name` out of the dynamic symbols of libmtr.so: who looks for it from now on
/// finds the next one, as without us. What has been bound to ours stays so.
pub(crate) fn withdraw(name: &CStr) {
    let own = find(own as *const () as usize);
    if let Some(own) = own {
        elf::withdraw(&own, name);
    }
}
