// SPDX-License-Identifier: GPL-2.0
//! What the oracle needs to know of the registers.

use crate::Cell;
use crate::Counters;
use crate::Watched;

use super::Amd;
use super::Register;
use super::COUNTERS;
use super::GUEST_ONLY;
use super::HOST_ONLY;

impl Watched for Amd {
    fn cell(&self, register: Register) -> Option<Cell> {
        Some(match register {
            Register::Ctl(n) => Cell::Selector(n),
            Register::Ctr(n) => Cell::Counter(n),
            Register::GlobalCtl => Cell::Control,
            Register::GlobalStatus | Register::GlobalStatusClr | Register::GlobalStatusSet => {
                Cell::Status
            }
            // Of all CPUs together: nobody's.
            Register::UncoreCtl(_) | Register::UncoreCtr(_) => return None,
        })
    }

    fn value(&self, cell: Cell, counters: &Counters) -> u64 {
        match cell {
            Cell::Counter(n) => counters.get(n),
            Cell::Selector(n) => self.ctl[n],
            Cell::Control => self.global_ctl,
            Cell::Status => self.global_status,
            Cell::FixedControl | Cell::Lvtpc => 0,
        }
    }

    fn rdpmc_counter(&self, index: u32) -> Option<usize> {
        Some(index as usize).filter(|n| *n < COUNTERS)
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
        }
    }
}
