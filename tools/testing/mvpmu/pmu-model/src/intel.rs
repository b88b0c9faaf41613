// SPDX-License-Identifier: GPL-2.0
//! Intel architectural performance monitoring, versions 2 to 5.
//!
//! Where the rules come from (SDM: Intel 64 and IA-32 Architectures Software Developer's Manual;
//! sections of volume 3 unless said otherwise, by their titles, since numbers move):
//!
//! | rule | source |
//! |---|---|
//! | version, numbers and widths of counters, which fixed ones exist | volume 2, CPUID leaf 0AH |
//! | IA32_PERFEVTSELx: fields, AnyThread (bit 21) reserved when CPUID.0AH:EDX\[15\] is set or the version is below 3, bits above CMASK reserved | "Architectural Performance Monitoring Version 1", "Version 3", "AnyThread Deprecation" |
//! | INV inverts the comparison with CMASK and does nothing while CMASK is 0; E counts deasserted-to-asserted transitions of the condition | "Architectural Performance Monitoring Version 1" |
//! | WRMSR of IA32_PMCx takes 32 bits and extends their sign; IA32_A_PMCx takes the full width, #GP beyond it | "Full-Width Writes to Performance Counter Registers" |
//! | IA32_FIXED_CTR_CTRL: EN (2 bits), AnyThread (reserved as above), PMI for each counter | "Architectural Performance Monitoring Version 2", "Version 3" |
//! | a counter runs when its bit of IA32_PERF_GLOBAL_CTRL and its own enable are set | "Architectural Performance Monitoring Version 2" |
//! | IA32_PERF_GLOBAL_STATUS is read-only; RESET (called OVF_CTRL below version 4) clears, SET sets what is written as 1; the two read as 0 | "Architectural Performance Monitoring Version 4" |
//! | IA32_PERF_GLOBAL_INUSE | "IA32_PERF_GLOBAL_INUSE MSR" |
//! | IA32_DEBUGCTL.FREEZE_PERFMON_ON_PMI: from version 4 on a PMI sets CTR_FRZ, which stops the counters until it is cleared; below, it clears IA32_PERF_GLOBAL_CTRL | "Streamlined" and "Legacy Freeze_Perfmon_On_PMI" |
//! | IA32_DEBUGCTL.FREEZE_LBRS_ON_PMI: from version 4 on a PMI sets LBR_FRZ; below, it clears IA32_DEBUGCTL.LBR | "Streamlined" and "Legacy Freeze_LBRs_On_PMI" |
//! | of the status, Trace_ToPA_PMI (55) is there with PT; ASCI (60) is reserved: it comes with SGX, which no machine has | volume 4, IA32_PERF_GLOBAL_STATUS, IA32_PERF_GLOBAL_STATUS_SET; CPUID.07H:EBX\[25\], \[2\] |
//! | PERF_METRICS | [`metrics`] |
//! | the branch trace store | [`bts`] |
//! | last branch records | [`lbr`] |
//! | PT | [`pt`] |
//! | RDPMC: bit 30 of ECX chooses the fixed counters; #GP for a counter that does not exist | volume 2, RDPMC |
//! | RESET clears all but IA32_PERF_GLOBAL_CTRL, which enables the general purpose counters; INIT changes nothing | "Processor State After Reset", table "Power-up, Reset, INIT"; MSR tables of volume 4 |
//!
//! What is modelled rather than real is in [`events`]: an instruction takes one cycle, unless
//! [`Weights`] say otherwise.

mod bits;
mod bts;
mod config;
mod debugctl;
pub mod events;
mod lbr;
mod metrics;
pub mod msr;
mod pt;
mod registers;
mod watched;

use crate::options::Random;
use crate::options::Weights;
use crate::ClassSet;
use crate::Counters;
use crate::Counting;
use crate::CycleRule;
use crate::Deltas;
use crate::Event;
use crate::Fault;
use crate::RegisterMap;
use crate::Reset;
use crate::Source;
use crate::SourceSet;

use bits::evtsel;
use bits::fixed;
use bits::status;
use lbr::Lbr;
use metrics::Metrics;
use pt::Pt;

pub use bts::Branch;
pub use bts::Memory;
pub use config::Codes;
pub use config::Config;
pub use config::CpuidLeaf;
pub use lbr::BranchKind;
pub use lbr::LbrRegister;
pub use lbr::Transfer;
pub use lbr::LBR_DEPTHS;
pub use lbr::LBR_ENTRIES;
pub use pt::ExecMode;
pub use pt::Moment;
pub use pt::PhysicalMemory;
pub use pt::PtEvent;
pub use pt::PtOutcome;
pub use pt::PtRegister;
pub use pt::Unmapped;
pub use pt::PT_RANGES;
pub use registers::Register;

/// IA32_PERF_GLOBAL_INUSE: some counter asks for PMIs.
const INUSE_PMI: u64 = 1 << 63;

/// Bit of the first fixed counter in the global registers.
pub const FIXED_SHIFT: usize = 32;

/// Bit of PERF_METRICS in the global registers.
const METRICS_BIT: u64 = 1 << 48;

/// The fixed counter of slots.
const SLOTS: usize = 3;

/// RDPMC: the index of PERF_METRICS.
const RDPMC_METRICS: u32 = 1 << 29;

/// General purpose counters that the register numbers leave room for.
const MAX_GP: usize = 8;

/// The registers of an Intel PMU but the counters. Counters 0 to `gp - 1` are the general purpose
/// ones, the fixed ones follow, then PERF_METRICS.
#[derive(Clone, Debug)]
pub struct Intel {
    config: Config,
    weights: Weights,
    evtsel: [u64; MAX_GP],
    fixed_ctrl: u64,
    global_ctrl: u64,
    global_status: u64,
    debugctl: u64,
    ds_area: u64,
    metrics: Metrics,
    lbr: Option<Lbr>,
    pt: Option<Pt>,
}

impl Intel {
    /// Registers as they are after RESET.
    pub fn new(config: Config) -> Intel {
        assert!(config.gp <= MAX_GP && config.gp + config.fixed < crate::MAX_COUNTERS);
        assert!(config.metrics == 0 || config.fixed == SLOTS + 1);
        Intel {
            config,
            weights: Weights::default(),
            evtsel: [0; MAX_GP],
            fixed_ctrl: 0,
            global_ctrl: (1 << config.gp) - 1,
            global_status: 0,
            debugctl: 0,
            ds_area: 0,
            metrics: Metrics::default(),
            lbr: config.lbr.then(Lbr::default),
            pt: config.pt.then(Pt::default),
        }
    }

    /// The same, with cycles that take longer.
    pub fn with_weights(self, weights: Weights) -> Intel {
        Intel { weights, ..self }
    }

    /// What this PMU has.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bit of counter `n` in the global registers.
    fn global_bit(&self, n: usize) -> u64 {
        match n.checked_sub(self.config.gp) {
            None => 1 << n,
            Some(fixed) if fixed < self.config.fixed => 1 << (FIXED_SHIFT + fixed),
            Some(_) => METRICS_BIT,
        }
    }

    /// The bytes of PERF_METRICS that are metrics.
    fn metrics_mask(&self) -> u64 {
        u64::MAX >> (u64::BITS - 8 * self.config.metrics as u32)
    }

    /// What a slot is counted for, and where, if PERF_METRICS follows it.
    fn metrics_counting(&self) -> Option<Counting> {
        if self.config.metrics == 0 || self.global_ctrl & METRICS_BIT == 0 {
            return None;
        }
        self.counting(self.config.gp + SLOTS)
    }

    /// The bits of all counters in the global registers.
    pub fn counter_bits(&self) -> u64 {
        let counters =
            ((1 << self.config.gp) - 1) | (((1 << self.config.fixed) - 1) << FIXED_SHIFT);
        match self.config.metrics {
            0 => counters,
            _ => counters | METRICS_BIT,
        }
    }

    /// The four bits of fixed counter `n` in IA32_FIXED_CTR_CTRL.
    fn fixed_bits(&self, n: usize) -> u64 {
        self.fixed_ctrl >> (fixed::BITS * n)
    }

    /// AnyThread can be written.
    fn has_any_thread(&self) -> bool {
        self.config.version >= 3 && !self.config.any_thread_deprecated()
    }

    fn write_evtsel(&mut self, n: usize, value: u64) -> Result<(), Fault> {
        let reserved = match self.has_any_thread() {
            true => !evtsel::DEFINED,
            false => !evtsel::DEFINED | evtsel::ANY_THREAD,
        };
        self.evtsel[n] = checked(value, reserved)?;
        Ok(())
    }

    fn write_fixed_ctrl(&mut self, value: u64) -> Result<(), Fault> {
        let one = match self.has_any_thread() {
            true => fixed::OS | fixed::USR | fixed::ANY_THREAD | fixed::PMI,
            false => fixed::OS | fixed::USR | fixed::PMI,
        };
        let defined = (0..self.config.fixed).fold(0, |all, n| all | one << (fixed::BITS * n));
        self.fixed_ctrl = checked(value, !defined)?;
        Ok(())
    }

    /// What IA32_PERF_GLOBAL_STATUS_RESET can clear.
    fn status_clearable(&self) -> u64 {
        let since_2 = self.counter_bits() | status::OVF_BUF | status::COND_CHGD;
        let since_3 = status::OVF_UNCORE;
        let since_4 = status::CTR_FRZ | status::LBR_FRZ;
        let of_version = match self.config.version {
            0..=2 => since_2,
            3 => since_2 | since_3,
            _ => since_2 | since_3 | since_4,
        };
        match self.config.pt {
            true => of_version | status::TRACE_TOPA_PMI,
            false => of_version,
        }
    }

    /// What IA32_PERF_GLOBAL_STATUS_SET can set: not COND_CHGD.
    fn status_settable(&self) -> u64 {
        self.status_clearable() & !status::COND_CHGD
    }

    fn in_use(&self) -> u64 {
        let mut bits = 0;
        for n in 0..self.config.gp {
            if self.evtsel[n] & evtsel::SELECT != 0 {
                bits |= self.global_bit(n);
            }
            if self.evtsel[n] & evtsel::INT != 0 {
                bits |= INUSE_PMI;
            }
        }
        for n in 0..self.config.fixed {
            if self.fixed_bits(n) & (fixed::OS | fixed::USR) != 0 {
                bits |= self.global_bit(self.config.gp + n);
            }
            if self.fixed_bits(n) & fixed::PMI != 0 {
                bits |= INUSE_PMI;
            }
        }
        bits
    }

    /// IA32_PERF_GLOBAL_CTRL, as a VM exit saves it.
    pub fn global_ctrl(&self) -> u64 {
        self.global_ctrl
    }

    /// Loads IA32_PERF_GLOBAL_CTRL, as VM entry and exit do. Reserved bits are
    /// [a fault](Fault), which for VM entry means a failed check.
    pub fn set_global_ctrl(&mut self, value: u64) -> Result<(), Fault> {
        self.global_ctrl = checked(value, !self.counter_bits())?;
        Ok(())
    }
}

fn checked(value: u64, reserved: u64) -> Result<u64, Fault> {
    match value & reserved {
        0 => Ok(value),
        _ => Err(Fault::GeneralProtection),
    }
}

/// The sign of the low 32 bits, extended; the counter drops what it has no bits for.
fn sign_extended(value: u64) -> u64 {
    i64::from(value as u32 as i32) as u64
}

fn rings(os: bool, usr: bool) -> ClassSet {
    match (os, usr) {
        (false, false) => ClassSet::NONE,
        (true, false) => ClassSet::KERNEL,
        (false, true) => ClassSet::USER,
        (true, true) => ClassSet::ALL,
    }
}

impl RegisterMap for Intel {
    type Register = Register;

    const COUNTER_WIDTH: u32 = 48;

    fn counters(&self) -> usize {
        self.config.gp + self.config.fixed + usize::from(self.config.metrics > 0)
    }

    fn derived(&self) -> Option<usize> {
        (self.config.metrics > 0).then_some(self.config.gp + self.config.fixed)
    }

    fn derived_from(&self) -> SourceSet {
        match self.metrics_counting() {
            Some(_) => SourceSet::of(Source::Branches),
            None => SourceSet::NONE,
        }
    }

    fn derive(&mut self, events: &Deltas, counters: &mut Counters) -> bool {
        let (Some(n), Some(counting)) = (self.derived(), self.metrics_counting()) else {
            return false;
        };
        let slots = events.total(counting.event, counting.classes);
        if slots == 0 {
            return false;
        }
        let of_branches = Event {
            sources: SourceSet::of(Source::Branches),
            ..counting.event
        };
        let front_end = events.total(of_branches, counting.classes).min(slots);
        let value = self.metrics.counted(slots, front_end, self.config.metrics);
        counters.set(n, value);
        true
    }

    fn register(&self, msr: u32) -> Option<Register> {
        Register::find(msr, &self.config)
    }

    fn read(&self, register: Register, counters: &Counters) -> Result<u64, Fault> {
        Ok(match register {
            Register::Lbr(register) => return self.read_lbr(register),
            Register::Pt(register) => return self.read_pt(register),
            Register::EvtSel(n) => self.evtsel[n],
            Register::Pmc(n) | Register::FullWidthPmc(n) => counters.get(n),
            Register::FixedCtr(n) => counters.get(self.config.gp + n),
            Register::PerfMetrics => counters.get(self.config.gp + self.config.fixed),
            Register::FixedCtrCtrl => self.fixed_ctrl,
            Register::GlobalStatus => self.global_status,
            Register::GlobalCtrl => self.global_ctrl,
            Register::GlobalStatusReset | Register::GlobalStatusSet => 0,
            Register::GlobalInUse => self.in_use(),
            Register::Capabilities => self.config.capabilities(),
        })
    }

    fn write(
        &mut self,
        register: Register,
        value: u64,
        counters: &mut Counters,
    ) -> Result<(), Fault> {
        match register {
            Register::Lbr(register) => self.write_lbr(register, value)?,
            Register::Pt(register) => self.write_pt(register, value)?,
            Register::EvtSel(n) => self.write_evtsel(n, value)?,
            Register::Pmc(n) => counters.set(n, sign_extended(value)),
            Register::FullWidthPmc(n) => counters.set(n, checked(value, !counters.mask())?),
            Register::FixedCtr(n) => {
                counters.set(self.config.gp + n, checked(value, !counters.mask())?);
                if n == SLOTS {
                    self.metrics.counter_written(value);
                }
            }
            Register::PerfMetrics => {
                let value = checked(value, !self.metrics_mask())?;
                counters.set(self.config.gp + self.config.fixed, value);
                self.metrics.written(value);
            }
            Register::FixedCtrCtrl => self.write_fixed_ctrl(value)?,
            Register::GlobalCtrl => self.set_global_ctrl(value)?,
            Register::GlobalStatusReset => {
                self.global_status &= !checked(value, !self.status_clearable())?;
            }
            Register::GlobalStatusSet => {
                self.global_status |= checked(value, !self.status_settable())?;
            }
            Register::GlobalStatus | Register::GlobalInUse | Register::Capabilities => {
                return Err(Fault::GeneralProtection);
            }
        }
        Ok(())
    }

    fn rdpmc(&self, index: u32, counters: &Counters) -> Result<u64, Fault> {
        const FIXED: u32 = 1 << 30;
        let fixed = (index & !FIXED) as usize;
        match index as usize {
            n if n < self.config.gp => Ok(counters.get(n)),
            _ if index == RDPMC_METRICS && self.config.metrics > 0 => {
                Ok(counters.get(self.config.gp + self.config.fixed))
            }
            _ if index & FIXED != 0 && fixed < self.config.fixed => {
                Ok(counters.get(self.config.gp + fixed))
            }
            _ => Err(Fault::GeneralProtection),
        }
    }

    fn counting(&self, n: usize) -> Option<Counting> {
        if self.global_ctrl & self.global_bit(n) == 0 || self.global_status & status::CTR_FRZ != 0 {
            return None;
        }
        let (event, classes, pmi) = match n.checked_sub(self.config.gp) {
            None => {
                let value = self.evtsel[n];
                if value & evtsel::EN == 0 {
                    return None;
                }
                (
                    events::selected(value as u16, self.config.codes, self.weights)?,
                    rings(value & evtsel::OS != 0, value & evtsel::USR != 0),
                    value & evtsel::INT != 0,
                )
            }
            Some(fixed_counter) => {
                let bits = self.fixed_bits(fixed_counter);
                (
                    events::fixed(fixed_counter, self.weights)?,
                    rings(bits & fixed::OS != 0, bits & fixed::USR != 0),
                    bits & fixed::PMI != 0,
                )
            }
        };
        (!classes.is_empty()).then_some(Counting {
            event,
            classes,
            pmi,
        })
    }

    fn cycle_rule(&self, n: usize) -> Option<CycleRule> {
        let value = *self.evtsel[..self.config.gp].get(n)?;
        let rule = CycleRule {
            at_least: value >> evtsel::CMASK_SHIFT & 0xff,
            inverted: value & evtsel::INV != 0,
            edge: value & evtsel::EDGE != 0,
        };
        (rule.at_least != 0 || rule.edge).then_some(rule)
    }

    fn wrapped(&mut self, n: usize) {
        self.global_status |= self.global_bit(n);
        if n == self.config.gp + SLOTS && self.metrics_counting().is_some() {
            self.global_status |= METRICS_BIT;
        }
    }

    fn pmi(&mut self) {
        self.freeze();
    }

    fn reset(&mut self, reset: Reset, counters: &mut Counters) {
        if reset == Reset::Reset {
            *self = Intel::new(self.config).with_weights(self.weights);
            counters.clear();
        }
    }

    fn scramble(&mut self, random: &mut Random, counters: &mut Counters) {
        /// The event and its unit mask.
        const EVENT: u64 = 0xffff;
        /// Instructions retired.
        const INSTRUCTIONS: u64 = 0x00c0;
        for n in 0..counters.len() {
            counters.set(n, random.next());
        }
        if let Some(n) = self.derived() {
            counters.set(n, counters.get(n) & self.metrics_mask());
            self.metrics.counter_written(counters.get(n - 1));
            self.metrics.written(counters.get(n));
        }
        for selector in &mut self.evtsel[..self.config.gp] {
            let bits = evtsel::USR | evtsel::OS | evtsel::INT | evtsel::EN;
            let value = random.next() & (bits | EVENT);
            // Every second one counts instructions, or would.
            *selector = match random.next() & 1 {
                0 => value,
                _ => value & bits | INSTRUCTIONS,
            };
        }
        let fixed = fixed::OS | fixed::USR | fixed::PMI;
        let all = (0..self.config.fixed).fold(0, |all, n| all | fixed << (fixed::BITS * n));
        self.fixed_ctrl = random.next() & all;
        self.global_ctrl = random.next() & self.counter_bits();
        self.global_status = random.next() & self.counter_bits();
        if let Some(lbr) = &mut self.lbr {
            lbr.scramble(random);
        }
        if let Some(pt) = &mut self.pt {
            pt.scramble(random);
        }
    }
}
