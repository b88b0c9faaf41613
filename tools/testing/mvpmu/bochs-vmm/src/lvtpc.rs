// SPDX-License-Identifier: GPL-2.0

//! The local APIC's entry for PMIs.

use crate::core;
use crate::layout;

/// Its number.
pub const REGISTER: u32 = 0x340;
const ADDRESS: u64 = 0xfee0_0000 + REGISTER as u64;
const MASKED: u32 = 1 << 16;

/// One interrupt by it, which is masked by that (SDM volume 3, "Local Vector Table", "Mask");
/// false when it was masked already.
pub fn deliver() -> bool {
    let lapic = layout::lapic();
    let entry = core::lapic_read(lapic, ADDRESS);
    if entry & MASKED != 0 {
        return false;
    }
    core::lapic_deliver(lapic, entry as u8, (entry >> 8 & 7) as u8, 0);
    core::lapic_set_lvt(lapic, REGISTER, entry | MASKED);
    true
}
