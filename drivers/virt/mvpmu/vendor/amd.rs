// SPDX-License-Identifier: GPL-2.0

//! AMD PerfMonV2 (APM volume 2, "Performance Monitoring Counters").

use super::Vendor;
use crate::registers::RegisterFile;
use kernel::{
    kvm::mediated_pmu::GuestPmu,
    x86::{
        msr::{
            Msr,
            MsrArray, //
        },
        pmu::{
            amd,
            CounterSet, //
        },
    },
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

    const SELECTORS: MsrArray = amd::PERF_CTL;
    const COUNTERS: MsrArray = amd::PERF_CTR;
    const GLOBAL_CTRL: Msr = amd::GLOBAL_CTL;
    const FIXED_COUNTERS: Option<MsrArray> = None;

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
    fn put_global<R: RegisterFile>(
        regs: &mut R,
        pmu: &mut GuestPmu<'_>,
        claimed: CounterSet,
    ) -> Option<bool> {
        let same = if pmu.passthrough().has_global_ctrl() {
            Self::sync_global_ctrl(regs, pmu)
        } else {
            None
        };

        // Perf writes it after its selectors, if it has any. Until then no counter of the guest
        // runs: GuestOnly keeps them from it.
        if claimed.is_empty() {
            regs.write(amd::GLOBAL_CTL, 0);
        }

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

    fn selects(msr: u32) -> bool {
        (0..Self::SELECTORS.len()).any(|i| Self::SELECTORS.get(i).map(Msr::index) == Some(msr))
            || amd::LEGACY_PERF_CTL.contains(&msr)
    }
}
