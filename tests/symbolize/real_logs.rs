//! Logs that glibc writes of programs that are installed here: every record that a program really
//! made has to pass the check of calls, in every object that the log names.

use crate::support::{have, run};
use mtr_analyzer::read::{Addressing, CallSite, CallSites, Kinds};
use mtr_analyzer::symbolize::{Certainty, Options, Place, resolve};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

const GLIBC_TRACER: &str = "libc_malloc_debug.so.0";

/// Real programs, and what they can do without side effects.
const PROGRAMS: &[&[&str]] = &[
    &["ls", "-l", "/usr/bin"],
    &["gcc", "--version"],
    &["perl", "-e", "print join ',', map { $_ * 2 } 1..100"],
    &["python3", "-c", "import json, re, ctypes"],
    &["bash", "-c", "for i in 1 2 3; do echo $i; done"],
    &["gdb", "-batch", "-ex", "print 1+1"],
    &["curl", "--version"],
];

/// FILE, ADDR, and SYMBOL with its offset.
type Stated<'a> = (&'a str, u64, Option<(&'a str, u64)>);

/// The distinct places of a log of glibc 2.35 or later, with the kinds of their records.
fn sites(log: &str, addressing: Addressing) -> CallSites {
    let mut kinds: HashMap<Stated<'_>, Kinds> = HashMap::new();
    for line in log.lines() {
        let mut words = line.split(' ');
        let (Some("@"), Some(place), Some(op)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Some((object, rest)) = place.split_once(':') else { continue };
        let Some((symbol, address)) = rest.split_once("[0x") else { continue };
        let Ok(address) = u64::from_str_radix(address.trim_end_matches(']'), 16) else { continue };
        let symbol = symbol.trim_matches(['(', ')']).split_once('+').and_then(|(name, offset)| {
            Some((name, u64::from_str_radix(offset.trim_start_matches("0x"), 16).ok()?))
        });
        let kinds = kinds.entry((object, address, symbol)).or_default();
        match op {
            "+" => kinds.alloc = true,
            "-" => kinds.free = true,
            _ => kinds.realloc = true,
        }
    }
    let site = |((object, address, symbol), kinds): (Stated<'_>, Kinds)| CallSite {
        object: Some(object.into()),
        symbol: symbol.map(|(name, offset)| (name.into(), offset)),
        address: Some(address),
        addressing,
        module: None,
        kinds,
    };
    CallSites { sites: kinds.into_iter().map(site).collect(), ..CallSites::default() }
}

#[test]
fn records_of_real_programs_pass_the_check_of_their_calls() {
    let test = "records_of_real_programs_pass_the_check_of_their_calls";
    if !have(test, &["cc"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let source =
        "#include <mcheck.h>\n__attribute__((constructor)) static void on(void) { mtrace(); }";
    std::fs::write(folder.path().join("on.c"), source).expect("written");
    run(folder.path(), "cc", &["-shared", "-fPIC", "-o", "on.so", "on.c"]).expect("compiled");
    let preload = format!("{GLIBC_TRACER} {}", folder.path().join("on.so").display());
    let log = folder.path().join("log");
    for command in PROGRAMS {
        let _ = std::fs::remove_file(&log);
        let status = Command::new(command[0])
            .args(&command[1..])
            .env("LD_PRELOAD", &preload)
            .env("MALLOC_TRACE", &log)
            .current_dir(folder.path())
            .output();
        if status.is_err() || !log.exists() {
            println!("skipped: {test} (needs {} and {GLIBC_TRACER})", command[0]);
            continue;
        }
        let bytes = std::fs::read(&log).expect("read");
        check(command[0], &String::from_utf8_lossy(&bytes), folder.path());
    }
}

fn check(program: &str, log: &str, folder: &Path) {
    let options = Options { trace_folder: Some(folder.into()), ..Options::default() };
    let mut stated = Vec::new();
    for addressing in [Addressing::Relative, Addressing::Unknown] {
        let sites = sites(log, addressing);
        let start = std::time::Instant::now();
        let resolved = resolve(&sites, &options);
        let took = start.elapsed();
        let named = resolved.places.iter().filter(|place| !place.frames.is_empty()).count();
        let lines = resolved.places.iter().flat_map(|place| &place.frames);
        let lines = lines.filter(|frame| frame.line.is_some()).count();
        println!(
            "{program} {addressing:?}: {} sites, {named} named, {lines} lines, {took:?}",
            sites.sites.len()
        );
        assert_eq!(resolved.notes, [] as [&str; 0], "{program}");
        for (place, site) in resolved.places.iter().zip(&sites.sites) {
            assert_ne!(place.certainty, Certainty::Unresolved, "{program} {site:?}");
        }
        stated.push((sites, resolved.places));
    }
    let (sites, places) = stated.swap_remove(0);
    check_inference(program, sites, &places, &options);
}

/// The same sites as glibc 2.33 would have written them, the symbols left out: each object is
/// placed where it was or nowhere.
fn check_inference(program: &str, mut sites: CallSites, places: &[Place], options: &Options) {
    let mut bias: HashMap<Vec<u8>, u64> = HashMap::new();
    for (site, place) in sites.sites.iter_mut().zip(places) {
        let object = site.object.clone().expect("every site has one");
        let next = 0x7f00_0000_0000 + bias.len() as u64 * 0x1234_5000;
        let bias = *bias.entry(object).or_insert(next);
        site.symbol = None;
        site.addressing = Addressing::Absolute;
        // Those that cannot move are where they are.
        site.address = match (site.address, place.svma) {
            (Some(relative), Some(svma)) if relative == svma => Some(svma + bias),
            (_, svma) => svma,
        };
    }
    let resolved = resolve(&sites, options);
    let inferred = resolved.notes.iter().filter(|note| note.contains("inferred from its calls"));
    println!("{program}: {} of {} objects inferred", inferred.count(), bias.len());
    for (inferred, stated) in resolved.places.iter().zip(places) {
        match inferred.certainty {
            Certainty::Unresolved => assert_eq!(inferred.svma, None, "{program}"),
            _ => assert_eq!(inferred.svma, stated.svma, "{program}: {:?}", resolved.notes),
        }
    }
    for note in &resolved.notes {
        assert!(!note.contains("was changed since"), "{program}: {note}");
    }
}
