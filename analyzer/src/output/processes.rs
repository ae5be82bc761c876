//! One line for each process of several.

use std::io::{self, Write};

use hashbrown::HashSet;

use super::number::{counted, thousands};
use super::text::{cut, printable};
use crate::profile::{Ending, Part};

/// Writes a title and a line for each of the first `most` processes.
pub fn list(parts: &[Part], most: usize, columns: usize, out: &mut impl Write) -> io::Result<()> {
    let pids: Vec<_> = parts.iter().map(|part| part.pid).collect();
    writeln!(out, "{}:\n", title(&pids, "process together", "processes together"))?;
    for part in parts.iter().take(most) {
        writeln!(out, "  {}", line(part, columns - 2))?;
    }
    if parts.len() > most {
        let rest = (parts.len() - most) as u64;
        writeln!(
            out,
            "  ... and {} (--top {} shows all)",
            counted(rest, "other", "others"),
            parts.len()
        )?;
    }
    writeln!(out)
}

/// How many processes these are, by the process ID of each of their images: one that has executed
/// another program has several.
pub fn title(pids: &[Option<u32>], one: &str, many: &str) -> String {
    let unknown = pids.iter().filter(|pid| pid.is_none()).count();
    let known: HashSet<u32> = pids.iter().flatten().copied().collect();
    let processes = unknown + known.len();
    let title = counted(processes as u64, one, many);
    match pids.len() {
        images if images == processes => title,
        images => format!("{title}, {} images (exec begins a new one)", thousands(images as u64)),
    }
}

/// Command, process and numbers, in `width` columns unless the numbers alone are longer.
pub fn line(part: &Part, width: usize) -> String {
    let when = if part.ending == Ending::Running { "live now" } else { "at exit" };
    let pid = part.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let numbers = format!(
        "{pid}: {}, {} in {} {when}",
        counted(part.totals.allocs, "alloc", "allocs"),
        counted(part.totals.live_bytes, "byte", "bytes"),
        counted(part.totals.live_blocks, "block", "blocks"),
    );
    let room = width.saturating_sub(numbers.len()).max(8);
    format!("{}{numbers}", cut(&command(part), room))
}

/// The command line, the program without its folder.
fn command(part: &Part) -> String {
    let name = part.program.as_deref().and_then(|program| program.file_name());
    let name = name.or(part.trace.file_name()).unwrap_or_default();
    let name = printable(name.as_encoded_bytes());
    let arguments = part.arguments.iter().skip(1).map(|argument| printable(argument));
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Totals;

    #[test]
    fn the_images_of_a_process_are_one_process() {
        let title = |pids: &[Option<u32>]| title(pids, "other process", "other processes");
        assert_eq!(title(&[Some(7)]), "1 other process");
        assert_eq!(title(&[Some(7), None, None]), "3 other processes");
        let images = title(&[Some(7), Some(8), Some(7), Some(8), Some(7)]);
        assert_eq!(images, "2 other processes, 5 images (exec begins a new one)");
        assert_eq!(title(&[Some(7); 2]), "1 other process, 2 images (exec begins a new one)");
    }

    #[test]
    fn a_long_command_gives_way_to_the_numbers() {
        let totals = Totals { allocs: 1200, live_bytes: 1, live_blocks: 1, ..Totals::default() };
        let arguments = ["make", "-C", &"deep/".repeat(30)].map(|word| word.as_bytes().to_vec());
        let part = Part {
            program: Some("/usr/bin/make".into()),
            arguments: arguments.to_vec(),
            pid: Some(4711),
            totals,
            ..Part::default()
        };
        let text = line(&part, 78);
        assert_eq!(text.len(), 78);
        assert!(
            text.starts_with("make -C deep/") && text.contains("... (pid 4711): 1,200 allocs,")
        );
        assert!(text.ends_with(", 1 byte in 1 block at exit"));
        let short = Part { arguments: Vec::new(), ending: Ending::Running, ..part };
        assert_eq!(line(&short, 78), "make (pid 4711): 1,200 allocs, 1 byte in 1 block live now");
    }
}
