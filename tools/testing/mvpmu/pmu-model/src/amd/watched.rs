// SPDX-License-Identifier: GPL-2.0
//! What the oracle needs to know of the registers.

use crate::oracle::BranchRegister;
use crate::Cell;
use crate::Counters;
use crate::Watched;

use super::Amd;
use super::LbrRegister;
use super::Register;
use super::COUNTERS;
use super::DF_COUNTERS;
use super::EN;
use super::GUEST_ONLY;
use super::HOST_ONLY;
use super::LBR_ENTRIES;
use super::UNCORE_COUNTERS;

impl Watched for Amd {
    fn cell(&self, register: Register) -> Option<Cell> {
        Some(match register {
            Register::Ctl(n) => Cell::Selector(n),
            Register::Ctr(n) => Cell::Counter(n),
            Register::GlobalCtl => Cell::Control,
            Register::GlobalStatus | Register::GlobalStatusClr | Register::GlobalStatusSet => {
                Cell::Status
            }
            Register::UncoreCtr(n) => Cell::Uncore(n),
            Register::Lbr(register) => Cell::Lbr(register.into()),
            // Which event it is, is no secret.
            Register::UncoreCtl(_) => return None,
        })
    }

    fn value(&self, cell: Cell, counters: &Counters) -> u64 {
        match cell {
            Cell::Counter(n) => counters.get(n),
            Cell::Selector(n) => self.ctl[n],
            Cell::Control => self.global_ctl,
            Cell::Status => self.global_status,
            Cell::Uncore(n) => self.uncore.ctr(n),
            Cell::Lbr(BranchRegister::Depth) => LBR_ENTRIES as u64,
            Cell::Lbr(register) => LbrRegister::named(register)
                .zip(self.lbr.as_ref())
                .map_or(0, |(register, lbr)| lbr.read(register)),
            Cell::FixedControl | Cell::Lvtpc | Cell::Trace | Cell::Pt(_) => 0,
        }
    }

    fn rdpmc_cell(&self, index: u32) -> Option<Cell> {
        match index as usize {
            n if n < self.counters => Some(Cell::Counter(n)),
            n if (COUNTERS..COUNTERS + UNCORE_COUNTERS).contains(&n) => {
                Some(Cell::Uncore(n - COUNTERS))
            }
            _ => None,
        }
    }

    fn uncore_counters(&self) -> usize {
        UNCORE_COUNTERS
    }

    fn selected_by(&self, n: usize) -> Cell {
        Cell::Selector(n)
    }

    fn is_selected(&self, n: usize) -> bool {
        self.ctl[n] != 0
    }

    fn is_guest_only(&self, n: usize) -> bool {
        self.ctl[n] & (GUEST_ONLY | HOST_ONLY) == GUEST_ONLY
    }

    fn is_stopped_guest_only(&self, n: usize) -> bool {
        self.is_guest_only(n) && self.ctl[n] & EN == 0
    }

    fn is_control_switched(&self) -> bool {
        false
    }

    fn status_bit(&self, n: usize) -> u64 {
        1 << n
    }

    fn name(&self, cell: Cell) -> String {
        match cell {
            Cell::Counter(n) => format!("PERF_CTR{n}"),
            Cell::Selector(n) => format!("PERF_CTL{n}"),
            Cell::Control => "PerfCntrGlobalCtl".into(),
            Cell::Status => "PerfCntrGlobalStatus".into(),
            Cell::FixedControl => "a fixed control that AMD does not have".into(),
            Cell::Lvtpc => "LVTPC".into(),
            Cell::Trace | Cell::Pt(_) => "a trace that AMD does not have".into(),
            Cell::Uncore(n) => match n.checked_sub(DF_COUNTERS) {
                None => format!("DF_PERF_CTR{n}"),
                Some(n) => format!("L3_PERF_CTR{n}"),
            },
            Cell::Lbr(BranchRegister::Filter) => "LastBranchStackSelect".into(),
            Cell::Lbr(BranchRegister::Control) => "DebugExtnCtl".into(),
            Cell::Lbr(BranchRegister::From(n)) => format!("LastBranchStackFromIp{n}"),
            Cell::Lbr(BranchRegister::To(n)) => format!("LastBranchStackToIp{n}"),
            Cell::Lbr(BranchRegister::Info(_) | BranchRegister::Depth) => {
                "a register of last branches that AMD does not have".into()
            }
        }
    }
}

impl From<LbrRegister> for BranchRegister {
    fn from(register: LbrRegister) -> BranchRegister {
        match register {
            LbrRegister::Select => BranchRegister::Filter,
            LbrRegister::Control => BranchRegister::Control,
            LbrRegister::From(n) => BranchRegister::From(n),
            LbrRegister::To(n) => BranchRegister::To(n),
        }
    }
}

impl LbrRegister {
    /// The one that the oracle calls so, if AMD has it.
    fn named(register: BranchRegister) -> Option<LbrRegister> {
        match register {
            BranchRegister::Filter => Some(LbrRegister::Select),
            BranchRegister::Control => Some(LbrRegister::Control),
            BranchRegister::From(n) if n < LBR_ENTRIES => Some(LbrRegister::From(n)),
            BranchRegister::To(n) if n < LBR_ENTRIES => Some(LbrRegister::To(n)),
            _ => None,
        }
    }
}
