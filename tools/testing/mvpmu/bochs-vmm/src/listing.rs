// SPDX-License-Identifier: GPL-2.0

//! A listing of the instructions that L1 executes: see [`pmu_model::listing`].

use pmu_model::listing::Listing;
use pmu_model::listing::Marks;
use pmu_model::listing::Whose;

use crate::layout;
use crate::single::SingleCell;
use crate::single::SingleThread;
use crate::watch;

/// What an instruction counts for now; 0: nothing.
static WEIGHT: SingleCell<i64> = SingleCell::new(0);
static MARKS: SingleCell<Option<Marks>> = SingleCell::new(None);
static LISTING: SingleThread<Option<Listing>> = SingleThread::new(None);

/// Prepares a listing, of what is between such marks.
pub fn create(marks: Marks) {
    MARKS.set(Some(marks));
    LISTING.with(|listing| *listing = Some(Listing::default()));
}

/// L1 has executed CPUID of the machine's leaf, with this in ECX.
pub fn mark(number: u32) {
    weigh(MARKS.get().and_then(|marks| marks.weight_from_host(number)));
}

/// A guest has.
pub fn guest_mark(number: u32) {
    weigh(
        MARKS
            .get()
            .and_then(|marks| marks.weight_from_guest(number)),
    );
}

fn weigh(weight: Option<i64>) {
    if let Some(weight) = weight {
        WEIGHT.set(weight);
        watch::set_on_all(watch::by::LISTING, weight != 0);
    }
}

/// An instruction is about to be executed, which counts for something.
pub fn step() {
    let whose = if layout::IN_VMX_GUEST.get::<u8>() != 0 {
        Whose::Guest
    } else if layout::CPL.get::<u8>() != 0 {
        Whose::User
    } else {
        Whose::Kernel(layout::PREV_RIP.get())
    };
    LISTING.with(|listing| {
        if let Some(listing) = listing {
            listing.add(whose, WEIGHT.get());
        }
    });
}

/// The listing, if there was to be one.
pub fn report() -> Option<Listing> {
    LISTING.with(Option::take)
}
