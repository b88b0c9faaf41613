// SPDX-License-Identifier: GPL-2.0

//! AMD PerfMonV2 (APM volume 2, "Performance Monitoring Counters").

use super::{
    Status,
    Vendor, //
};
use crate::registers::RegisterFile;
use kernel::{
    kvm::mediated_pmu::GuestPmu,
    x86::pmu::{
        amd,
        Register,
        RegisterArray, //
    }, //
};

/// AMD's PMU from PerfMonV2 on.
///
/// VM entry and exit do not touch the PMU's registers. What separates the guest's counting from
/// the host's is GuestOnly, bit 40 of a selector, which KVM sets in each one a guest gets.
pub(crate) enum Amd {}

impl Vendor for Amd {
    const NAME: &'static str = "AMD PerfMonV2";

    // PerfMonV2 brings the global registers: without them neither all counters can be stopped at
    // once nor can the status of overflows be restored.
    const MIN_VERSION: u32 = 2;

    const SELECTORS: RegisterArray = amd::PERF_CTL;
    const COUNTERS: RegisterArray = amd::PERF_CTR;
    const GLOBAL_CTRL: Register = amd::GLOBAL_CTL;
    const STATUS: Status = Status {
        read: amd::GLOBAL_STATUS,
        clear: amd::GLOBAL_STATUS_CLR,
        set: amd::GLOBAL_STATUS_SET,
    };
    const FIXED_COUNTERS: Option<RegisterArray> = None;

    // LBR virtualization, APM volume 2, 15.23.
    const RECORDS_STAY: bool = false;

    #[inline(always)]
    fn load_global_ctrl<R: RegisterFile>(regs: &mut R, control: u64) {
        regs.write(amd::GLOBAL_CTL, control);
    }

    #[inline(always)]
    fn put_global_ctrl<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) -> Option<bool> {
        let same = if pmu.passthrough().has_global_ctrl() {
            Self::sync_global_ctrl(regs, pmu)
        } else {
            None
        };

        // Perf programs its events one by one, and starts them all at once.
        regs.write(amd::GLOBAL_CTL, 0);
        same
    }

    #[inline(always)]
    fn sync_global_ctrl<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) -> Option<bool> {
        let control = regs.read(amd::GLOBAL_CTL);
        let same = control == pmu.global_ctrl();

        pmu.set_global_ctrl(control);
        Some(same)
    }

    #[inline(always)]
    fn select_fixed<R: RegisterFile>(_regs: &mut R, _control: u64) {
        // There are no fixed counters.
    }

    fn is_current_in_memory(msr: u32, pmu: &GuestPmu<'_>) -> bool {
        Self::SELECTORS.contains(msr)
            || amd::LEGACY_PERF_CTL.contains(&msr)
            || msr == amd::GLOBAL_CTL.index() && !pmu.passthrough().has_global_ctrl()
    }
}
