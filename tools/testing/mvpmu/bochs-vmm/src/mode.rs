// SPDX-License-Identifier: GPL-2.0

//! On whose account the CPU works: the host's, or that of which guest.

use crate::layout;
use crate::single::SingleCell;

/// VM entry or VM exit walks an MSR list.
static IN_MSR_LIST: SingleCell<bool> = SingleCell::new(false);

/// The address of the current VMCS while in a guest: the name of the vCPU.
pub fn current_guest() -> Option<u64> {
    let guest = layout::IN_VMX_GUEST.get::<u8>() != 0 && !IN_MSR_LIST.get();
    guest.then(|| layout::VMCS_POINTER.get())
}

/// VM entry or VM exit walks an MSR list.
pub fn walks_list() -> bool {
    IN_MSR_LIST.get()
}

/// Runs `walk`, with what it does to registers on the host's account: the lists
/// are the host's, whichever mode the CPU is in by then.
pub fn for_the_host(walk: impl FnOnce() -> u32) -> u32 {
    IN_MSR_LIST.set(true);
    let failed = walk();
    IN_MSR_LIST.set(false);
    failed
}
