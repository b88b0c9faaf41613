// SPDX-License-Identifier: GPL-2.0

//! A listing: which instructions of L1's kernel were executed, and how often, between two marks.
//!
//! L1 sets the marks by CPUID of the machine's own leaf. What is executed in one kind of part is
//! added, in the other one taken away, so that what both have in common is not there in the end.

use std::collections::BTreeMap;
use std::fmt;

use crate::layout;
use crate::single::SingleCell;
use crate::single::SingleThread;

/// A part begins whose instructions are added: ECX of CPUID in L1.
const ADD: u32 = 0x110;
/// One begins whose instructions are taken away.
const SUBTRACT: u32 = 0x111;
/// It ends.
const END: u32 = 0x112;

/// In place of an address: user mode of L1.
const USER: u64 = 1;
/// A guest of L1.
const GUEST: u64 = 2;

/// What an instruction counts for now; 0: nothing.
static WEIGHT: SingleCell<i64> = SingleCell::new(0);
static LISTING: SingleThread<Option<BTreeMap<u64, i64>>> = SingleThread::new(None);

/// Prepares a listing.
pub fn create() {
    LISTING.with(|listing| *listing = Some(BTreeMap::new()));
}

/// L1 has executed CPUID of the machine's leaf, with this in ECX.
pub fn mark(number: u32) {
    let weight = match number {
        ADD => 1,
        SUBTRACT => -1,
        END => 0,
        _ => return,
    };
    if LISTING.with(|listing| listing.is_some()) {
        WEIGHT.set(weight);
    }
}

/// An instruction is about to be executed.
#[inline(always)]
pub fn step() {
    if WEIGHT.get() != 0 {
        instruction();
    }
}

#[inline(never)]
fn instruction() {
    let address = if layout::IN_VMX_GUEST.get::<u8>() != 0 {
        GUEST
    } else if layout::CPL.get::<u8>() != 0 {
        USER
    } else {
        layout::PREV_RIP.get()
    };
    LISTING.with(|listing| {
        if let Some(listing) = listing {
            *listing.entry(address).or_default() += WEIGHT.get();
        }
    });
}

/// A listing as lines that begin with "listing:". Addresses of code have 16 digits, so that they can
/// be given names.
pub struct Report(());

/// The listing, if there was to be one.
pub fn report() -> Option<Report> {
    LISTING
        .with(|listing| listing.is_some())
        .then_some(Report(()))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LISTING.with(|listing| {
            let mut lines = listing.iter().flatten();
            lines.try_for_each(|(address, times)| match *address {
                USER => writeln!(f, "listing: {times} user mode"),
                GUEST => writeln!(f, "listing: {times} guest"),
                address => writeln!(f, "listing: {times} {address:#018x}"),
            })
        })
    }
}
