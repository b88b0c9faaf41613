// SPDX-License-Identifier: GPL-2.0
//! What a machine says of last branches to a PMU, and with that to its oracle.

use crate::Fault;
use crate::Pmu;

use super::Intel;
use super::Transfer;

impl Pmu<Intel> {
    /// Control was transferred: a branch was taken, an interrupt or an exception.
    pub fn transferred(&mut self, transfer: Transfer) {
        let (map, counters, oracle) = self.parts();
        if let (Some(change), Some(oracle)) = (map.transferred(transfer), oracle) {
            oracle.recorded(map, counters, change);
        }
    }

    /// VM entry loads IA32_LBR_CTL, behind [`enter`](Pmu::enter). Its reserved bits are
    /// [a fault](Intel::set_lbr_control).
    pub fn load_lbr_control(&mut self, value: u64) -> Result<(), Fault> {
        let (map, _, oracle) = self.parts();
        map.set_lbr_control(value)?;
        if let Some(oracle) = oracle {
            oracle.loaded_branch_control();
        }
        Ok(())
    }
}
