// SPDX-License-Identifier: GPL-2.0

//! AMD PerfMonV2 (APM volume 2, "Performance Monitoring Counters").

use super::Vendor;
use crate::registers::RegisterFile;
use kernel::{
    kvm::mediated_pmu::GuestPmu,
    x86::pmu::{
        amd,
        CounterSet,
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
    const FIXED_COUNTERS: Option<RegisterArray> = None;

    #[inline(always)]
    fn load_global<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) {
        // The status can only be changed by setting and clearing bits. What the host left must go
        // first: the guest reads the register without an exit.
        let host = regs.read(amd::GLOBAL_STATUS);
        let guest = pmu.global_status();

        if host & !guest != 0 {
            regs.write(amd::GLOBAL_STATUS_CLR, host & !guest);
        }
        if guest & !host != 0 {
            regs.write(amd::GLOBAL_STATUS_SET, guest & !host);
        }
        regs.write(amd::GLOBAL_CTL, pmu.global_ctrl());
    }

    #[inline(always)]
    fn put_global<R: RegisterFile>(regs: &mut R, pmu: &mut GuestPmu<'_>) -> Option<bool> {
        let same = if pmu.passthrough().has_global_ctrl() {
            Self::sync_global_ctrl(regs, pmu)
        } else {
            None
        };

        // Perf programs its events one by one, and starts them all at once.
        regs.write(amd::GLOBAL_CTL, 0);

        let status = regs.read(amd::GLOBAL_STATUS);

        pmu.set_global_status(status);
        if status != 0 {
            regs.write(amd::GLOBAL_STATUS_CLR, status);
        }
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

    #[inline(always)]
    fn set_overflow<R: RegisterFile>(regs: &mut R, counters: CounterSet) {
        regs.write(amd::GLOBAL_STATUS_SET, counters.bits());
    }

    fn is_current_in_memory(msr: u32) -> bool {
        (0..Self::SELECTORS.len()).any(|i| Self::SELECTORS.get(i).map(Register::index) == Some(msr))
            || amd::LEGACY_PERF_CTL.contains(&msr)
    }
}
