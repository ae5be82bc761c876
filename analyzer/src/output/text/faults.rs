//! The list of faults.

use std::io::{self, Write};

use super::place::Counts;
use super::{Options, place};
use crate::output::number::{counted, thousands};
use crate::profile::{AllocatedBy, Fault, FaultKind, FreeKind, Inside, Profile};

/// Writes the faults, if there are any.
pub(super) fn write(profile: &Profile, options: &Options, out: &mut impl Write) -> io::Result<()> {
    if profile.faults.is_empty() {
        return Ok(());
    }
    let all = profile.faults.iter().map(|fault| fault.count).sum();
    writeln!(out, "\n{}:\n", counted(all, "fault", "faults"))?;
    for fault in profile.faults.iter().take(options.top) {
        let unit = if profile.is_compact { "event" } else { "line" };
        write!(out, "  {} ({unit} {} of the trace", what(fault), thousands(fault.line))?;
        match fault.count {
            1 => writeln!(out, ")")?,
            count => writeln!(out, ", {} times)", thousands(count))?,
        }
        if let Some(detail) = detail(fault) {
            writeln!(out, "    {detail}")?;
        }
        let (by, first) = match fault.kind {
            FaultKind::DuplicateAlloc => ("by", ""),
            _ if fault.is_realloc => ("reallocated by", "freed by"),
            _ => ("freed by", "first freed by"),
        };
        let roles = [
            (by, Some(&fault.by)),
            (first, fault.freed.as_ref()),
            ("allocated by", fault.allocated.as_ref()),
        ];
        let width = roles.iter().filter(|(_, at)| at.is_some()).map(|(role, _)| role.len()).max();
        let width = width.unwrap_or(0);
        for (role, at) in roles {
            if let Some(at) = at {
                let first = format!("    {role:width$} ");
                let others = " ".repeat(first.len());
                let lead = place::Lead { first: &first, others: &others };
                place::write(at, (at.stack, Counts::Exact), &profile.stacks, lead, options, out)?;
            }
        }
    }
    if profile.faults.len() > options.top {
        writeln!(
            out,
            "  ... and {} at other places (--top {} shows all)",
            counted((profile.faults.len() - options.top) as u64, "fault", "faults"),
            profile.faults.len()
        )?;
    }
    Ok(())
}

/// The fault and the address.
fn what(fault: &Fault) -> String {
    let what = match fault.kind {
        FaultKind::DoubleFree if fault.is_realloc => "Realloc of freed memory,",
        FaultKind::UnknownFree if fault.is_realloc => {
            "Realloc of an address that was never allocated,"
        }
        FaultKind::InteriorFree if fault.is_realloc => "Realloc of an address inside of a block,",
        FaultKind::DoubleFree => "Double free of",
        FaultKind::UnknownFree => "Free of an address that was never allocated,",
        FaultKind::InteriorFree => "Free of an address inside of a block,",
        FaultKind::MismatchedFree { .. } => "Mismatched free of",
        FaultKind::DuplicateAlloc => "Duplicate allocation of a live address,",
    };
    format!("{what} {:#x}", fault.ptr)
}

/// What else there is to say of it.
fn detail(fault: &Fault) -> Option<String> {
    match fault.kind {
        FaultKind::InteriorFree => {
            let Inside { start, size } = fault.inside?;
            let [offset, size] =
                [fault.ptr.saturating_sub(start), size].map(|n| counted(n, "byte", "bytes"));
            Some(format!("{offset} behind the beginning of a block of {size}"))
        }
        FaultKind::MismatchedFree { allocated, freed } => {
            let of = fault.size.map(|size| format!("{}, ", counted(size, "byte", "bytes")));
            let allocated = match allocated {
                AllocatedBy::Malloc => "malloc or the like",
                AllocatedBy::New => "new",
                AllocatedBy::NewArray => "new[]",
                AllocatedBy::AnyNew => "operator new",
            };
            let freed = match freed {
                FreeKind::Free => "free",
                FreeKind::Delete => "delete",
                FreeKind::DeleteArray => "delete[]",
                FreeKind::Unknown => "another function",
            };
            let of = of.unwrap_or_default();
            Some(format!("{of}allocated with {allocated}, freed with {freed}"))
        }
        _ => None,
    }
}
