// SPDX-License-Identifier: GPL-2.0

//! What differs between the vendors' PMUs.

use crate::registers::RegisterFile;
use kernel::{
    kvm::mediated_pmu::GuestPmu,
    x86::msr::MsrArray, //
};

mod amd;
mod intel;
pub(crate) use amd::Amd;
pub(crate) use intel::Intel;

/// A vendor's PMU.
pub(crate) trait Vendor: Send + Sync + 'static {
    /// The PMU's name.
    const NAME: &'static str;

    /// The oldest version of the PMU that can be switched exactly.
    const MIN_VERSION: u32;

    /// The event selectors of the general purpose counters.
    const SELECTORS: MsrArray;

    /// The general purpose counters, all of whose bits can be written.
    const COUNTERS: MsrArray;

    /// The fixed counters, if there are any.
    const FIXED_COUNTERS: Option<MsrArray>;

    /// Stops every counter of the CPU.
    fn stop<R: RegisterFile>(regs: &mut R);

    /// Loads the guest's control and status registers, after its counters and selectors. Where
    /// VM entry does not do it, this starts counting.
    fn load_global<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>);

    /// Makes sure that every counter is stopped, then saves and clears the guest's status and
    /// clears its control registers; the first thing after VM exit.
    fn put_global<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>);
}
