// SPDX-License-Identifier: GPL-2.0
//! Guest mode: VMRUN, #VMEXIT and intercepts.
//!
//! A plugin is told of neither. VMRUN is an instruction and can be watched. For #VMEXIT a value
//! that no exit has is put into the VMCB's exit code before: once it changed, the guest was left.
//! That is looked at whenever a block is translated, and in the block behind a VMRUN, which is
//! where the host goes on.
//!
//! Nested guests need nothing more: the only VMRUN that runs without an exit is L1's. (KVM
//! intercepts VMRUN in its guests, as it must, and runs an L3 with a VMRUN of its own.)

use crate::block::Site;
use crate::cpuid;
use crate::decode::Kind;
use crate::decode::VMRUN;
use crate::registers::handles;
use crate::registers::Bus;
use crate::vcpu::Vcpu;

/// VMCB fields, as offsets.
mod vmcb {
    /// Intercept words 3 and 4.
    pub const INTERCEPTS: u64 = 0x00c;
    /// Physical address of the MSR permission map.
    pub const MSRPM_BASE: u64 = 0x048;
    /// EXITCODE
    pub const EXIT_CODE: u64 = 0x070;
    /// EXITINFO1
    pub const EXIT_INFO_1: u64 = 0x078;
    /// EXITINTINFO
    pub const EXIT_INT_INFO: u64 = 0x088;
    /// RIP
    pub const RIP: u64 = 0x578;
    /// RAX
    pub const RAX: u64 = 0x5f8;
}

/// Intercept: RDPMC.
const INTERCEPT_RDPMC: u64 = 1 << 15;
/// Intercept: CPUID.
const INTERCEPT_CPUID: u64 = 1 << 18;
/// Intercept: MSRs, as the permission map says.
const INTERCEPT_MSR: u64 = 1 << 28;

/// Exit codes: physical interrupts, NMI, SMI, INIT, virtual interrupts. The guest is left between
/// two instructions.
const EXITS_BETWEEN: std::ops::RangeInclusive<u64> = 0x60..=0x64;
/// Exit codes: #PF and nested page fault.
const EXITS_PAGE_FAULT: [u64; 2] = [0x4e, 0x400];
/// Page fault error code: it was an instruction fetch.
const PAGE_FAULT_FETCH: u64 = 1 << 4;
/// EXITINTINFO: an event was being delivered.
const INT_INFO_VALID: u64 = 1 << 31;
/// EXITINTINFO types: interrupt, NMI. They come between two instructions.
const INT_INFO_BETWEEN: [u64; 2] = [0, 2];

/// An exit code that does not exist.
const RUNNING: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// The guest a vCPU runs.
pub struct Guest {
    /// Physical address of the VMCB.
    pub vmcb: u64,
    /// What VMRUN found in the intercept words.
    intercepts: u64,
    /// What VMRUN found in the exit code.
    exit_code: u64,
    /// Address of the VMRUN.
    vmrun: u64,
}

impl Guest {
    /// Whether RDPMC exits.
    pub fn intercepts_rdpmc(&self) -> bool {
        self.intercepts & INTERCEPT_RDPMC != 0
    }

    /// Whether no #VMEXIT has ever written the VMCB: KVM makes them of zeroes, and 0, a read of
    /// CR0, is nothing that KVM intercepts in a guest with nested paging.
    pub fn is_fresh(&self) -> bool {
        self.exit_code == 0
    }

    /// The MSR permission map, if MSRs are intercepted at all.
    pub fn msrpm(&self, bus: &mut Bus) -> Option<u64> {
        let used = self.intercepts & INTERCEPT_MSR != 0;
        used.then(|| bus.physical(self.vmcb + vmcb::MSRPM_BASE, 8))
    }

    /// Whether CPUID exits.
    pub fn intercepts_cpuid(&self) -> bool {
        self.intercepts & INTERCEPT_CPUID != 0
    }

    /// Whether RDMSR or WRMSR of `msr` exits.
    pub fn intercepts_msr(&self, bus: &mut Bus, msr: u32, write: bool) -> bool {
        /// Each of the map's three parts has two bits for each of 0x2000 MSRs.
        const PART: u64 = 0x2000;
        let Some(map) = self.msrpm(bus) else {
            return false;
        };
        let n = match msr {
            0x0000_0000..=0x0000_1fff => u64::from(msr),
            0xc000_0000..=0xc000_1fff => PART + u64::from(msr & 0x1fff),
            0xc001_0000..=0xc001_1fff => 2 * PART + u64::from(msr & 0x1fff),
            _ => return true,
        };
        let bit = 2 * n + u64::from(write);
        bus.physical(map + bit / 8, 1) >> (bit % 8) & 1 != 0
    }
}

/// Whether the block at `vaddr` is where a host goes on after a #VMEXIT.
pub fn follows_vmrun(bus: &mut Bus, vaddr: u64) -> bool {
    let before = vaddr.wrapping_sub(VMRUN.len() as u64);
    let [a, b, c] = VMRUN;
    bus.virtual_memory(before, VMRUN.len()) == Some(u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]))
}

impl Vcpu {
    /// VMRUN is about to be executed.
    pub fn vmrun(&mut self, site: &Site) {
        let vmcb = self.bus.register(handles().rax);
        self.guest = Some(Guest {
            vmcb,
            intercepts: self.bus.physical(vmcb + vmcb::INTERCEPTS, 8),
            exit_code: self.bus.physical(vmcb + vmcb::EXIT_CODE, 8),
            vmrun: site.vaddr,
        });
        self.bus.set_physical(vmcb + vmcb::EXIT_CODE, RUNNING, 8);
        self.pmu.stats_mut().vm_entries += 1;
        self.oracle_enter(site);
        self.publish();
    }

    /// VMRUN itself raised an exception.
    pub fn vmrun_failed(&mut self) {
        if let Some(guest) = self.guest.take() {
            self.bus
                .set_physical(guest.vmcb + vmcb::EXIT_CODE, guest.exit_code, 8);
            self.pmu.stats_mut().vm_entries -= 1;
            self.oracle_exit(guest.vmrun);
            self.publish();
        }
    }

    /// Whether an exception at `pc` is one of the VMRUN that was to enter the guest.
    pub fn is_vmrun(&mut self, pc: u64) -> bool {
        let block = self.board().block();
        // SAFETY: It came from translated code of a block in the arena.
        let in_host = unsafe { block.as_ref() }.is_some_and(|block| {
            !block.class.is_guest() && block.insns.iter().any(|insn| insn.kind == Kind::Vmrun)
        });
        in_host && self.guest.as_ref().is_some_and(|guest| guest.vmrun == pc)
    }

    /// Whether the vCPU is in guest mode; notices when it has left.
    pub fn in_guest(&mut self) -> bool {
        let Some(vmcb) = self.guest.as_ref().map(|g| g.vmcb) else {
            return false;
        };
        let code = self.bus.physical(vmcb + vmcb::EXIT_CODE, 8);
        if code == RUNNING {
            return true;
        }
        self.vmexit(vmcb, code);
        false
    }

    fn vmexit(&mut self, vmcb: u64, code: u64) {
        let rip = self.bus.physical(vmcb + vmcb::RIP, 8);
        let info = self.bus.physical(vmcb + vmcb::EXIT_INFO_1, 8);
        let int_info = self.bus.physical(vmcb + vmcb::EXIT_INT_INFO, 8);
        let delivering =
            int_info & INT_INFO_VALID != 0 && INT_INFO_BETWEEN.contains(&(int_info >> 8 & 7));
        let fetching = EXITS_PAGE_FAULT.contains(&code) && info & PAGE_FAULT_FETCH != 0;
        if let Some(leaf) = self.cpuid.take() {
            // CPUID was the last instruction of the guest, and it was not intercepted.
            let rax = self.bus.physical(vmcb + vmcb::RAX, 8);
            if let Some(rax) = cpuid::announce(&mut self.bus, leaf, rax) {
                self.bus.set_physical(vmcb + vmcb::RAX, rax, 8);
            }
            self.board().leave();
        }
        let between = EXITS_BETWEEN.contains(&code) || delivering || fetching;
        self.broke_at(rip, !between);
        self.exception = false;
        self.guest = None;
        self.exited = true;
        self.pmu.stats_mut().vm_exits += 1;
        self.publish();
    }
}
