//! Load bias of an object for which the log has no module map (all logs of glibc).
//!
//! A bias is a hypothesis about all addresses of one object at once. It has to explain each of
//! them: the address lies in code of the file and follows a call that could have made the records
//! ([`CallCheck`]); where the log names a symbol, the symbol is where the file says. A bias is
//! taken when it is the only one left. Those that are considered:
//!
//! - relative addresses (glibc 2.35 and later): SVMA = address + page of the first PT_LOAD;
//! - an executable that cannot move: SVMA = address;
//! - any other: AVMA - SVMA is a multiple of the page size, so one address leaves one candidate for
//!   each page of code, and each further address strikes out most of what is left.

use super::address::{Avma, LoadBias, ReturnAddress, Svma};
use super::calls::CallCheck;
use super::object_file::{ObjectFile, PAGE};
use crate::read::{Addressing, CallSite, Kinds};

/// Linux on x86_64 maps nothing that can move below this address, so a smaller address of such an
/// object is a relative one.
const LOWEST_MAPPING: u64 = 1 << 32;

/// The share of addresses (one in so many) that may contradict a bias which the log states. A log
/// that two processes wrote to has torn lines.
const TOLERATED: usize = 10;

/// What one call site says about the object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) address: u64,
    pub(super) symbol: Option<(&'a [u8], u64)>,
    pub(super) kinds: Kinds,
    pub(super) addressing: Addressing,
}

impl<'a> Claim<'a> {
    /// `None` for a record without a place.
    pub(super) fn of(site: &'a CallSite) -> Option<Claim<'a>> {
        Some(Claim {
            address: site.address?,
            symbol: site.symbol.as_ref().map(|(name, offset)| (name.as_slice(), *offset)),
            kinds: site.kinds,
            addressing: site.addressing,
        })
    }

    fn svma(&self, bias: LoadBias) -> Svma {
        Avma(self.address).to_svma(bias)
    }
}

/// How a bias is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    /// The log's addresses are relative, or the file cannot be loaded elsewhere.
    Stated,
    /// Relative or fixed addresses in a log that does not say.
    OnlyMeaning,
    /// The log names symbols.
    Symbols,
    /// No other bias puts all addresses behind fitting calls.
    Calls,
}

/// Why no bias is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// The file cannot be the one that was traced.
    Contradiction,
    /// So many biases fit.
    Several(usize),
}

/// Addresses of one object under the bias that was found for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) bias: LoadBias,
    pub(super) because: Because,
    /// One per claim: whether it agrees.
    pub(super) fits: Vec<bool>,
}

/// The bias of an object, from all that the log says about it.
pub(super) fn find(object: &ObjectFile, claims: &[Claim<'_>]) -> Result<Found, Unknown> {
    let check = Check { object, calls: CallCheck::new(object) };
    let relative = LoadBias(0u64.wrapping_sub(object.first_load().0));
    let all = |addressing| claims.iter().all(|claim| claim.addressing == addressing);
    if all(Addressing::Relative) {
        return check.stated(relative, claims);
    }
    if object.is_fixed && all(Addressing::Absolute) {
        return check.stated(LoadBias(0), claims);
    }

    let mut candidates = Vec::new();
    if claims.iter().all(|claim| claim.addressing != Addressing::Absolute) {
        candidates.push(relative);
    }
    if object.is_fixed {
        candidates.push(LoadBias(0));
    }
    let meanings = candidates.len();
    if !object.is_fixed {
        candidates.extend(check.movable_candidates(claims));
    }
    let movable = candidates.split_off(meanings);
    // Cheap tests first: they leave few for the one that looks through functions.
    let survive = |mut candidates: Vec<LoadBias>| {
        candidates.sort_unstable();
        candidates.dedup();
        for test in [Check::is_in_code, Check::follows_call, Check::agrees] {
            for claim in claims {
                candidates.retain(|&bias| test(&check, claim, bias));
            }
        }
        candidates
    };
    let (meanings, movable) = (survive(candidates), survive(movable));
    let because = match (&meanings[..], &movable[..]) {
        ([_], []) => Because::OnlyMeaning,
        ([], [_]) if claims.iter().any(|claim| claim.symbol.is_some()) => Because::Symbols,
        ([], [_]) => Because::Calls,
        ([], []) => return Err(Unknown::Contradiction),
        _ => return Err(Unknown::Several(meanings.len() + movable.len())),
    };
    let bias = *meanings.first().or(movable.first()).ok_or(Unknown::Contradiction)?;
    Ok(Found { bias, because, fits: vec![true; claims.len()] })
}

/// Which claims agree with a bias that the trace states; an error when too few do.
pub(super) fn verify(
    object: &ObjectFile,
    bias: LoadBias,
    claims: &[Claim<'_>],
) -> Result<Found, Unknown> {
    Check { object, calls: CallCheck::new(object) }.stated(bias, claims)
}

struct Check<'a> {
    object: &'a ObjectFile,
    calls: CallCheck<'a>,
}

impl Check<'_> {
    fn stated(&self, bias: LoadBias, claims: &[Claim<'_>]) -> Result<Found, Unknown> {
        let fits: Vec<bool> = claims.iter().map(|claim| self.agrees(claim, bias)).collect();
        let wrong = fits.iter().filter(|fits| !**fits).count();
        if wrong * TOLERATED > claims.len() {
            return Err(Unknown::Contradiction);
        }
        Ok(Found { bias, because: Because::Stated, fits })
    }

    /// Biases that put the first claim behind a call or onto its symbol.
    fn movable_candidates(&self, claims: &[Claim<'_>]) -> Vec<LoadBias> {
        let lowest = claims.iter().map(|claim| claim.address).min().unwrap_or(0);
        let highest = claims.iter().map(|claim| claim.address).max().unwrap_or(0);
        let extent = &self.object.extent;
        if lowest < LOWEST_MAPPING || highest - lowest > extent.end - extent.start {
            return Vec::new();
        }
        let biases: Vec<LoadBias> =
            match claims.iter().find_map(|claim| Some((claim, claim.symbol?))) {
                Some((claim, (name, offset))) => self
                    .symbol_addresses(name)
                    .iter()
                    .map(|svma| LoadBias(claim.address.wrapping_sub(offset).wrapping_sub(svma.0)))
                    .filter(|bias| bias.0 % PAGE == 0)
                    .collect(),
                None => self.biases_by_page(lowest),
            };
        let fits = |bias: &LoadBias| {
            bias.0 >= LOWEST_MAPPING - extent.end
                && Avma(lowest).to_svma(*bias).0 > extent.start
                && Avma(highest).to_svma(*bias).0 <= extent.end
        };
        biases.into_iter().filter(fits).collect()
    }

    /// The address may be at each place in the code that has the same offset in its page.
    fn biases_by_page(&self, address: u64) -> Vec<LoadBias> {
        let mut biases = Vec::new();
        for range in self.object.code() {
            let ahead = address.wrapping_sub(range.start) % PAGE;
            let mut svma = range.start + ahead;
            while svma <= range.end {
                if self.calls.follows_call(ReturnAddress(Svma(svma))) {
                    biases.push(LoadBias(address.wrapping_sub(svma)));
                }
                svma += PAGE;
            }
        }
        biases
    }

    fn symbol_addresses(&self, name: &[u8]) -> &[Svma] {
        self.object.dynamic_symbols().named(&self.object.bytes, name)
    }

    fn is_in_code(&self, claim: &Claim<'_>, bias: LoadBias) -> bool {
        let address = ReturnAddress(claim.svma(bias)).for_lookup().0;
        self.object.code().any(|range| range.contains(&address))
    }

    fn follows_call(&self, claim: &Claim<'_>, bias: LoadBias) -> bool {
        !self.calls.is_supported() || self.calls.follows_call(ReturnAddress(claim.svma(bias)))
    }

    fn agrees(&self, claim: &Claim<'_>, bias: LoadBias) -> bool {
        let svma = claim.svma(bias);
        let on_symbol = claim.symbol.is_none_or(|(name, offset)| {
            let start = Svma(svma.0.wrapping_sub(offset));
            self.symbol_addresses(name).contains(&start)
        });
        on_symbol && self.calls.can_record(ReturnAddress(svma), claim.kinds)
    }
}
