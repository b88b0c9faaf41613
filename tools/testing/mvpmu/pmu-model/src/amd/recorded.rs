// SPDX-License-Identifier: GPL-2.0
//! What a machine says of last branches to a PMU, and with that to its oracle.

use crate::oracle::Recorded;
use crate::Pmu;

use super::Amd;
use super::Branch;
use super::HostLbr;
use super::SavedLbr;

impl Pmu<Amd> {
    /// A branch was taken, an interrupt or an exception.
    pub fn branch(&mut self, branch: Branch) {
        let (map, counters, oracle) = self.parts();
        if let (true, Some(oracle)) = (map.branch(branch), oracle) {
            oracle.recorded(map, counters, Recorded::Branch);
        }
    }

    /// VMRUN with LBR virtualization, behind [`enter`](Pmu::enter): loads the guest's registers. What they
    /// were before is to be given to [`lbr_exit`](Pmu::lbr_exit).
    pub fn lbr_enter(&mut self, guest: &SavedLbr) -> Option<HostLbr> {
        let (map, counters, oracle) = self.parts();
        let host = map.lbr_enter(guest);
        if let (Some(_), Some(oracle)) = (&host, oracle) {
            oracle.loaded_branches(map, counters);
        }
        host
    }

    /// #VMEXIT with LBR virtualization, before [`exit`](Pmu::exit): what is to be saved of the guest.
    pub fn lbr_exit(&mut self, host: &HostLbr) -> Option<SavedLbr> {
        let (map, counters, oracle) = self.parts();
        let guest = map.lbr_exit(host);
        if let (Some(_), Some(oracle)) = (&guest, oracle) {
            oracle.left_branches(map, counters);
        }
        guest
    }

    /// VMRUN has entered nothing after all.
    pub fn lbr_not_entered(&mut self, host: HostLbr) {
        let (map, _, oracle) = self.parts();
        map.lbr_not_entered(host);
        if let Some(oracle) = oracle {
            oracle.unloaded_branches();
        }
    }
}
