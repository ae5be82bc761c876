//! The built-in suppressions: what libc, libstdc++, Rust's std and the loader keep until exit by design.
//!
//! A block is suppressed for the function of a runtime that keeps it, and only where the frames
//! between this function and malloc belong to runtimes too: what the program's own code allocates,
//! called back by a runtime, is the program's. A function that hands its block to its caller (strdup,
//! getline, fopen) is none of these.

use std::path::Path;

use super::places::Places;
use crate::profile::{Amount, Site, StackFrame, StackId, Step, is_module, name_of};

/// Names of modules without `.so` and version.
type Modules = &'static [&'static str];
/// Names of functions, as in [`KEPT`].
type Functions = &'static [&'static str];

const LIBC: Modules = &["libc"];
const LOADER: Modules = &["ld-linux-x86-64", "ld-linux-aarch64", "ld"];
const LIBSTDCPP: Modules = &["libstdc++"];

/// Module, and its functions inside of which everything is kept, without their leading underscores
/// and `__GI_`. A star at the end stands for any rest. Names that a stripped library still exports
/// come first; those behind them serve a text log, which knows the caller of malloc only.
const KEPT: [(Modules, Functions); 14] = [
    // Locales and catalogues of messages, which are never unloaded.
    (LIBC, &["setlocale", "bindtextdomain", "textdomain", "dcgettext", "dcngettext"]),
    (LIBC, &["nl_find_locale", "nl_load_locale*", "nl_intern_locale_data", "nl_make_l10nflist"]),
    (LIBC, &["nl_find_domain", "nl_load_domain", "read_alias_file", "extend_alias_table"]),
    (LIBC, &["new_composite_name", "wcsmbs_load_conv", "gconv_load_cache", "gconv_load_conf"]),
    // The time zone and messages of errors.
    (
        LIBC,
        &["tzset", "tz_convert", "tzfile_read", "tzstring*", "localtime*", "mktime", "strftime"],
    ),
    (LIBC, &["strerror", "strerror_l"]),
    // The environment, handlers of exit, unwinding, values of threads.
    (LIBC, &["setenv", "putenv", "add_to_environ", "new_exitfn", "cxa_atexit", "on_exit"]),
    (LIBC, &["libc_unwind_link_get", "pthread_setspecific"]),
    // Databases of users and hosts.
    (LIBC, &["nss_*", "res_*", "check_pf", "getpwnam", "getpwuid", "getgrnam", "getgrgid"]),
    (LIBC, &["gethostbyname*", "global_state_allocate", "get_locked_global"]),
    // TLS blocks and the loader's own tables; glibc keeps those of ended threads for the next ones.
    (LOADER, &["dl_allocate_tls*", "allocate_dtv*", "tls_get_addr*"]),
    (LOADER, &["dl_exception_create*", "dl_find_object_update"]),
    // The global locale, and what is worked out for it once.
    (LIBSTDCPP, &["std::locale::*", "std::ios_base::Init::*", "std::num_put<*", "std::num_get<*"]),
    (LIBSTDCPP, &["std::__use_cache<*", "std::__numpunct_cache<*"]),
];

/// The same, kept only where the function itself calls malloc: dlopen is inside of it as well.
const KEPT_ITSELF: &str = "dlerror_run";

/// What Rust's std keeps, which is linked into the program: where the stack of the main thread is, for
/// the handler that tells its overflow.
const KEPT_BY_STD: &str = "std::sys::pal::unix::stack_overflow::";

/// Functions that make the buffer of a stream. The standard streams are never closed; but what has
/// more buffers than there are of these has left streams of its own open.
const STREAM_BUFFERS: [&str; 2] = ["IO_file_doallocate", "IO_wfile_doallocate"];
const STANDARD_STREAMS: u64 = 4; // stdin, stdout, stderr; a wide one has two

/// Bytes of libstdc++'s emergency pool for exceptions, before and since GCC 13.
const POOL: [u64; 2] = [72_704, 73_728];
/// What makes it, in libstdc++ (whose symbol tables do not name it) or linked into the program.
const POOL_INITIALIZER: &str = "_GLOBAL__sub_I_eh_alloc.cc";

/// Marks the stacks of `sites` whose live blocks are suppressed, and sums these up.
pub(super) fn mark(sites: &mut [Site], places: &Places) -> Amount {
    let mut kept = Amount::default();
    let mut buffers = Vec::new();
    for (index, site) in sites.iter_mut().enumerate() {
        for (share_index, share) in site.stacks.iter_mut().enumerate() {
            let Some(stack) = share.stack.filter(|_| share.live.blocks > 0) else { continue };
            match reason(stack, share.allocated, places) {
                Some(Reason::Kept) => {
                    share.is_suppressed = true;
                    add(&mut kept, share.live);
                }
                Some(Reason::StreamBuffer) => buffers.push((index, share_index)),
                None => {}
            }
        }
    }
    let mut all = Amount::default();
    for (site, share) in &buffers {
        add(&mut all, sites[*site].stacks[*share].live);
    }
    if all.blocks <= STANDARD_STREAMS {
        buffers.iter().for_each(|(site, share)| sites[*site].stacks[*share].is_suppressed = true);
        add(&mut kept, all);
    }
    kept
}

fn add(sum: &mut Amount, other: Amount) {
    sum.bytes = sum.bytes.saturating_add(other.bytes);
    sum.blocks += other.blocks;
}

/// Why the blocks of a stack are suppressed.
#[derive(Debug, PartialEq, Eq)]
enum Reason {
    Kept,
    StreamBuffer,
}

fn reason(stack: StackId, allocated: Amount, places: &Places) -> Option<Reason> {
    let stacks = &places.stacks;
    let is_one_pool = allocated.blocks == 1 && POOL.contains(&allocated.bytes);
    let mut inner: Option<StackFrame<'_>> = None;
    for step in stacks.steps(stack) {
        let Step::Frame(frame) = step else { return None };
        let name = frame.frame.and_then(|frame| frame.function.as_deref());
        // Linked into the program, it is the program's own by all that is known of it.
        if is_one_pool && name == Some(POOL_INITIALIZER) {
            return Some(Reason::Kept);
        }
        let module = frame.call.place.module.as_deref().filter(|_| frame.is_runtime)?;
        if name.is_some_and(|name| name.starts_with(KEPT_BY_STD)) {
            return Some(Reason::Kept);
        }
        // What the loader calls in libstdc++ and nobody can name is an initializer of its own.
        let is_initializer = |inner: StackFrame<'_>| is_unnamed_in_libstdcpp(&inner);
        if is_module(module, LOADER) && inner.is_some_and(is_initializer) {
            return Some(Reason::Kept);
        }
        if !stacks.are_whole && is_one_pool && is_unnamed_in_libstdcpp(&frame) {
            return Some(Reason::Kept);
        }
        if let Some(reason) = name.and_then(|name| reason_of(module, name, inner.is_none())) {
            return Some(reason);
        }
        inner = Some(frame);
    }
    None
}

fn is_unnamed_in_libstdcpp(frame: &StackFrame<'_>) -> bool {
    let name = frame.frame.and_then(|frame| frame.function.as_deref());
    let module = frame.call.place.module.as_deref();
    name.is_none_or(|name| name == POOL_INITIALIZER)
        && module.is_some_and(|module| is_module(module, LIBSTDCPP))
}

/// What a function of a runtime keeps, if it is one that does.
fn reason_of(module: &Path, function: &str, is_innermost: bool) -> Option<Reason> {
    let name = name_of(function);
    let name = name.strip_prefix("__GI_").unwrap_or(name).trim_start_matches('_');
    if STREAM_BUFFERS.contains(&name) && is_module(module, LIBC) {
        return Some(Reason::StreamBuffer);
    }
    if is_innermost && name == KEPT_ITSELF && is_module(module, LIBC) {
        return Some(Reason::Kept);
    }
    let is_named = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(front) => name.starts_with(front),
        None => name == *pattern,
    };
    let is_kept = KEPT
        .iter()
        .any(|(modules, functions)| functions.iter().any(&is_named) && is_module(module, modules));
    is_kept.then_some(Reason::Kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Call, Frame, Link, Place, StackNode, Stacks};

    const CPP: &str = "/usr/lib/libstdc++.so.6.0.30";
    const C: &str = "/lib/libc.so.6";
    const LOADS: &str = "/lib64/ld-linux-x86-64.so.2";
    const OWN: &str = "/home/ann/t";

    /// What is said of one block of `bytes` with these frames, innermost first: module and function.
    fn reason_for(frames: &[(&str, &str)], bytes: u64, are_whole: bool) -> Option<Reason> {
        let call = |(module, function): &(&str, &str)| {
            let frame = Frame { function: Some((*function).into()), ..Frame::default() };
            let frames = if function.is_empty() { Vec::new() } else { vec![frame] };
            let module = Some(module.into());
            Call::new(Place { module, frames, ..Place::default() }, String::new())
        };
        let calls: Vec<Call> = frames.iter().rev().map(call).collect();
        let node = |id: u32| StackNode { parent: id.checked_sub(1), link: Link::Call(id) };
        let nodes: Vec<StackNode> = (0..calls.len() as u32).map(node).collect();
        let innermost = nodes.len() as StackId - 1;
        let places = Places { stacks: Stacks { calls, nodes, are_whole } };
        reason(innermost, Amount { bytes, blocks: 1 }, &places)
    }

    fn whole(frames: &[(&str, &str)]) -> Option<Reason> {
        reason_for(frames, 100, true)
    }

    #[test]
    fn the_emergency_pool_is_known_without_a_symbol() {
        assert_eq!(whole(&[(CPP, ""), (LOADS, "")]), Some(Reason::Kept));
        let linked = (OWN, POOL_INITIALIZER);
        assert_eq!(reason_for(&[linked], 73_728, true), Some(Reason::Kept));
        assert_eq!(reason_for(&[(CPP, "")], 72_704, false), Some(Reason::Kept));
        // Anything that happens to come by there is not.
        for frames in [
            &[(CPP, "operator new(unsigned long)"), (LOADS, "call_init")][..],
            &[(C, "__strdup"), (LOADS, "call_init")],
            &[(CPP, ""), (OWN, "make"), (LOADS, "call_init")],
            &[(OWN, ""), (LOADS, "call_init")],
            &[linked, (LOADS, "call_init")],
        ] {
            assert_eq!(whole(frames), None, "{frames:?}");
        }
        assert_eq!(reason_for(&[(CPP, "")], 72_703, false), None);
    }

    #[test]
    fn what_rust_s_std_keeps_is_linked_into_the_program() {
        let set = "std::sys::pal::unix::stack_overflow::thread_info::set_current_info";
        let insert = "<alloc::collections::btree::map::BTreeMap<usize, u8>>::insert";
        let init = [(OWN, insert), (OWN, set), (OWN, "std::rt::lang_start"), (OWN, "main")];
        assert_eq!(whole(&init), Some(Reason::Kept));
        assert_eq!(whole(&[(OWN, insert), (OWN, "app::main"), (OWN, set)]), None);
        assert_eq!(whole(&[(OWN, insert), (OWN, "std::rt::init"), (OWN, "main")]), None);
    }

    #[test]
    fn what_a_runtime_keeps_ends_where_it_calls_the_program() {
        assert_eq!(
            whole(&[(C, "__strdup"), (C, "__GI_setlocale"), (OWN, "main")]),
            Some(Reason::Kept)
        );
        assert_eq!(whole(&[(C, "__strdup"), (OWN, "f"), (C, "setlocale"), (OWN, "main")]), None);
        assert_eq!(whole(&[(C, "__strdup"), (OWN, "setlocale")]), None);
        assert_eq!(whole(&[(C, "_dlerror_run"), (C, "dlopen"), (OWN, "main")]), Some(Reason::Kept));
        let opened = [(LOADS, "_dl_new_object"), (C, "_dlerror_run"), (C, "dlopen"), (OWN, "main")];
        assert_eq!(whole(&opened), None);
        let buffer = [(C, "_IO_file_doallocate"), (C, "puts"), (OWN, "main")];
        assert_eq!(whole(&buffer), Some(Reason::StreamBuffer));
    }
}
