use proptest::prelude::*;

use super::*;
use crate::read::{Damage, SiteId};

fn read_text(text: &[u8], chunk: usize) -> (Log, Vec<Event>) {
    let mut events = Vec::new();
    let log =
        read_from(text, Path::new("log"), chunk, Holes::AreLosses, |event| events.push(event))
            .unwrap();
    (log, events)
}

fn sites_of(events: &[Event]) -> Vec<SiteId> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Record { site, .. } => Some(*site),
            _ => None,
        })
        .collect()
}

const OURS: &str = "# mtr log 1\n# id 1f2e3d4c5b6a7988\n# session 00000000000000ff\n# pid 4711\n\
    # started 1790000000.123456789 88231\n# program /home/ann/t\\040x\n# arguments ./t\\040x -v\n\
    # directory /home/ann\n# addresses absolute\n# start mtrace\n\
    # module 0x1000 0x2000 0x1000 9d1c /home/ann/t\\040x ./t\\040x\n= Start\n";

#[test]
fn the_header_of_our_log_is_read_and_unescaped() {
    let (log, _) = read_text(OURS.as_bytes(), 64);
    assert_eq!(log.header.pid, Some(4711));
    assert_eq!(log.header.session, Some(0xff));
    assert_eq!(log.header.program.as_deref(), Some(Path::new("/home/ann/t x")));
    assert_eq!(log.header.arguments, [b"./t x".to_vec(), b"-v".to_vec()]);
    assert_eq!(log.header.start_by_mtrace, Some(true));
    assert_eq!(log.sites.modules[0].name, b"./t x");
    assert_eq!(log.sites.modules[0].build_id, [0x9d, 0x1c]);
    assert_eq!(log.starts, 1);
    assert_eq!(log.damage, Damage::default());
}

#[test]
fn the_same_place_is_the_same_site_and_knows_its_module() {
    let text = format!(
        "{OURS}@ ./t\\040x:[0x1157] + 0x10 0x20\n@ ./t\\040x:[0x1200] - 0x10\n\
         @ ./t\\040x:[0x1157] + 0x10 0x20\n+ 0x90 0x1\n"
    );
    let (log, events) = read_text(text.as_bytes(), 64);
    assert_eq!(sites_of(&events), [0, 1, 0, 2]);
    assert_eq!(log.sites.sites[0].module, Some(0));
    assert_eq!(log.sites.sites[0].object.as_deref(), Some(&b"./t x"[..]));
    assert!(log.sites.sites[0].kinds.alloc && !log.sites.sites[0].kinds.free);
    assert_eq!(log.sites.sites[2].address, None);
}

#[test]
fn the_same_place_is_another_site_after_another_module_took_its_address() {
    let a = "# module 0x5000 0x6000 0x5000 aa /a.so ./p.so\n";
    let b = "# module 0x5000 0x6000 0x5000 bb /b.so ./p.so\n";
    let unload = "# unload 0x5000 0x6000\n";
    let record = "@ ./p.so:[0x5100] + 0x10 0x20\n";
    let text = format!("{OURS}{a}{record}{unload}{b}{record}{unload}{a}{record}{unload}{record}");
    let (log, events) = read_text(text.as_bytes(), 64);
    assert_eq!(sites_of(&events), [0, 1, 0, 2]);
    let modules: Vec<_> = log.sites.sites.iter().map(|site| site.module).collect();
    assert_eq!(modules, [Some(1), Some(2), None]);
    assert_eq!(log.sites.modules.len(), 3);
}

#[test]
fn relative_addresses_find_their_module_by_name() {
    let text = OURS.replace("addresses absolute", "addresses relative")
        + "@ ./t\\040x:(main+1d)[0x157] + 0x10 0x20\n";
    let (log, _) = read_text(text.as_bytes(), 64);
    assert_eq!(log.sites.sites[0].module, Some(0));
    assert_eq!(log.sites.sites[0].addressing, Addressing::Relative);
    assert_eq!(log.sites.sites[0].symbol, Some((b"main".to_vec(), 0x1d)));
}

#[test]
fn a_glibc_log_is_absolute_where_it_shows_it() {
    let (log, _) = read_text(b"= Start\n@ ./t:[0x1157] + 0x10 0x20\n", 64);
    assert_eq!(log.sites.sites[0].addressing, Addressing::Unknown);
    let (log, _) = read_text(b"@ ./t:[0x401157] + 0x1 0x2\n@ ./t:(f+0x1)[0x401158] - 0x1\n", 64);
    assert_eq!(log.sites.sites[0].addressing, Addressing::Absolute);
    let (log, _) = read_text(b"@ ./t:[0x55a95f858157] + 0x1 0x2\n@ [0x1] - 0x1\n", 64);
    assert!(log.sites.sites.iter().all(|site| site.addressing == Addressing::Absolute));
}

#[test]
fn a_malformed_line_is_counted_and_the_first_is_shown() {
    let (log, events) = read_text(b"= Start\nhello\n- 0x10\n- 0x5568f909d= Start\n4a0\n", 64);
    assert_eq!(log.damage.malformed, 3);
    let first = log.damage.first_malformed.unwrap();
    assert_eq!((first.line, first.column, &first.text[..]), (2, 1, "hello"));
    assert_eq!(events.len(), 1);
}

#[test]
fn a_cut_last_line_is_not_taken_at_face_value() {
    let (log, events) = read_text(b"+ 0x10 0x20\n+ 0x30 0x2", 64);
    assert!(log.damage.cut);
    assert_eq!(events.len(), 1);
}

#[test]
fn what_a_killed_process_left_unfinished_is_told_from_damage() {
    let text = b"+ 0x10 0x20\n\0\0\0\0\0\0\0\0gram:[0x1157] - 0x10\n\0\0\0\0\0+ 0x30 0x20\n\
        \0\0\0\0\0\0\0\0x:[0x1] + 0x99 0x1\n@ ./t:[0x1\0\0\0+ 0x50 0x20\n\0\0\0";
    let (log, events) = read_text(text, 7);
    let Event::Unpublished { ptr: 0x10, call: Some(call) } = events[1] else {
        panic!("{events:?}")
    };
    assert_eq!((call.is_realloc, call.line), (false, 2));
    assert_eq!(log.records, 3);
    assert_eq!(log.damage.torn, 2);
    assert_eq!(log.damage.malformed, 0);
    assert!(!log.damage.cut);
}

#[test]
fn a_last_line_without_its_beginning_was_being_stored_and_not_cut() {
    let of = |rest: &str| {
        let (log, _) = read_text(format!("+ 0x10 0x20\n\0\0\0\0\0\0\0\0{rest}").as_bytes(), 7);
        (log.records, log.damage.torn, log.damage.cut)
    };
    assert_eq!(of("x:[0x1] + 0x9"), (1, 1, false));
    assert_eq!(of("@ ./x:[0x1] + 0x9"), (1, 0, true));
}

#[test]
fn the_call_site_of_an_unfinished_realloc_is_known_by_what_is_left_of_it() {
    let with = |addresses: &str, name: &str, place: &str| {
        let head = format!(
            "# mtr log 1\n# addresses {addresses}\n# module 0x1000 0x2000 0x1000 - /t {name}\n"
        );
        let line = format!("@ {place} < 0x30\n");
        let whole = format!("{head}@ {place} + 0x10 0x10\n{line}");
        let open = format!("{whole}\0\0\0\0\0\0\0\0{}", &line[8..]);
        let (log, events) = read_text(open.as_bytes(), 64);
        let [.., Event::Unpublished { ptr: 0x30, call: Some(call) }] = events[..] else {
            panic!("{events:?}")
        };
        assert!(call.is_realloc);
        let site = log.sites.sites[call.site as usize].clone();
        (site.module, site.address, sites_of(&events)[0] == call.site)
    };
    let found = (Some(0), Some(0x1157), true);
    let names = ["ls", "./t", "./prog", "./t\\040x", "/lib/x86_64-linux-gnu/libc.so.6"];
    for name in names {
        assert_eq!(with("absolute", name, &format!("{name}:[0x1157]")), found, "{name}");
        assert_eq!(with("relative", name, &format!("{name}:[0x1157]")), found, "{name}");
    }
    for name in &names[2..] {
        assert_eq!(with("absolute", name, &format!("{name}:(f+0x1)[0x1157]")), found, "{name}");
        assert_eq!(with("relative", name, &format!("{name}:(f+1)[0x1157]")), found, "{name}");
    }
    // Of a symbol that was cut the address is left; of an address that was cut there is nothing.
    let cut = with("absolute", "ls", "ls:(f+0x1)[0x1157]");
    assert_eq!(cut, (Some(0), Some(0x1157), false));
    assert_eq!(with("absolute", "w", "w:[0x1157]"), (None, None, false));
    assert_eq!(with("absolute", "ls", "[0x55550000]"), (None, None, false));
}

#[test]
fn the_log_of_a_running_process_ends_at_its_first_hole() {
    let text = b"+ 0x10 0x20\n- 0x10\n\0\0\0\0\0\0\0\0gram:[0x1157] - 0x30\n+ 0x10 0x20\n";
    let read = |text: &[u8]| {
        let mut records = 0;
        let path = Path::new("log");
        let log = read_from(text, path, 64, Holes::AreTheEnd { from: u64::MAX }, |_| records += 1)
            .unwrap();
        assert!(!log.damage.cut && log.damage.torn == 0);
        (log.lines, records)
    };
    assert_eq!(read(text), (2, 2));
    // The line at the very end may be half stored.
    assert_eq!(read(b"+ 0x10 0x20\n- 0x1"), (2, 1));
}

#[test]
fn a_large_hole_is_a_loss_of_so_many_bytes() {
    let hole = [0; HOLE as usize];
    let text =
        [OURS.as_bytes(), b"+ 0x10 0x20\n@ ./t", &hole, b" 0x10\n- 0x10\n", &hole, b"+ 0x1 0x2\n"]
            .concat();
    let (log, events) = read_text(&text, 64);
    let Damage { holes, hole_bytes, first_hole, torn, .. } = log.damage;
    assert_eq!((holes, hole_bytes, torn), (2, 2 * HOLE, 0));
    assert_eq!(first_hole, Some((14, OURS.len() as u64 + 17)));
    assert_eq!((log.records, log.record_bytes, events.len()), (3, 12 + 7 + 10, 3));
    // A running process's, if what follows the hole is in the file; else it may not be stored yet.
    let read = |from| {
        let (path, holes) = (Path::new("log"), Holes::AreTheEnd { from });
        read_from(&text[..], path, 64, holes, |_| {}).unwrap()
    };
    assert_eq!((read(1 << 20).records, read(1 << 20).damage.hole_bytes), (3, 2 * HOLE));
    assert_eq!((read(2 * HOLE).records, read(2 * HOLE).damage.holes), (2, 1));
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let error =
        read_from(&b"# mtr log 2\n"[..], Path::new("x.mtrace"), 64, Holes::AreLosses, |_| {})
            .unwrap_err();
    assert!(error.to_string().starts_with("x.mtrace:1: expected a log of version 1"), "{error}");
}

proptest! {
    #[test]
    fn any_chunk_size_reads_the_same(
        text in "([@+<>=#!\\-] ?(./t:\\[0x1\\] )?[+\\-<>!]? ?0x[12]0 ?(0x2)?[\n\0]{1,2}){0,12}",
        chunk in 1usize..50,
    ) {
        let (log, events) = read_text(text.as_bytes(), chunk);
        let (whole, all) = read_text(text.as_bytes(), 1 << 16);
        prop_assert_eq!(events, all);
        prop_assert_eq!(log.damage, whole.damage);
        prop_assert_eq!(log.sites.sites, whole.sites.sites);
    }
}

#[test]
fn a_log_whose_front_is_gone_is_read_and_says_so() {
    let rest = b"@ ./t:[0x1157] + 0x10 0x20\n@ ./t:[0x1157] + 0x30 0x20\n";
    for (front, torn) in [(&b"\0\0\0\0"[..], 1), (b"\0\0 + 0x10 0x", 1), (b"", 0)] {
        let (log, _) = read_text(&[front, rest].concat(), 64);
        assert_eq!((log.damage.torn, log.records >= 1), (torn, true), "{front:?}");
    }
    let (log, _) = read_text(b"\0\0\0# mtr log 1\n+ 0x10 0x10\n", 64);
    assert_eq!(log.damage, Damage::default());
}
