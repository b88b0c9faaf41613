// SPDX-License-Identifier: GPL-2.0
//! A listing of the instructions that a vCPU executes: see [`pmu_model::listing`].
//!
//! Blocks note how often they were entered; what was not executed of one is taken back at once. One
//! vCPU is listed: that which sets the marks. A string instruction counts once for each portion in
//! which QEMU executes it.

use std::ops::RangeBounds;
use std::sync::Mutex;
use std::sync::PoisonError;

use pmu_model::listing::Listing;
use pmu_model::listing::Marks;
use pmu_model::listing::Whose;
use pmu_model::Class;

use crate::block;
use crate::block::Block;

/// What is not in the blocks.
static LISTING: Mutex<Option<Listing>> = Mutex::new(None);

/// What is listed of a vCPU.
#[derive(Default)]
pub struct Lister {
    /// If there is to be a listing: between which marks.
    marks: Option<Marks>,
    /// What an instruction counts for now; 0: nothing.
    weight: i64,
}

impl Lister {
    /// Nothing is marked yet.
    pub fn new(marks: Option<Marks>) -> Lister {
        Lister { marks, weight: 0 }
    }

    /// Whether there is to be a listing.
    pub fn is_on(&self) -> bool {
        self.marks.is_some()
    }

    /// The host or the guest has executed CPUID of the machine's leaf, with this in ECX. Whether blocks
    /// are to be noted from here on, if that is new.
    pub fn mark(&mut self, number: u32, guest: bool) -> Option<bool> {
        let marks = self.marks?;
        self.weight = match guest {
            false => marks.weight_from_host(number)?,
            true => marks.weight_from_guest(number)?,
        };
        Some(self.weight != 0)
    }

    /// A block is entered.
    pub fn enter(&self, block: &Block) {
        block.list(self.weight);
    }

    /// Of a block that was entered these are not executed.
    pub fn take_back(&self, block: &Block, instructions: impl RangeBounds<usize>) {
        if self.weight != 0 {
            with_listing(|listing| add(listing, block, &instructions, -self.weight));
        }
    }

    /// These are after all.
    pub fn give_back(&self, block: &Block, instructions: impl RangeBounds<usize>) {
        if self.weight != 0 {
            with_listing(|listing| add(listing, block, &instructions, self.weight));
        }
    }
}

fn with_listing(f: impl FnOnce(&mut Listing)) {
    let mut listing = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    f(listing.get_or_insert_default());
}

fn add(listing: &mut Listing, block: &Block, which: &impl RangeBounds<usize>, times: i64) {
    let instructions = block.addresses().enumerate();
    for (_, address) in instructions.filter(|(index, _)| which.contains(index)) {
        let whose = match block.class {
            Class::HostKernel => Whose::Kernel(address),
            Class::HostUser => Whose::User,
            Class::GuestKernel | Class::GuestUser => Whose::Guest,
        };
        listing.add(whose, times);
    }
}

/// Takes what a block has noted, before it goes.
pub fn take(block: &Block) {
    match block.take_listed() {
        0 => {}
        times => with_listing(|listing| add(listing, block, &.., times)),
    }
}

/// Prints it, if there is one.
pub fn print() {
    block::each(take);
    let mut listing = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(listing) = listing.take() {
        eprint!("{listing}");
    }
}
