// SPDX-License-Identifier: GPL-2.0
//! What the oracle needs to know of the registers.

use crate::oracle::BranchRegister;
use crate::Cell;
use crate::Counters;
use crate::RegisterMap;
use crate::Watched;

use super::fixed;
use super::Intel;
use super::LbrRegister;
use super::Register;
use super::RDPMC_METRICS;
use super::SLOTS;

/// RDPMC: the index is a fixed counter's.
const RDPMC_FIXED: u32 = 1 << 30;

impl Watched for Intel {
    fn cell(&self, register: Register) -> Option<Cell> {
        match register {
            Register::EvtSel(n) => Some(Cell::Selector(n)),
            Register::Pmc(n) | Register::FullWidthPmc(n) => Some(Cell::Counter(n)),
            Register::FixedCtr(n) => Some(Cell::Counter(self.config.gp + n)),
            Register::PerfMetrics => self.derived().map(Cell::Counter),
            Register::FixedCtrCtrl => Some(Cell::FixedControl),
            Register::GlobalCtrl => Some(Cell::Control),
            Register::GlobalStatus | Register::GlobalStatusReset | Register::GlobalStatusSet => {
                Some(Cell::Status)
            }
            Register::Lbr(register) => Some(Cell::Lbr(register.into())),
            Register::Pt(register) => Some(Cell::Pt(register)),
            Register::GlobalInUse | Register::Capabilities => None,
        }
    }

    fn value(&self, cell: Cell, counters: &Counters) -> u64 {
        match cell {
            Cell::Counter(n) => counters.get(n),
            Cell::Selector(n) => self.evtsel[n],
            Cell::FixedControl => self.fixed_ctrl,
            Cell::Control => self.global_ctrl,
            Cell::Status => self.global_status,
            Cell::Trace => self.debugctl,
            Cell::Lbr(register) => LbrRegister::named(register)
                .and_then(|register| self.read_lbr(register).ok())
                .unwrap_or(0),
            Cell::Pt(register) => self.kept_of_pt(register),
            Cell::Lvtpc | Cell::Uncore(_) => 0,
        }
    }

    fn rdpmc_cell(&self, index: u32) -> Option<Cell> {
        let n = (index & !RDPMC_FIXED) as usize;
        if index == RDPMC_METRICS {
            return self.derived().map(Cell::Counter);
        }
        let counter = match index & RDPMC_FIXED {
            0 => Some(n).filter(|n| *n < self.config.gp),
            _ => (n < self.config.fixed).then_some(self.config.gp + n),
        };
        counter.map(Cell::Counter)
    }

    fn selected_by(&self, n: usize) -> Cell {
        match n < self.config.gp {
            true => Cell::Selector(n),
            false => Cell::FixedControl,
        }
    }

    fn is_selected(&self, n: usize) -> bool {
        match n.checked_sub(self.config.gp) {
            None => self.evtsel[n] != 0,
            // PERF_METRICS goes with the slots.
            Some(n) => self.fixed_bits(n.min(SLOTS)) & (fixed::OS | fixed::USR) != 0,
        }
    }

    fn is_guest_only(&self, _n: usize) -> bool {
        false
    }

    fn is_tracing(&self) -> bool {
        self.stores_branches()
    }

    fn keeps_branches(&self) -> bool {
        true
    }

    fn is_control_switched(&self) -> bool {
        true
    }

    fn status_bit(&self, n: usize) -> u64 {
        self.global_bit(n)
    }

    fn name(&self, cell: Cell) -> String {
        match cell {
            Cell::Counter(n) => match n.checked_sub(self.config.gp) {
                None => format!("IA32_PMC{n}"),
                Some(n) if n < self.config.fixed => format!("IA32_FIXED_CTR{n}"),
                Some(_) => "PERF_METRICS".into(),
            },
            Cell::Selector(n) => format!("IA32_PERFEVTSEL{n}"),
            Cell::FixedControl => "IA32_FIXED_CTR_CTRL".into(),
            Cell::Control => "IA32_PERF_GLOBAL_CTRL".into(),
            Cell::Status => "IA32_PERF_GLOBAL_STATUS".into(),
            Cell::Lvtpc => "LVTPC".into(),
            Cell::Trace => "IA32_DEBUGCTL".into(),
            Cell::Uncore(_) => "a shared counter that Intel does not have".into(),
            Cell::Lbr(BranchRegister::Control) => "IA32_LBR_CTL".into(),
            Cell::Lbr(BranchRegister::Depth) => "IA32_LBR_DEPTH".into(),
            Cell::Lbr(BranchRegister::From(n)) => format!("IA32_LBR_{n}_FROM_IP"),
            Cell::Lbr(BranchRegister::To(n)) => format!("IA32_LBR_{n}_TO_IP"),
            Cell::Lbr(BranchRegister::Info(n)) => format!("IA32_LBR_{n}_INFO"),
            Cell::Lbr(BranchRegister::Filter) => "a filter that Intel does not have".into(),
            Cell::Pt(register) => register.name(),
        }
    }
}

impl From<LbrRegister> for BranchRegister {
    fn from(register: LbrRegister) -> BranchRegister {
        match register {
            LbrRegister::Control => BranchRegister::Control,
            LbrRegister::Depth => BranchRegister::Depth,
            LbrRegister::From(n) => BranchRegister::From(n),
            LbrRegister::To(n) => BranchRegister::To(n),
            LbrRegister::Info(n) => BranchRegister::Info(n),
        }
    }
}

impl LbrRegister {
    /// The one that the oracle calls so, if Intel has it.
    fn named(register: BranchRegister) -> Option<LbrRegister> {
        match register {
            BranchRegister::Control => Some(LbrRegister::Control),
            BranchRegister::Depth => Some(LbrRegister::Depth),
            BranchRegister::From(n) => Some(LbrRegister::From(n)),
            BranchRegister::To(n) => Some(LbrRegister::To(n)),
            BranchRegister::Info(n) => Some(LbrRegister::Info(n)),
            BranchRegister::Filter => None,
        }
    }
}
