// SPDX-License-Identifier: GPL-2.0
//! LBR virtualization: VMRUN and #VMEXIT switch the last branch records.
//!
//! The rules stand in pmu-model/src/amd/lbr.rs. What is in the VMCB is used and saved at each entry and
//! exit, whatever its clean bits say.

use pmu_model::amd::SavedLbr;
use pmu_model::amd::LBR_ENTRIES;

use crate::registers::Bus;
use crate::vcpu::Vcpu;

/// VMCB fields, as offsets (APM volume 2, appendix B).
mod vmcb {
    /// LBR virtualization in bit 0.
    pub const CONTROL: u64 = 0x0b8;
    /// DebugCtl
    pub const DBGCTL: u64 = 0x670;
    /// DebugExtnCtl
    pub const DBGEXTNCTL: u64 = 0x698;
    /// The entries, each from and to.
    pub const LBR_STACK: u64 = 0xa70;
    /// LastBranchStackSelect
    pub const LBR_SELECT: u64 = 0xb70;
}

/// LBR virtualization is enabled.
const LBR_VIRTUALIZATION: u64 = 1;

fn entry(vmcb: u64, n: usize) -> [u64; 2] {
    let from = vmcb + vmcb::LBR_STACK + 16 * n as u64;
    [from, from + 8]
}

fn load(vmcb: u64, bus: &mut Bus) -> SavedLbr {
    let mut saved = SavedLbr {
        debugctl: bus.physical(vmcb + vmcb::DBGCTL, 8),
        control: bus.physical(vmcb + vmcb::DBGEXTNCTL, 8),
        select: bus.physical(vmcb + vmcb::LBR_SELECT, 8),
        ..SavedLbr::default()
    };
    for n in 0..LBR_ENTRIES {
        saved.entries[n] = entry(vmcb, n).map(|address| bus.physical(address, 8));
    }
    saved
}

fn save(vmcb: u64, saved: &SavedLbr, bus: &mut Bus) {
    bus.set_physical(vmcb + vmcb::DBGCTL, saved.debugctl, 8);
    bus.set_physical(vmcb + vmcb::DBGEXTNCTL, saved.control, 8);
    bus.set_physical(vmcb + vmcb::LBR_SELECT, saved.select, 8);
    for (n, values) in saved.entries.iter().enumerate() {
        for (address, value) in entry(vmcb, n).into_iter().zip(values) {
            bus.set_physical(address, *value, 8);
        }
    }
}

/// Whether VMRUN switches them.
pub fn are_switched(vmcb: u64, bus: &mut Bus) -> bool {
    bus.physical(vmcb + vmcb::CONTROL, 8) & LBR_VIRTUALIZATION != 0
}

impl Vcpu {
    /// VMRUN is about to enter a guest.
    pub fn enter_lbr(&mut self, vmcb: u64) {
        let there = self.pmu.map().has_lbr();
        if !there || !are_switched(vmcb, &mut self.bus) {
            return;
        }
        let guest = load(vmcb, &mut self.bus);
        // What has happened so far is the host's.
        self.fold();
        let host = self.pmu.lbr_enter(&guest);
        self.lbr_of = host.map(|host| (vmcb, host));
        self.arm();
    }

    /// It was not entered after all.
    pub fn undo_lbr(&mut self) {
        if let Some((_, host)) = self.lbr_of.take() {
            self.fold();
            self.pmu.lbr_not_entered(host);
            self.arm();
        }
    }

    /// The guest was left. Everything is folded.
    pub fn leave_lbr(&mut self) {
        let Some((vmcb, host)) = self.lbr_of.take() else {
            return;
        };
        if let Some(guest) = self.pmu.lbr_exit(&host) {
            save(vmcb, &guest, &mut self.bus);
        }
        self.arm();
    }
}
