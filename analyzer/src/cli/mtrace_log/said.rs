//! What is missing from a trace, in lines of a log that is made from it.

use std::io::{self, Write};

use mtr_format::text::escape::{MAX_ESCAPED, escape};

use crate::read::Damage;

/// Writes what the log has not been told yet, and takes it for told. A hole is where its line stands.
pub(super) fn say(damage: &Damage, told: &mut Damage, out: &mut impl Write) -> io::Result<()> {
    if damage.lost > 0 && of_loss(damage) != of_loss(told) {
        write!(out, "# lost {} {}", damage.lost, damage.lost_errno as u32)?;
        end_with_time(damage.lost_since, out)?;
    }
    if (damage.missing, damage.missing_since) != (told.missing, told.missing_since) {
        write!(out, "# missing {}", damage.missing)?;
        end_with_time(damage.missing_since, out)?;
    }
    let damaged = (damage.damaged, damage.damaged_bytes);
    if damaged != (told.damaged, told.damaged_bytes) {
        writeln!(out, "# damaged {} {}", damaged.0, damaged.1)?;
    }
    if damage.holes > told.holes {
        writeln!(out, "# hole {}", damage.hole_bytes.saturating_sub(told.hole_bytes))?;
    }
    if damage.torn != told.torn {
        writeln!(out, "# torn {}", damage.torn)?;
    }
    match damage.unsaved {
        unsaved if unsaved == told.unsaved => {}
        u64::MAX => writeln!(out, "# unsaved all")?,
        streams => writeln!(out, "# unsaved {streams}")?,
    }
    if damage.meaningless != told.meaningless {
        writeln!(out, "# meaningless {}", damage.meaningless)?;
    }
    if damage.cut && !told.cut {
        writeln!(out, "# cut line")?;
    }
    if damage.chunk_cut && !told.chunk_cut {
        writeln!(out, "# cut chunk")?;
    }
    if let Some((there, whole)) = damage.short
        && damage.short != told.short
    {
        writeln!(out, "# cut {there} {whole}")?;
    }
    if damage.tail_missing && !told.tail_missing {
        writeln!(out, "# tail missing")?;
    }
    if let Some(reason) = &damage.tail_ignored
        && damage.tail_ignored != told.tail_ignored
    {
        let mut escaped = vec![0; reason.len() * MAX_ESCAPED];
        let length = escape(reason.as_bytes(), &mut escaped);
        out.write_all(b"# tail unused ")?;
        out.write_all(&escaped[..length])?;
        out.write_all(b"\n")?;
    }
    told.clone_from(damage);
    Ok(())
}

/// All that a `# lost` line says.
fn of_loss(damage: &Damage) -> (u64, i32, Option<u64>) {
    (damage.lost, damage.lost_errno, damage.lost_since)
}

fn end_with_time(since: Option<u64>, out: &mut impl Write) -> io::Result<()> {
    match since {
        Some(nanoseconds) => writeln!(out, " {nanoseconds}"),
        None => writeln!(out),
    }
}
