// SPDX-License-Identifier: GPL-2.0
//! What the oracle needs to know of the registers.

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
            Register::Lbr(register) => Cell::Lbr(register),
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
            Cell::Lbr(register) => self.lbr.as_ref().map_or(0, |lbr| lbr.read(register)),
            Cell::FixedControl | Cell::Lvtpc | Cell::Trace => 0,
        }
    }

    fn rdpmc_cell(&self, index: u32) -> Option<Cell> {
        match index as usize {
            n if n < COUNTERS => Some(Cell::Counter(n)),
            n if n < COUNTERS + UNCORE_COUNTERS => Some(Cell::Uncore(n - COUNTERS)),
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
            Cell::Trace => "a trace that AMD does not have".into(),
            Cell::Uncore(n) => match n.checked_sub(DF_COUNTERS) {
                None => format!("DF_PERF_CTR{n}"),
                Some(n) => format!("L3_PERF_CTR{n}"),
            },
            Cell::Lbr(LbrRegister::Select) => "LastBranchStackSelect".into(),
            Cell::Lbr(LbrRegister::Control) => "DebugExtnCtl".into(),
            Cell::Lbr(LbrRegister::From(n)) => format!("LastBranchStackFromIp{n}"),
            Cell::Lbr(LbrRegister::To(n)) => format!("LastBranchStackToIp{n}"),
        }
    }
}
