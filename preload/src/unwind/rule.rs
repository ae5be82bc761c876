//! A row of the CFI table in 31 bits, for the rows that nearly all code has. The others say
//! [`Kind::Complex`], and are computed anew at each visit (step.rs).
//!
//! ```text
//! bits 0..3    kind
//! bits 3..10   n: rbp is saved at CFA - 8n; 0: it is unchanged
//! bits 10..31  offset / 8, signed
//! ```

use super::cfi::{CfaRule, RBP, REGISTERS, RETURN_ADDRESS, RSP, RegisterRule, Row, row_at};
use super::cursor::Cursor;
use super::eh_frame;

/// See the module's documentation. In every simple kind the return address is at CFA - 8, and rsp is
/// the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule(u32);

/// How a frame's caller is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// There is no CFI for this PC.
    Unknown = 0,
    /// CFA = rsp + offset.
    Rsp = 1,
    /// CFA = rbp + offset.
    Rbp = 2,
    /// CFA = word at rbp + offset, rbp = word at rbp: functions that align their stack.
    AtRbp = 3,
    /// There is no caller.
    Root = 4,
    /// Needs more than a rule holds.
    Complex = 5,
}

/// Bits of a rule.
pub(super) const BITS: u32 = 31;
const MAX_RBP_SLOT: i32 = 127;
const MAX_OFFSET: i32 = 1 << 20;

impl Rule {
    pub(super) const UNKNOWN: Rule = Rule(0);
    pub(super) const COMPLEX: Rule = Rule(Kind::Complex as u32);

    /// From the low bits of `bits`.
    #[inline(always)]
    pub(super) fn from_bits(bits: u64) -> Self {
        Rule(bits as u32 & ((1 << BITS) - 1))
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u64 {
        self.0.into()
    }

    #[inline(always)]
    pub(super) fn kind(self) -> Kind {
        match self.0 & 7 {
            1 => Kind::Rsp,
            2 => Kind::Rbp,
            3 => Kind::AtRbp,
            4 => Kind::Root,
            5 => Kind::Complex,
            _ => Kind::Unknown,
        }
    }

    /// Whether the kind is [`Kind::Rbp`], of a rule that is of that or of [`Kind::Rsp`].
    #[inline(always)]
    pub(super) fn is_plain_by_rbp(self) -> bool {
        self.0 & Kind::Rbp as u32 != 0
    }

    /// What is added to the register.
    #[inline(always)]
    pub(super) fn offset(self) -> u64 {
        (i64::from((self.0 << 1) as i32 >> 11) * 8) as u64
    }

    /// How far below the CFA rbp is saved, 0 when it is unchanged.
    #[inline(always)]
    pub(super) fn rbp_below_cfa(self) -> u64 {
        u64::from((self.0 >> 3) & 127) * 8
    }

    fn new(kind: Kind, rbp_slot: i32, offset: i32) -> Option<Rule> {
        let fits = (0..=MAX_RBP_SLOT).contains(&rbp_slot)
            && offset % 8 == 0
            && (-MAX_OFFSET..MAX_OFFSET).contains(&(offset / 8))
            // What is below rsp is gone: walks need not look.
            && (kind != Kind::Rsp || offset >= 8 * rbp_slot.max(1));
        let offset = (offset / 8) as u32 & ((1 << 21) - 1);
        fits.then_some(Rule(kind as u32 | (rbp_slot as u32) << 3 | offset << 10))
    }

    /// The rule of the code at `pc`, from the module that is loaded there.
    pub(super) fn of(pc: u64) -> Rule {
        let found = eh_frame::find(pc);
        let Some(fde) = &found else { return Rule::UNKNOWN };
        match row_at(fde, pc) {
            Some(_) if fde.cie.is_signal => Rule::COMPLEX,
            Some(row) => Rule::from_row(&row, fde.program),
            // Computing it again will fail again, and tell why.
            None => Rule::COMPLEX,
        }
    }

    /// Packs a row whose expressions lie in `segment`.
    pub(super) fn from_row(row: &Row, segment: Cursor<'_>) -> Rule {
        Rule::simple(row, segment).unwrap_or(Rule::COMPLEX)
    }

    fn simple(row: &Row, segment: Cursor<'_>) -> Option<Rule> {
        use RegisterRule::*;
        match row.register(RETURN_ADDRESS) {
            Undefined => return Some(Rule(Kind::Root as u32)),
            Offset(-8) => {}
            _ => return None,
        }
        if row.register(RSP) != Unspecified {
            return None;
        }
        match row.cfa() {
            CfaRule::Offset(register, offset) => {
                let kind = match register {
                    RSP => Kind::Rsp,
                    RBP => Kind::Rbp,
                    _ => return None,
                };
                let rbp_slot = match row.register(RBP) {
                    // What is lost is read as if unchanged: libgcc does so.
                    Unspecified | SameValue | Undefined => 0,
                    Offset(offset) if offset < 0 && offset % 8 == 0 => -(offset / 8),
                    _ => return None,
                };
                Rule::new(kind, rbp_slot, offset)
            }
            CfaRule::Expression(position) => {
                let Expression(rbp_position) = row.register(RBP) else { return None };
                let rbp_at = expression_of_rbp(segment, rbp_position, &[])?;
                let offset = expression_of_rbp(segment, position, &[0x06])?;
                if rbp_at != 0 { None } else { Rule::new(Kind::AtRbp, 0, offset) }
            }
        }
    }
}

/// The offset in an expression `DW_OP_breg6 offset`, followed by just `rest`.
fn expression_of_rbp(segment: Cursor<'_>, position: u32, rest: &[u8]) -> Option<i32> {
    let mut expression = segment.at_position(position as usize)?;
    let len = expression.uleb128()?;
    let mut operations = expression.part(len)?;
    if operations.u8()? != 0x76 {
        return None;
    }
    let offset = operations.sleb128()?;
    (operations.rest() == rest).then_some(i32::try_from(offset).ok()?)
}

const _: () = assert!(REGISTERS == RETURN_ADDRESS as usize + 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_keeps_what_it_is_made_of() {
        for (kind, slot, offset) in [
            (Kind::Rsp, 0, 8),
            (Kind::Rbp, 2, 16),
            (Kind::Rsp, 127, 8 * (MAX_OFFSET - 1)),
            (Kind::AtRbp, 0, -8),
            (Kind::Rbp, 1, -8 * MAX_OFFSET),
        ] {
            let rule = Rule::new(kind, slot, offset).unwrap();
            let rule = Rule::from_bits(rule.bits() | 0xffff << BITS);
            assert_eq!(rule.kind(), kind);
            assert_eq!(rule.rbp_below_cfa(), 8 * slot as u64);
            assert_eq!(rule.offset() as i64, offset.into());
        }
    }

    #[test]
    fn what_does_not_fit_is_no_simple_rule() {
        assert_eq!(Rule::new(Kind::Rsp, 128, 8), None);
        assert_eq!(Rule::new(Kind::Rsp, 0, 12), None);
        assert_eq!(Rule::new(Kind::Rsp, 0, 8 * MAX_OFFSET), None);
        assert_eq!(Rule::new(Kind::Rsp, 0, 0), None);
        assert_eq!(Rule::new(Kind::Rsp, 3, 16), None);
    }
}
