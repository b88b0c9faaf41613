// SPDX-License-Identifier: GPL-2.0
//! The counters of the data fabric (DF) and of the L3 cache.
//!
//! They belong to several CPUs together and count for all of them; nothing makes them count for
//! the host or for a guest only, and they raise no PMI here. They have MSRs of their own, and
//! RDPMC reads them beside the core's counters: indices 6 to 9 are the first four of the DF, 10 to
//! 15 those of the L3 (perf's `amd_uncore_df_add()` says which index is which; Linux has read them
//! so since Family 15h, when the DF was the northbridge).
//!
//! What is modelled rather than real: all CPUs of the machine share one DF and one L3. An event of
//! theirs is each instruction of any of the CPUs, in whatever mode, and all event codes select it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::options::Random;
use crate::ClassSet;
use crate::Deltas;
use crate::Event;
use crate::Source;

/// DF_PERF_CTL0; DF_PERF_CTR0 and the others follow in pairs.
pub const MSR_DF_PERF_CTL0: u32 = 0xc001_0240;
/// L3_PERF_CTL0, which Linux calls L2I; L3_PERF_CTR0 and the others follow in pairs.
pub const MSR_L3_PERF_CTL0: u32 = 0xc001_0230;

/// Counters of the data fabric that RDPMC reaches from index 6 on. (CPUID tells their number. Some
/// CPUs have more, which RDPMC has from index 16 on.)
pub const DF_COUNTERS: usize = 4;
/// Counters of the L3.
pub const L3_COUNTERS: usize = 6;
/// Both: those of the DF come first, as for RDPMC.
pub const UNCORE_COUNTERS: usize = DF_COUNTERS + L3_COUNTERS;

/// Enable, in a PERF_CTL.
const EN: u64 = 1 << 22;
/// The counters have 48 bits.
const MASK: u64 = (1 << 48) - 1;

/// The registers, which the clones share.
#[derive(Clone, Debug, Default)]
pub struct Uncore(Arc<Mutex<Registers>>);

#[derive(Debug, Default)]
struct Registers {
    ctl: [u64; UNCORE_COUNTERS],
    ctr: [u64; UNCORE_COUNTERS],
}

impl Uncore {
    /// The counter whose PERF_CTL or PERF_CTR this MSR is, and whether it is the latter.
    pub fn register(msr: u32) -> Option<(usize, bool)> {
        let within = |base: u32, counters: usize| {
            let n = msr.checked_sub(base).map(|n| n as usize)?;
            (n < 2 * counters).then_some((n / 2, n % 2 != 0))
        };
        let df = within(MSR_DF_PERF_CTL0, DF_COUNTERS);
        let l3 = || within(MSR_L3_PERF_CTL0, L3_COUNTERS);
        df.or_else(|| l3().map(|(n, is_counter)| (DF_COUNTERS + n, is_counter)))
    }

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The PERF_CTL of counter `n`.
    pub fn ctl(&self, n: usize) -> u64 {
        self.registers().ctl[n]
    }

    /// The PERF_CTR of counter `n`.
    pub fn ctr(&self, n: usize) -> u64 {
        self.registers().ctr[n]
    }

    /// Sets the PERF_CTL of counter `n`.
    pub fn set_ctl(&self, n: usize, value: u64) {
        self.registers().ctl[n] = value;
    }

    /// Sets the PERF_CTR of counter `n`.
    pub fn set_ctr(&self, n: usize, value: u64) {
        self.registers().ctr[n] = value & MASK;
    }

    /// All as it is after RESET.
    pub fn clear(&self) {
        *self.registers() = Registers::default();
    }

    /// All as firmware might have left it.
    pub fn scramble(&self, random: &mut Random) {
        let Registers { ctl, ctr } = &mut *self.registers();
        ctl.fill_with(|| random.next());
        ctr.fill_with(|| random.next() & MASK);
    }

    /// Moves the counters on.
    pub fn count(&self, events: &Deltas) {
        let instructions = events.total(Event::of(Source::Instructions), ClassSet::ALL);
        let Registers { ctl, ctr } = &mut *self.registers();
        for (ctl, ctr) in ctl.iter().zip(ctr) {
            if ctl & EN != 0 {
                *ctr = ctr.wrapping_add(instructions) & MASK;
            }
        }
    }
}
