// SPDX-License-Identifier: GPL-2.0

//! Intel's architectural PMU (SDM volume 3, "Architectural Performance Monitoring").

use super::{
    Status,
    Vendor, //
};
use crate::registers::RegisterFile;
use kernel::{
    kvm::mediated_pmu::GuestPmu,
    x86::pmu::{
        intel,
        Register,
        RegisterArray, //
    }, //
};

/// Intel's PMU from version 4 on.
///
/// What separates the guest's counting from the host's is `GLOBAL_CTRL`, which VM entry loads with
/// the guest's value and VM exit with 0 (SDM volume 3, "Loading Guest State" and "Loading Host
/// State"). Where VM exit cannot save the guest's value, KVM has it stored through the MSR store
/// area. Both are KVM's, as the fields of the VMCS are.
pub(crate) enum Intel {}

impl Vendor for Intel {
    const NAME: &'static str = "Intel architectural PMU";

    // Version 4 brings GLOBAL_STATUS_SET, without which the status cannot be restored.
    const MIN_VERSION: u32 = 4;

    const SELECTORS: RegisterArray = intel::PERFEVTSEL;
    const COUNTERS: RegisterArray = intel::PMC;
    const GLOBAL_CTRL: Register = intel::GLOBAL_CTRL;
    const STATUS: Status = Status {
        read: intel::GLOBAL_STATUS,
        clear: intel::GLOBAL_STATUS_RESET,
        set: intel::GLOBAL_STATUS_SET,
    };
    const FIXED_COUNTERS: Option<RegisterArray> = Some(intel::FIXED_CTR);

    const RECORDS_STAY: bool = true;

    #[inline(always)]
    fn put_global_ctrl<R: RegisterFile>(_regs: &mut R, _pmu: &mut GuestPmu<'_>) -> Option<bool> {
        // VM exit loaded GLOBAL_CTRL with 0.
        None
    }

    #[inline(always)]
    fn sync_global_ctrl<R: RegisterFile>(_regs: &mut R, _pmu: &mut GuestPmu<'_>) -> Option<bool> {
        // KVM took it from the VMCS after VM exit.
        None
    }

    #[inline(always)]
    fn select_fixed<R: RegisterFile>(regs: &mut R, control: u64) {
        regs.write(intel::FIXED_CTR_CTRL, control);
    }

    #[inline(always)]
    fn load_metrics<R: RegisterFile>(regs: &mut R, metrics: u64) {
        regs.write(intel::PERF_METRICS, metrics);
    }

    #[inline(always)]
    fn clear_metrics<R: RegisterFile>(regs: &mut R) {
        // In this order, in which perf starts them, too: the metrics are shares of the slots.
        if let Some(slots) = intel::FIXED_CTR.get(intel::SLOTS) {
            regs.write(slots, 0);
        }
        regs.write(intel::PERF_METRICS, 0);
    }

    fn is_current_in_memory(msr: u32, _pmu: &GuestPmu<'_>) -> bool {
        // VM entry loads GLOBAL_CTRL from the VMCS, to which KVM writes it.
        Self::SELECTORS.contains(msr)
            || [intel::FIXED_CTR_CTRL.index(), intel::GLOBAL_CTRL.index()].contains(&msr)
            // Perf says to KVM where they are.
            || intel::is_lbr(msr)
    }
}
