//! Could the call in front of this address have made those records?
//!
//! The question decides between load biases, and whether a file is the one that was traced. The
//! answer "no" has to be certain, because it rules out what may be the truth; "yes" need not be.
//! So "no" is said only where
//!
//! - no call instruction ends at the address, or
//! - the call goes to a function of glibc (by its symbol version) that neither is one of the
//!   allocator nor ends by jumping to one, or
//! - the call goes to a function of the same file whose extent is known and which contains nothing
//!   that could be a jump to one of the allocator. A wrapper that ends in `jmp malloc` leaves no
//!   frame: its caller is what the record names.
//!
//! Calls through registers, to other libraries, and to functions of unknown extent fit everything.

use super::address::{ReturnAddress, Svma};
use super::object_file::ObjectFile;
use super::symbols::Symbol;
use super::x86_64::{self, Target};
use crate::read::Kinds;
use hashbrown::{HashMap, HashSet};
use object::read::elf::ElfFile64;
use object::{Object, RelocationTarget};
use std::cell::RefCell;

/// How many functions are looked through before the answer is "yes".
const MOST_FUNCTIONS: usize = 200;

/// What the loader puts into a word of the file's data.
#[derive(Debug, Clone)]
enum Slot {
    /// The address of a symbol of another module, and the version that it must have.
    Imported { name: Box<[u8]>, version: Box<[u8]> },
    /// Something that the file defines, though another module may come before it.
    Other,
}

/// Answers the question for one file and remembers what it has found out.
pub(super) struct CallCheck<'a> {
    object: &'a ObjectFile,
    slots: HashMap<u64, Slot>,
    reaches: RefCell<HashMap<(Svma, u8), bool>>,
}

impl<'a> CallCheck<'a> {
    pub(super) fn new(object: &'a ObjectFile) -> CallCheck<'a> {
        let slots = imported_slots(object).unwrap_or_default();
        CallCheck { object, slots, reaches: RefCell::new(HashMap::new()) }
    }

    /// Whether code can be inspected at all. Where it cannot, every answer is "yes".
    pub(super) fn is_supported(&self) -> bool {
        self.object.machine == object::Architecture::X86_64
    }

    /// Whether a call instruction ends exactly at the address.
    pub(super) fn follows_call(&self, address: ReturnAddress) -> bool {
        self.calls(address).next().is_some()
    }

    /// Whether the call in front of the address could have made records of all these kinds.
    pub(super) fn can_record(&self, address: ReturnAddress, kinds: Kinds) -> bool {
        if !self.is_supported() {
            return self.object.code().any(|range| range.contains(&address.for_lookup().0));
        }
        // Without records there is nothing to contradict.
        let any = kinds == Kinds::default();
        self.calls(address).any(|target| any || self.can_reach(target, kinds))
    }

    /// The imported symbol that is called in front of the address, directly or by the PLT.
    pub(super) fn call_target_symbol(&self, address: ReturnAddress) -> Option<String> {
        self.calls(address).find_map(|target| {
            let slot = match target {
                Target::Direct(to) => x86_64::plt_slot(self.object.code_from(to), to)?,
                Target::Slot(slot) => slot,
                Target::Computed | Target::Near(_) => return None,
            };
            match self.slots.get(&slot.0)? {
                Slot::Imported { name, .. } => Some(String::from_utf8_lossy(name).into_owned()),
                Slot::Other => None,
            }
        })
    }

    fn calls(&self, address: ReturnAddress) -> impl Iterator<Item = Target> + '_ {
        x86_64::calls_ending_at(self.object.code_before(address.0), address.0)
    }

    fn can_reach(&self, target: Target, kinds: Kinds) -> bool {
        match self.follow(target, kinds) {
            Reach::Known(answer) => answer,
            Reach::Through(function) => {
                let key = (function.address, kinds_key(kinds));
                if let Some(&answer) = self.reaches.borrow().get(&key) {
                    return answer;
                }
                let answer = self.jumps_can_reach(function, kinds);
                self.reaches.borrow_mut().insert(key, answer);
                answer
            }
        }
    }

    fn follow(&self, target: Target, kinds: Kinds) -> Reach {
        let to = match target {
            Target::Computed => return Reach::Known(true),
            Target::Slot(slot) => return Reach::Known(self.slot_can_reach(slot, kinds)),
            Target::Near(to) if self.is_nothing(to) => return Reach::Known(false),
            Target::Direct(to) | Target::Near(to) => to,
        };
        let code = self.object.code_from(to);
        if code.is_empty() {
            return Reach::Known(false);
        }
        if let Some(slot) = x86_64::plt_slot(code, to) {
            return Reach::Known(self.slot_can_reach(slot, kinds));
        }
        let tables = [self.object.static_symbols(), self.object.dynamic_symbols()];
        let mut names = tables.iter().flat_map(|table| table.at(to));
        if names.any(|symbol| records(symbol.name(&self.object.bytes), kinds)) {
            return Reach::Known(true);
        }
        match tables.iter().find_map(|table| table.containing(to)) {
            Some(function) if function.size > 0 && function.is_plain_function => {
                Reach::Through(function.clone())
            }
            _ => Reach::Known(true),
        }
    }

    /// Whether a near jump to the address must be a chance pattern: two bytes make one easily. A
    /// real one that leaves its function goes to the start of another.
    fn is_nothing(&self, to: Svma) -> bool {
        let symbols = self.object.static_symbols();
        !symbols.is_empty() && symbols.at(to).is_empty()
    }

    fn slot_can_reach(&self, slot: Svma, kinds: Kinds) -> bool {
        match self.slots.get(&slot.0) {
            Some(Slot::Imported { name, version }) => {
                records(name, kinds) || !version.starts_with(b"GLIBC_")
            }
            // A pointer of the program's own, a relative relocation, an IRELATIVE one.
            Some(Slot::Other) | None => true,
        }
    }

    /// Whether a function, or one that it may end by jumping to, and so on, makes the records.
    fn jumps_can_reach(&self, function: Symbol, kinds: Kinds) -> bool {
        let mut seen: HashSet<Svma> = HashSet::new();
        seen.insert(function.address);
        let mut open = vec![function];
        while let Some(function) = open.pop() {
            let code = self.object.code_from(function.address);
            let Some(code) = code.get(..function.size as usize) else { return true };
            if x86_64::returns_elsewhere(code) {
                return true;
            }
            let end = function.address.wrapping_add(function.size as i64);
            for jump in x86_64::jumps(code, function.address) {
                if let Target::Direct(to) | Target::Near(to) = jump
                    && (function.address..end).contains(&to)
                {
                    continue;
                }
                match self.follow(jump, kinds) {
                    Reach::Known(true) => return true,
                    Reach::Known(false) => {}
                    Reach::Through(next) if seen.insert(next.address) => open.push(next),
                    Reach::Through(_) => {}
                }
            }
            if seen.len() > MOST_FUNCTIONS {
                return true;
            }
        }
        false
    }
}

/// Where a call or a jump leads.
enum Reach {
    Known(bool),
    /// Into a function of this file, which has to be looked through.
    Through(Symbol),
}

fn kinds_key(kinds: Kinds) -> u8 {
    u8::from(kinds.alloc) | u8::from(kinds.free) << 1 | u8::from(kinds.realloc) << 2
}

/// Whether a call of the function with this symbol can make records of all these kinds.
fn records(name: &[u8], kinds: Kinds) -> bool {
    const ALLOCATING: &[&str] = &[
        "malloc",
        "calloc",
        "memalign",
        "aligned_alloc",
        "posix_memalign",
        "valloc",
        "pvalloc",
        "__libc_malloc",
        "__libc_calloc",
        "__libc_memalign",
        "__libc_valloc",
        "__libc_pvalloc",
        "__posix_memalign",
    ];
    // Those behind "operator delete" are functions of glibc whose last act is to jump to free.
    const FREEING: &[&str] = &[
        "free",
        "cfree",
        "free_sized",
        "free_aligned_sized",
        "__libc_free",
        "__cfree",
        "freeifaddrs",
        "if_freenameindex",
        "tdestroy",
        "__tdestroy",
        "freelocale",
        "__freelocale",
        "xdrrec_destroy",
    ];
    const RESIZING: &[&str] = &["realloc", "reallocarray", "__libc_realloc", "__libc_reallocarray"];
    let is_one_of = |names: &[&str]| names.iter().any(|n| n.as_bytes() == name);
    // operator new, new[], delete, delete[] in all their forms.
    let is_new = name.starts_with(b"_Znw") || name.starts_with(b"_Zna");
    let is_delete = name.starts_with(b"_Zdl") || name.starts_with(b"_Zda");
    if is_one_of(RESIZING) {
        return true;
    }
    let allocates = is_one_of(ALLOCATING) || is_new;
    let frees = is_one_of(FREEING) || is_delete;
    // A record of `free` at a call of malloc is as impossible as the reverse.
    (allocates || frees) && !kinds.realloc && (!kinds.alloc || allocates) && (!kinds.free || frees)
}

/// The words that the loader fills with addresses of symbols.
fn imported_slots(object: &ObjectFile) -> Option<HashMap<u64, Slot>> {
    use object::read::elf::Sym;
    let elf = ElfFile64::<object::Endianness>::parse(&*object.bytes).ok()?;
    let endian = elf.endian();
    let versions = elf.elf_section_table().versions(endian, elf.data()).ok().flatten();
    let symbols = elf.elf_dynamic_symbol_table();
    let mut slots = HashMap::new();
    for (address, relocation) in elf.dynamic_relocations()? {
        let slot = match relocation.target() {
            RelocationTarget::Symbol(index) => {
                let Ok(symbol) = symbols.symbol(index) else { continue };
                let name = symbols.symbol_name(endian, symbol).unwrap_or_default();
                let version = versions.as_ref().and_then(|table| {
                    let index = table.version_index(endian, index).index();
                    Some(table.version(index).ok()??.name())
                });
                if symbol.is_undefined(endian) {
                    let version = version.unwrap_or_default();
                    Slot::Imported { name: name.into(), version: version.into() }
                } else {
                    Slot::Other
                }
            }
            _ => Slot::Other,
        };
        slots.insert(address, slot);
    }
    Some(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOC: Kinds = Kinds { alloc: true, free: false, realloc: false };
    const FREE: Kinds = Kinds { alloc: false, free: true, realloc: false };
    const REALLOC: Kinds = Kinds { alloc: false, free: false, realloc: true };

    #[test]
    fn a_function_records_what_it_is_for() {
        assert!(records(b"malloc", ALLOC) && !records(b"malloc", FREE));
        assert!(records(b"free", FREE) && !records(b"free", ALLOC));
        assert!(records(b"_ZdlPvm", FREE) && records(b"_Znam", ALLOC));
        assert!(records(b"realloc", REALLOC) && records(b"realloc", ALLOC));
        assert!(records(b"realloc", Kinds { alloc: true, free: true, realloc: true }));
        assert!(!records(b"malloc", REALLOC) && !records(b"printf", ALLOC));
        assert!(!records(b"malloc", Kinds { alloc: true, free: true, realloc: false }));
    }

    /// Compares with a disassembler: each instruction behind a call, and no more than a few others.
    #[test]
    fn calls_and_plt_stubs_are_those_that_objdump_shows() {
        const SOURCE: &str = "
            #include <stdlib.h>
            void *(*table[4])(size_t) = { malloc };
            __attribute__((noinline)) void *wrapper(size_t n) { return malloc(n); }
            __attribute__((noinline)) int plain(int n) { return n * 3; }
            int main(int c, char **v) {
                void *a = malloc(c), *b = calloc(c, 2), *d = wrapper(c), *e = table[c - 1](9);
                a = realloc(a, plain(c)); free(b); free(d); free(e); free(a); return 0; }";
        let folder = tempfile::tempdir().expect("temporary folder");
        let source = folder.path().join("p.c");
        std::fs::write(&source, SOURCE).expect("source written");
        let builds: [&[&str]; 6] = [
            &["-O0"],
            &["-O2", "-fcf-protection=full", "-Wl,-z,now"],
            &["-O2", "-fno-plt"],
            &["-O1", "-no-pie"],
            &["-O2", "-Wl,-z,ibtplt"],
            &["-Os", "-fno-optimize-sibling-calls"],
        ];
        for flags in builds {
            let program = folder.path().join("p");
            let mut cc = std::process::Command::new("cc");
            let Ok(status) = cc.args(flags).arg("-o").arg(&program).arg(&source).status() else {
                return println!("skipped: calls_and_plt_stubs (needs cc)");
            };
            assert!(status.success(), "{flags:?}");
            let mut objdump = std::process::Command::new("objdump");
            let Ok(output) = objdump.arg("-d").arg(&program).output() else {
                return println!("skipped: calls_and_plt_stubs (needs objdump)");
            };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let object = ObjectFile::open(&program).expect("program opened");
            let check = CallCheck::new(&object);
            compare_with_disassembly(&check, &text, flags);
            let main = object.static_symbols().named(&object.bytes, b"main")[0];
            let returns: Vec<ReturnAddress> = (main.0..main.0 + 300)
                .map(|address| ReturnAddress(Svma(address)))
                .filter(|&address| check.follows_call(address))
                .collect();
            // Every kind of record has a call in main that may have made it, and the call of
            // plain, which only multiplies, is none of them.
            for kinds in [ALLOC, FREE, REALLOC] {
                assert!(returns.iter().any(|&r| check.can_record(r, kinds)), "{flags:?}");
            }
            let symbol = |name: &[u8]| object.static_symbols().named(&object.bytes, name)[0];
            let direct = |name: &[u8]| Target::Direct(symbol(name));
            // gcc makes tail calls of calls from -O2 on.
            let is_jump = flags[0] == "-O2";
            assert_eq!(check.can_reach(direct(b"wrapper"), ALLOC), is_jump, "{flags:?}");
            assert!(!check.can_reach(direct(b"plain"), ALLOC), "{flags:?}");
            assert!(!check.can_reach(direct(b"wrapper"), FREE), "{flags:?}");
        }
    }

    fn compare_with_disassembly(check: &CallCheck<'_>, text: &str, flags: &[&str]) {
        let mut after_call: Option<String> = None;
        let (mut calls, mut named) = (0, 0);
        for line in text.lines() {
            let Some((address, rest)) = line.trim().split_once(":\t") else { continue };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            let address = ReturnAddress(Svma(address));
            if let Some(call) = after_call.take() {
                calls += 1;
                assert!(check.follows_call(address), "{flags:?} {call}");
                if let Some(name) = call.split_once('<').and_then(|(_, n)| n.split_once("@plt")) {
                    named += 1;
                    let found = check.call_target_symbol(address);
                    assert_eq!(found.as_deref(), Some(name.0), "{flags:?} {call}");
                }
            }
            let instruction = rest.split('\t').nth(1).unwrap_or_default();
            if instruction.split(' ').any(|word| word == "call") {
                after_call = Some(rest.to_owned());
            }
        }
        assert!(
            calls >= 8 && (named >= 5 || flags.contains(&"-fno-plt")),
            "{flags:?} {calls} {named}"
        );
    }
}
