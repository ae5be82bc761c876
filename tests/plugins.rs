//! Libraries that come and go, at the same address: each allocation belongs to the one that was
//! there when it was made.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::*;

#[test]
fn plugins_at_the_same_address_are_told_apart() {
    let folder = Folder::new("plugins");
    let sources = ["red", "blue"].map(|name| example(&format!("plugins/{name}.c")));
    for (name, source) in ["red.so", "blue.so"].iter().zip(&sources) {
        compile(&folder, name, source, &["-shared", "-fPIC"]);
    }
    let host = compile(&folder, "host", &example("plugins/host.c"), &["-ldl"]);
    let run = Traced::new(&folder, &host).args(&["./red.so", "./blue.so"]).run().succeeded();

    let addresses: BTreeMap<String, BTreeSet<String>> =
        run.stdout().lines().fold(BTreeMap::new(), |mut map, line| {
            let words: Vec<&str> = line.split(' ').collect();
            map.entry(words[2].to_owned()).or_default().insert(words[0].to_owned());
            map
        });
    if !addresses.values().any(|names| names.len() == 2) {
        skip("plugins at the same address", "the loader put them at different ones");
    }

    let log = run.log();
    log.is_in_order();
    let mut found = BTreeMap::new();
    for record in log.records().filter(|r| r.is_from(".so")) {
        let Some((_, size @ (50 | 111 | 222))) = record.allocated() else { continue };
        let (module, svma) = log.module_of(record).unwrap_or_else(|| panic!("{record:?}"));
        let name = module.path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(record.is_from(&name), "the record and the module map: {record:?} {module:?}");
        if find_tool("addr2line").is_some() {
            let location = addr2line(&module.path, &[svma - 1]).remove(0).unwrap();
            assert_eq!(location.file, name.replace(".so", ".c"), "{record:?}");
            assert_eq!(location.function, "make", "{record:?}");
        }
        *found.entry((name, size)).or_insert(0) += 1;
    }
    let expected = [("blue.so", 222, 3), ("red.so", 50, 3), ("red.so", 111, 3)]
        .map(|(n, s, c)| ((n.to_owned(), s), c));
    assert_eq!(found, BTreeMap::from(expected));

    let report = mtr_report([&run.path]).without_faults();
    let lines = [
        ("red.c", line_of(&sources[0], "return malloc(size);"), "333"),
        ("blue.c", line_of(&sources[1], "= calloc(1, size);"), "666"),
    ];
    for (file, line, bytes) in lines {
        report.names("make", file, line);
        assert_eq!(report.lines(file), BTreeSet::from([line]), "{}", report.description());
        let place = report.text.find(&format!("{file}:{line}")).unwrap();
        let near = &report.text[place.saturating_sub(300)..(place + 300).min(report.text.len())];
        assert!(near.contains(bytes), "{bytes} bytes of {file}: {}", report.description());
    }
}

#[test]
fn a_plugin_that_stays_closed_still_has_its_lines() {
    // The file is gone when the report is made, but for the map in the trace: by name only.
    let folder = Folder::new("plugins-gone");
    compile(&folder, "red.so", &example("plugins/red.c"), &["-shared", "-fPIC"]);
    let host = compile(&folder, "host", &example("plugins/host.c"), &["-ldl"]);
    let run = Traced::new(&folder, &host).args(&["./red.so"]).run().succeeded();
    std::fs::remove_file(folder.join("red.so")).unwrap();
    let report = mtr_report([&run.path]).without_faults();
    assert!(report.text.contains("red.so"), "{}", report.description());
    assert!(report.lines("red.c").is_empty(), "no guess: {}", report.description());
    assert!(run.log().notes("unload").len() >= 3 || run.log().modules.len() > 3);
}
