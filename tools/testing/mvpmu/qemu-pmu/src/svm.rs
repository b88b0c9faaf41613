// SPDX-License-Identifier: GPL-2.0
//! Guest mode: VMRUN and #VMEXIT.
//!
//! VMRUN is an instruction and can be watched. Whether the [`Guest`] was left is looked at whenever
//! a block is translated, and in the block behind a VMRUN, which is where the host goes on.
//!
//! Nested guests need nothing more: the only VMRUN that runs without an exit is L1's. (KVM
//! intercepts VMRUN in its guests, as it must, and runs an L3 with a VMRUN of its own.)

use crate::block::Site;
use crate::decode::Kind;
use crate::guest::Exit;
use crate::guest::Guest;
use crate::leaf;
use crate::registers::handles;
use crate::registers::Bus;
use crate::vcpu::Vcpu;

impl Vcpu {
    /// VMRUN is about to be executed.
    pub fn vmrun(&mut self, site: &Site) {
        let vmcb = self.bus.register(handles().rax);
        self.guest = Some(Guest::enter(vmcb, site.vaddr, &mut self.bus));
        self.pmu.stats_mut().vm_entries += 1;
        self.oracle_enter(site);
        self.enter_lbr(vmcb);
        self.publish();
    }

    /// VMRUN itself raised an exception.
    pub fn vmrun_failed(&mut self) {
        if let Some(guest) = self.guest.take() {
            guest.was_not_entered(&mut self.bus);
            self.undo_lbr();
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
        let Some(guest) = &self.guest else {
            return false;
        };
        let Some(exit) = guest.exit(&mut self.bus) else {
            return true;
        };
        self.vmexit(&exit);
        false
    }

    /// The length of the instruction by which the guest was left.
    fn len_of_intercepted(&mut self, exit: &Exit) -> Option<u8> {
        let block = self.board().block();
        // SAFETY: It came from translated code of a block in the arena.
        let block = unsafe { block.as_ref() }?;
        let index = block.index_of(exit.instruction?)?;
        block.class.is_guest().then(|| block.insns[index].len)
    }

    fn vmexit(&mut self, exit: &Exit) {
        let len = self.len_of_intercepted(exit);
        if let Some(guest) = &self.guest {
            guest.set_next_rip(&mut self.bus, exit, len);
        }
        if let (Some(guest), Some(leaf)) = (&self.guest, self.cpuid.take()) {
            // CPUID was the last instruction of the guest, and it was not intercepted.
            let rax = guest.rax(&mut self.bus);
            if let Some(rax) = leaf::announce(&mut self.bus, leaf, rax) {
                guest.set_rax(&mut self.bus, rax);
            }
            self.board().leave();
        }
        let register = |bus: &mut Bus, name| bus.register(name) & u64::from(u32::MAX);
        self.asked = match (&self.guest, exit.wrmsr) {
            (Some(guest), true) => {
                // RAX is the host's again.
                let low = guest.rax(&mut self.bus) & u64::from(u32::MAX);
                let high = register(&mut self.bus, handles().rdx) << 32;
                let msr = register(&mut self.bus, handles().rcx) as u32;
                Some((guest.vmcb, msr, high | low))
            }
            _ => None,
        };
        self.guest_left(exit.rip, !exit.between, exit.user);
        self.broke_at(exit.rip, !exit.between);
        self.exception = false;
        self.guest = None;
        self.exited = true;
        self.pmu.stats_mut().vm_exits += 1;
        self.publish();
    }
}
