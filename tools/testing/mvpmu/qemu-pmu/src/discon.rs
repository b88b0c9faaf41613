// SPDX-License-Identifier: GPL-2.0
//! Exceptions and interrupts.
//!
//! QEMU reports an exception twice: as EXCEPTION when it is raised, before the registers are up
//! to date, and as INTERRUPT when it was delivered, with the exact address. So the first is noted,
//! the second used. An INTERRUPT alone is an interrupt, or an event that VMRUN injected.

use crate::api;
use crate::leave;
use crate::quirks;
use crate::quirks::Quirk;
use crate::registers::handles;
use crate::vcpu::Vcpu;

/// The longest instruction.
const INSTRUCTION_MAX: u64 = 15;

/// The flow of instructions broke before, or in, the instruction at `from`.
pub fn happened(vcpu: &mut Vcpu, kind: api::Discontinuity, from: u64) {
    match kind {
        api::DISCON_EXCEPTION => {
            vcpu.exception = true;
            if !quirks::active(Quirk::ExceptionAddress) {
                exception(vcpu, from);
            }
        }
        api::DISCON_INTERRUPT if vcpu.exception => {
            vcpu.exception = false;
            if quirks::active(Quirk::ExceptionAddress) {
                exception(vcpu, from);
            }
        }
        api::DISCON_INTERRUPT => {
            if quirks::active(Quirk::SetPc) {
                // SAFETY: In a callback in the vCPU's thread.
                unsafe { leave::forget_exception(vcpu.cpu_state()) };
            }
            vcpu.event_taken(from, false, false);
            vcpu.interrupted_at(from);
        }
        _ => {}
    }
}

fn exception(vcpu: &mut Vcpu, from: u64) {
    if vcpu.is_vmrun(from) {
        vcpu.vmrun_failed();
    }
    let begun = !was_fetch(vcpu, from);
    vcpu.event_taken(from, true, begun);
    vcpu.broke_at(from, begun);
}

/// Whether the exception at `from` came from fetching that instruction, which then has not begun:
/// a page fault on its own address. CR2 keeps the address of the last one, so it is believed once.
fn was_fetch(vcpu: &mut Vcpu, from: u64) -> bool {
    let cr2 = vcpu.bus.register(handles().cr2);
    let seen = vcpu.fetch_fault == Some(cr2);
    let fetch = cr2.wrapping_sub(from) < INSTRUCTION_MAX && !seen;
    if fetch {
        vcpu.fetch_fault = Some(cr2);
    } else if !seen {
        vcpu.fetch_fault = None;
    }
    fetch
}
