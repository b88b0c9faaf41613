// SPDX-License-Identifier: GPL-2.0
//! AMD core performance counters, extended (PERFCTR_CORE) and PerfMonV2.
//!
//! Where the rules come from (APM: AMD64 Architecture Programmer's Manual, volume 2; PPR: the
//! Processor Programming Reference of a family; KVM and perf: Linux 7.2, where the maintainers
//! wrote down what the hardware does):
//!
//! | rule | source |
//! |---|---|
//! | six 48-bit counters, or four or five if CPUID Fn8000_0022_EBX\[NumPerfCtrCore\] says so, PERF_CTL/PERF_CTR in pairs from C001_0200; the first four also at C001_0000 and C001_0004 | APM 13.2, volume 3, CPUID; KVM `get_gp_pmc_amd()`; Linux, `amd_core_pmu_init()` |
//! | bit fields of PERF_CTL, event select split in two | APM 13.2 |
//! | WRMSR of a PERF_CTL never faults; undefined bits are dropped | KVM commit 9b026073db2f (measured on Zen 3) |
//! | PerfCntrGlobalStatus is read-only, writes are ignored; undefined bits of the global registers are ignored too | PPR; KVM `kvm_pmu_set_msr()` |
//! | PerfCntrGlobalStatusClr and Set: writing 1 clears or sets the bit; they read as 0 | PPR; KVM `kvm_pmu_get_msr()` |
//! | PerfCntrGlobalStatus bits 58 (LBRSF) and 59 (PMCF): a PMI sets them when DebugCtl.FLBRI (bit 11), .FPMCI (bit 12) ask for it; with PMCF set, by whomever, the counters stand still; an overflow bit that is set by software does nothing else | APM 13.2, "Core Performance Counter Status Registers", 13.1.1, "Debug-Control MSR" |
//! | these are there with CPUID Fn8000_0022_EAX\[LbrAndPmcFreeze\] | APM 13.2.2; that Zen 4 and Zen 5 have it: Linux, arch/x86/events/amd/lbr.c, uses it with LbrExtV2, which came with Zen 4 |
//! | after RESET every counter is enabled in PerfCntrGlobalCtl, so that software for older PMUs need not know of it | KVM `kvm_pmu_refresh()` |
//! | the overflow bit is set on a wrap, whether or not INT asks for an interrupt | APM 13.2 |
//! | HostOnly/GuestOnly: none or both count always, one counts in its mode; with `EFER.SVME` clear a counter with either bit set stands still | APM 13.2; KVM `amd_pmc_is_disabled_in_current_mode()`, perf `amd_pmu_disable_virt()` |
//! | CNT_MASK n: a cycle with at least n events counts as one, with INV one with fewer; without CNT_MASK, INV does nothing; EDGE counts how often that, or the event, begins | APM 13.2, table "Count Control Using CNT_MASK and INV" |
//! | RDPMC reads the core's counters by their numbers, from 6 on those of the data fabric, from 10 on those of the L3 | APM volume 3, RDPMC; perf `RDPMC_BASE_NB`, `RDPMC_BASE_LLC`: [`uncore`] |
//! | RDPMC of a counter that does not exist: #GP | APM volume 3, RDPMC; KVM `amd_check_rdpmc_early()` |
//! | INIT leaves the PMU as it is, RESET clears it | KVM: `kvm_vcpu_reset()` never touched it on INIT |
//!
//! The rules of last branch records stand in [`lbr`], beside their code.
//!
//! What is modelled rather than real: an instruction takes one cycle, unless [`Weights`] say otherwise.
//! So in each cycle one instruction retires, and CNT_MASK 1 makes no difference to what an instruction
//! does at most once. To the conditions on cycles an instruction is one cycle, whatever the weights.

mod events;
mod lbr;
mod recorded;
mod uncore;
mod watched;

use crate::options::Random;
use crate::options::Weights;
use crate::ClassSet;
use crate::Counters;
use crate::Counting;
use crate::CycleRule;
use crate::Deltas;
use crate::Fault;
use crate::RegisterMap;
use crate::Reset;

use events::event;
use events::select;
use events::INSTRUCTIONS;
use events::LS_DISPATCH;
use lbr::Lbr;

pub use lbr::Branch;
pub use lbr::BranchKind;
pub use lbr::HostLbr;
pub use lbr::LbrRegister;
pub use lbr::SavedLbr;
pub use lbr::LBRSE;
pub use lbr::LBR_ENTRIES;
pub use lbr::MSR_DEBUG_EXTN_CTL;
pub use lbr::MSR_LBR_FROM0;
pub use lbr::MSR_LBR_SELECT;
pub use uncore::Uncore;
pub use uncore::DF_COUNTERS;
pub use uncore::L3_COUNTERS;
pub use uncore::MSR_DF_PERF_CTL0;
pub use uncore::MSR_L3_PERF_CTL0;
pub use uncore::UNCORE_COUNTERS;

/// PERF_CTL0; the others follow at every second number.
pub const MSR_PERF_CTL0: u32 = 0xc001_0200;
/// PERF_CTR0; the others follow at every second number.
pub const MSR_PERF_CTR0: u32 = 0xc001_0201;
/// PERF_LEGACY_CTL0: another name of PERF_CTL0; three more follow.
pub const MSR_PERF_LEGACY_CTL0: u32 = 0xc001_0000;
/// PERF_LEGACY_CTR0: another name of PERF_CTR0; three more follow.
pub const MSR_PERF_LEGACY_CTR0: u32 = 0xc001_0004;
/// PerfCntrGlobalStatus.
pub const MSR_GLOBAL_STATUS: u32 = 0xc000_0300;
/// PerfCntrGlobalCtl.
pub const MSR_GLOBAL_CTL: u32 = 0xc000_0301;
/// PerfCntrGlobalStatusClr.
pub const MSR_GLOBAL_STATUS_CLR: u32 = 0xc000_0302;
/// PerfCntrGlobalStatusSet.
pub const MSR_GLOBAL_STATUS_SET: u32 = 0xc000_0303;

/// DebugCtl.
pub const MSR_DEBUGCTL: u32 = 0x1d9;

/// DebugCtl: a PMI freezes the LBR stack.
const DEBUGCTL_FLBRI: u64 = 1 << 11;
/// DebugCtl: a PMI freezes the counters.
const DEBUGCTL_FPMCI: u64 = 1 << 12;
/// DebugCtl: the others there are, which are kept, but without effect. What a write of a reserved one
/// does no source says; it is dropped.
const DEBUGCTL_KEPT: u64 = 0x3f;

/// PerfCntrGlobalStatus: the LBR stack is frozen.
const LBRSF: u64 = 1 << 58;
/// PerfCntrGlobalStatus: the counters are frozen.
const PMCF: u64 = 1 << 59;

/// Number of core counters, unless there are fewer ([`Amd::with_counters`]).
pub const COUNTERS: usize = 6;
/// How many of them have a legacy name too.
const LEGACY_COUNTERS: u32 = 4;
/// How few there can be: the legacy names are always there.
pub const MIN_COUNTERS: usize = LEGACY_COUNTERS as usize;

/// PERF_CTL: count at CPL > 0.
const USR: u64 = 1 << 16;
/// PERF_CTL: count at CPL 0.
const OS: u64 = 1 << 17;
/// PERF_CTL: count edges.
const EDGE: u64 = 1 << 18;
/// PERF_CTL: interrupt on overflow.
const INT: u64 = 1 << 20;
/// PERF_CTL: enable.
const EN: u64 = 1 << 22;
/// PERF_CTL: invert the comparison with CNT_MASK.
const INV: u64 = 1 << 23;
/// PERF_CTL: CNT_MASK.
const CNT_MASK_SHIFT: u32 = 24;
/// PERF_CTL: count in guest mode only.
const GUEST_ONLY: u64 = 1 << 40;
/// PERF_CTL: count in host mode only.
const HOST_ONLY: u64 = 1 << 41;
/// PERF_CTL: all bits there are. Bits 19 and 21, 39:36 and those from 42 on are not defined.
const CTL_DEFINED: u64 = 0x0000_030f_ffd7_ffff;

/// Which PMU the CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The six extended counters, no global registers: before PerfMonV2.
    Core,
    /// PerfMonV2.
    PerfMonV2,
}

/// One bit for each of so many counters.
fn mask_of(counters: usize) -> u64 {
    (1 << counters) - 1
}

/// Whether an MSR belongs to a PMU of any [`Version`]: if this one does not have it, RDMSR and WRMSR
/// raise #GP.
pub fn is_pmu_msr(msr: u32) -> bool {
    let all = Amd::new(Version::PerfMonV2).with_lbr(true);
    all.register(msr).is_some()
}

/// A register of this PMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// PERF_CTLn, also called PerfEvtSeln.
    Ctl(usize),
    /// PERF_CTRn.
    Ctr(usize),
    /// PerfCntrGlobalStatus.
    GlobalStatus,
    /// PerfCntrGlobalCtl.
    GlobalCtl,
    /// PerfCntrGlobalStatusClr.
    GlobalStatusClr,
    /// PerfCntrGlobalStatusSet.
    GlobalStatusSet,
    /// DF_PERF_CTLn, or L3_PERF_CTLn.
    UncoreCtl(usize),
    /// DF_PERF_CTRn, or L3_PERF_CTRn.
    UncoreCtr(usize),
    /// One of the last branch record stack.
    Lbr(LbrRegister),
}

/// The registers of an AMD PMU but the counters.
#[derive(Clone, Debug)]
pub struct Amd {
    version: Version,
    weights: Weights,
    counters: usize,
    svme: bool,
    ctl: [u64; COUNTERS],
    global_ctl: u64,
    global_status: u64,
    debugctl: u64,
    uncore: Uncore,
    lbr: Option<Lbr>,
}

impl Amd {
    /// Registers as they are after RESET.
    pub fn new(version: Version) -> Amd {
        Amd {
            version,
            weights: Weights::default(),
            counters: COUNTERS,
            svme: false,
            ctl: [0; COUNTERS],
            global_ctl: mask_of(COUNTERS),
            global_status: 0,
            debugctl: 0,
            uncore: Uncore::default(),
            lbr: None,
        }
    }

    /// The same, with cycles that take longer.
    pub fn with_weights(self, weights: Weights) -> Amd {
        Amd { weights, ..self }
    }

    /// The same with so many core counters, [`MIN_COUNTERS`] to [`COUNTERS`].
    pub fn with_counters(self, counters: usize) -> Amd {
        assert!((MIN_COUNTERS..=COUNTERS).contains(&counters));
        Amd {
            counters,
            global_ctl: mask_of(counters),
            ..self
        }
    }

    /// One bit for each counter: the defined bits of PerfCntrGlobalCtl.
    fn counter_mask(&self) -> u64 {
        mask_of(self.counters)
    }

    /// The same, with the data fabric and the L3 of other CPUs.
    pub fn with_uncore(self, uncore: Uncore) -> Amd {
        Amd { uncore, ..self }
    }

    /// Follows `EFER.SVME`, which HostOnly and GuestOnly depend on.
    pub fn set_svme(&mut self, svme: bool) {
        self.svme = svme;
    }

    /// DebugCtl. It is no PMU register: operations on it are not counted.
    pub fn debugctl(&self) -> u64 {
        self.debugctl
    }

    /// Writes DebugCtl.
    pub fn set_debugctl(&mut self, value: u64) {
        self.debugctl = value & (DEBUGCTL_KEPT | DEBUGCTL_FLBRI | DEBUGCTL_FPMCI);
    }

    /// The classes that PERF_CTL value `ctl` selects.
    fn classes(&self, ctl: u64) -> ClassSet {
        let mut classes = ClassSet::NONE;
        if ctl & OS != 0 {
            classes = classes.union(ClassSet::KERNEL);
        }
        if ctl & USR != 0 {
            classes = classes.union(ClassSet::USER);
        }
        match (ctl & GUEST_ONLY != 0, ctl & HOST_ONLY != 0) {
            (false, false) => classes,
            _ if !self.svme => ClassSet::NONE,
            (true, true) => classes,
            (true, false) => classes.intersection(ClassSet::GUEST),
            (false, true) => classes.intersection(ClassSet::HOST),
        }
    }
}

impl RegisterMap for Amd {
    type Register = Register;

    const COUNTER_WIDTH: u32 = 48;

    fn counters(&self) -> usize {
        self.counters
    }

    fn register(&self, msr: u32) -> Option<Register> {
        let pair = |n: u32| {
            let counter = (n / 2) as usize;
            match n % 2 {
                0 => Register::Ctl(counter),
                _ => Register::Ctr(counter),
            }
        };
        let from = |base: u32, len: u32| msr.checked_sub(base).filter(|n| *n < len);
        if let Some(n) = from(MSR_PERF_CTL0, 2 * self.counters as u32) {
            return Some(pair(n));
        }
        if let Some(n) = from(MSR_PERF_LEGACY_CTL0, LEGACY_COUNTERS) {
            return Some(Register::Ctl(n as usize));
        }
        if let Some(n) = from(MSR_PERF_LEGACY_CTR0, LEGACY_COUNTERS) {
            return Some(Register::Ctr(n as usize));
        }
        if let Some((n, is_counter)) = Uncore::register(msr) {
            return Some(match is_counter {
                false => Register::UncoreCtl(n),
                true => Register::UncoreCtr(n),
            });
        }
        if self.version < Version::PerfMonV2 {
            return None;
        }
        if self.has_lbr() {
            if let Some(register) = LbrRegister::of(msr) {
                return Some(Register::Lbr(register));
            }
        }
        match msr {
            MSR_GLOBAL_STATUS => Some(Register::GlobalStatus),
            MSR_GLOBAL_CTL => Some(Register::GlobalCtl),
            MSR_GLOBAL_STATUS_CLR => Some(Register::GlobalStatusClr),
            MSR_GLOBAL_STATUS_SET => Some(Register::GlobalStatusSet),
            _ => None,
        }
    }

    fn read(&self, register: Register, counters: &Counters) -> Result<u64, Fault> {
        Ok(match register {
            Register::Ctl(n) => self.ctl[n],
            Register::Ctr(n) => counters.get(n),
            Register::GlobalStatus => self.global_status,
            Register::GlobalCtl => self.global_ctl,
            Register::GlobalStatusClr | Register::GlobalStatusSet => 0,
            Register::UncoreCtl(n) => self.uncore.ctl(n),
            Register::UncoreCtr(n) => self.uncore.ctr(n),
            Register::Lbr(register) => self.lbr.as_ref().map_or(0, |lbr| lbr.read(register)),
        })
    }

    fn write(
        &mut self,
        register: Register,
        value: u64,
        counters: &mut Counters,
    ) -> Result<(), Fault> {
        match register {
            Register::Ctl(n) => self.ctl[n] = value & CTL_DEFINED,
            Register::Ctr(n) => counters.set(n, value),
            Register::GlobalStatus => {}
            Register::GlobalCtl => self.global_ctl = value & self.counter_mask(),
            Register::GlobalStatusClr => self.global_status &= !value,
            Register::GlobalStatusSet => {
                self.global_status |= value & (self.counter_mask() | LBRSF | PMCF)
            }
            Register::UncoreCtl(n) => self.uncore.set_ctl(n, value),
            Register::UncoreCtr(n) => self.uncore.set_ctr(n, value),
            Register::Lbr(register) => {
                return (self.lbr.as_mut()).map_or(Ok(()), |lbr| lbr.write(register, value))
            }
        }
        Ok(())
    }

    fn rdpmc(&self, index: u32, counters: &Counters) -> Result<u64, Fault> {
        match index as usize {
            n if n < self.counters => Ok(counters.get(n)),
            n if (COUNTERS..COUNTERS + UNCORE_COUNTERS).contains(&n) => {
                Ok(self.uncore.ctr(n - COUNTERS))
            }
            _ => Err(Fault::GeneralProtection),
        }
    }

    fn counting(&self, n: usize) -> Option<Counting> {
        let ctl = self.ctl[n];
        if ctl & EN == 0 || self.global_ctl >> n & 1 == 0 || self.global_status & PMCF != 0 {
            return None;
        }
        Some(Counting {
            event: event(ctl, self.weights)?,
            classes: self.classes(ctl),
            pmi: ctl & INT != 0,
        })
    }

    fn cycle_rule(&self, n: usize) -> Option<CycleRule> {
        let ctl = self.ctl[n];
        let rule = CycleRule {
            at_least: ctl >> CNT_MASK_SHIFT & 0xff,
            inverted: ctl & INV != 0,
            edge: ctl & EDGE != 0,
        };
        let changes_nothing = match rule.at_least {
            0 => true,
            1 => !rule.inverted && select(ctl) != LS_DISPATCH,
            _ => false,
        };
        (rule.edge || !changes_nothing).then_some(rule)
    }

    fn happened(&mut self, events: &Deltas) {
        self.uncore.count(events);
    }

    fn wrapped(&mut self, n: usize) {
        if self.version >= Version::PerfMonV2 {
            self.global_status |= 1 << n;
        }
    }

    fn pmi(&mut self) {
        if self.debugctl & DEBUGCTL_FLBRI != 0 {
            self.global_status |= LBRSF;
        }
        if self.debugctl & DEBUGCTL_FPMCI != 0 {
            self.global_status |= PMCF;
        }
    }

    fn reset(&mut self, reset: Reset, counters: &mut Counters) {
        self.svme = false;
        if reset == Reset::Reset {
            self.uncore.clear();
            *self = Amd::new(self.version)
                .with_weights(self.weights)
                .with_counters(self.counters)
                .with_uncore(self.uncore.clone())
                .with_lbr(self.has_lbr());
            counters.clear();
        }
    }

    fn scramble(&mut self, random: &mut Random, counters: &mut Counters) {
        /// The event and its unit mask.
        const EVENT: u64 = 0xf_0000_ffff;
        for n in 0..self.counters {
            counters.set(n, random.next());
            let bits = USR | OS | INT | EN | GUEST_ONLY | HOST_ONLY;
            let value = random.next() & (bits | EVENT);
            // Every second one counts instructions, or would.
            self.ctl[n] = match random.next() & 1 {
                0 => value,
                _ => value & bits | INSTRUCTIONS,
            };
        }
        if self.version >= Version::PerfMonV2 {
            self.global_ctl = random.next() & self.counter_mask();
            self.global_status = random.next() & self.counter_mask();
        }
        // Copies: the others are the same with them and without.
        self.uncore.scramble(&mut random.clone());
        if let Some(lbr) = &mut self.lbr {
            lbr.scramble(&mut random.clone());
        }
    }
}
