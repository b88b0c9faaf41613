// SPDX-License-Identifier: GPL-2.0

//! Code that changes after it was decoded, by whichever CPU.

use crate::core;
use crate::cpus;

/// Physical memory `[address, address + len)`, which is RAM and within a page, is written: what was
/// decoded from it no longer holds.
pub fn code_written(address: u64, len: u32) {
    const PART: u64 = 4096 / u32::BITS as u64;
    let part = |address: u64| 1u32 << (address / PART % u64::from(u32::BITS));
    let parts = part(address) | part(address + u64::from(len) - 1);
    // SAFETY: RAM is below 4 GiB, for which there are words.
    let word = unsafe { &mut *core::decoded_words().add((address / 4096) as usize) };
    if *word & parts != 0 {
        *word &= !parts;
        forget(address, parts);
    }
}

/// Replaces `handleSMC(address, parts)`: the core's knows one CPU.
#[export_name = "_Z9handleSMCmj"]
extern "C-unwind" fn forget(address: u64, parts: u32) {
    for cpu in 0..cpus::count() {
        core::on(cpu, || core::core_handle_smc(address, parts));
    }
}

/// Replaces `flushICaches()`, which forgets also from which pages something was decoded.
#[export_name = "_Z12flushICachesv"]
extern "C-unwind" fn forget_all() {
    for cpu in 0..cpus::count() {
        core::on(cpu, core::core_flush_decoded);
    }
}
