// SPDX-License-Identifier: GPL-2.0
//! Who touches a PMU register, and what it gets when it must not.

/// On whose behalf the CPU executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Host mode: the hypervisor and everything that is not inside a virtual machine.
    Host,
    /// Guest mode, named by the physical address of the VMCB or VMCS that was entered: one
    /// address, one vCPU.
    Guest(u64),
}

impl Owner {
    /// True in guest mode.
    pub fn is_guest(self) -> bool {
        matches!(self, Owner::Guest(_))
    }
}

/// The circumstances of a register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// On whose behalf.
    pub owner: Owner,
    /// Current privilege level, 0 to 3. The machine has done the privilege checks (CPL, `CR4.PCE`,
    /// intercepts) before it comes here.
    pub cpl: u8,
}

/// An access that the PMU refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// #GP(0).
    GeneralProtection,
}
