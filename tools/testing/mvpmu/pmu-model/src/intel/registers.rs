// SPDX-License-Identifier: GPL-2.0
//! Which register an MSR number names.

use super::msr;
use super::Config;
use super::LbrRegister;
use super::PtRegister;

/// A register of this PMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// IA32_PERFEVTSELn.
    EvtSel(usize),
    /// IA32_PMCn.
    Pmc(usize),
    /// IA32_A_PMCn.
    FullWidthPmc(usize),
    /// IA32_FIXED_CTRn.
    FixedCtr(usize),
    /// PERF_METRICS.
    PerfMetrics,
    /// IA32_FIXED_CTR_CTRL.
    FixedCtrCtrl,
    /// IA32_PERF_GLOBAL_STATUS.
    GlobalStatus,
    /// IA32_PERF_GLOBAL_CTRL.
    GlobalCtrl,
    /// IA32_PERF_GLOBAL_STATUS_RESET.
    GlobalStatusReset,
    /// IA32_PERF_GLOBAL_STATUS_SET.
    GlobalStatusSet,
    /// IA32_PERF_GLOBAL_INUSE.
    GlobalInUse,
    /// IA32_PERF_CAPABILITIES.
    Capabilities,
    /// One of the last branch records.
    Lbr(LbrRegister),
    /// One of PT.
    Pt(PtRegister),
}

impl Register {
    pub(super) fn find(number: u32, config: &Config) -> Option<Register> {
        let from = |first: u32, len: usize| {
            let n = number.checked_sub(first)? as usize;
            (n < len).then_some(n)
        };
        if let Some(n) = from(msr::PMC0, config.gp) {
            return Some(Register::Pmc(n));
        }
        if let Some(n) = from(msr::PERFEVTSEL0, config.gp) {
            return Some(Register::EvtSel(n));
        }
        if let Some(n) = from(msr::FIXED_CTR0, config.fixed) {
            return Some(Register::FixedCtr(n));
        }
        if let Some(n) = from(msr::A_PMC0, config.gp) {
            return config
                .full_width_writes
                .then_some(Register::FullWidthPmc(n));
        }
        match number {
            msr::PERF_CAPABILITIES => Some(Register::Capabilities),
            msr::PERF_METRICS if config.metrics > 0 => Some(Register::PerfMetrics),
            msr::FIXED_CTR_CTRL => Some(Register::FixedCtrCtrl),
            msr::GLOBAL_STATUS => Some(Register::GlobalStatus),
            msr::GLOBAL_CTRL => Some(Register::GlobalCtrl),
            msr::GLOBAL_STATUS_RESET => Some(Register::GlobalStatusReset),
            msr::GLOBAL_STATUS_SET if config.version >= 4 => Some(Register::GlobalStatusSet),
            msr::GLOBAL_INUSE if config.version >= 4 => Some(Register::GlobalInUse),
            _ => {
                let lbr = LbrRegister::of(number).filter(|_| config.lbr);
                let pt = PtRegister::of(number).filter(|_| config.pt);
                lbr.map(Register::Lbr).or(pt.map(Register::Pt))
            }
        }
    }
}
