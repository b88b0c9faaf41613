// SPDX-License-Identifier: GPL-2.0

//! Last branch records, whose rules the model has: what is to be recorded.
//!
//! Branches are those that the core tells of. Interrupts and exceptions are found where the core delivers
//! them, with the instructions that ask for one. VM entry and VM exit come by neither way.

use pmu_model::intel::BranchKind;
use pmu_model::intel::Intel;
use pmu_model::intel::PtEvent;
use pmu_model::intel::Transfer;

use crate::core;
use crate::gather;
use crate::layout;
use crate::oracle;
use crate::per_cpu::CpuCell;
use crate::per_cpu::PerCpu;
use crate::pmu;
use crate::pt;
use crate::watch;

/// The event that is delivered next is injected by VM entry.
static INJECTED: CpuCell<bool> = CpuCell::new(false);

/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 1] = [&INJECTED];

/// The core's types of events, which are those of VMX.
mod event {
    pub const HARDWARE_EXCEPTION: u32 = 3;
    pub const SOFTWARE_INTERRUPT: u32 = 4;
    pub const PRIVILEGED_SOFTWARE_EXCEPTION: u32 = 5;
    pub const SOFTWARE_EXCEPTION: u32 = 6;
}

/// The vector of #DB.
const DEBUG: u8 = 1;

/// Adopts whether `pmu` records branches.
pub fn follow(pmu: &Intel) {
    watch::set(watch::by::LBR, pmu.records_branches());
}

fn are_recorded() -> bool {
    watch::get() & watch::by::LBR != 0
}

/// The current instruction branches.
pub fn branch(kind: BranchKind, from: u64, to: u64) {
    if are_recorded() {
        record(kind, from, to, gather::is_user());
    }
}

#[cold]
fn record(kind: BranchKind, from: u64, to: u64, from_user: bool) {
    let transfer = Transfer {
        from,
        to,
        kind,
        from_user,
        to_user: is_user(),
    };
    if pmu::transferred(transfer) {
        oracle::follow();
    }
}

fn is_user() -> bool {
    layout::CPL.get::<u8>() != 0
}

/// Runs `inject`, with which VM entry delivers an event.
pub fn injecting(inject: impl FnOnce()) {
    INJECTED.set(true);
    inject();
    INJECTED.set(false);
}

/// Replaces `BX_CPU_C::interrupt(vector, kind, has_error, error)`: delivers an interrupt or an exception.
#[export_name = "_ZN8BX_CPU_C9interruptEhjbt"]
extern "C-unwind" fn interrupt(vector: u8, kind: u32, has_error: bool, error: u16) {
    let is_injected = INJECTED.get();
    INJECTED.set(false);
    let from_user = is_user();
    // Where an interrupt comes in between or a fault is, but behind the instruction that asks for one.
    let from = match kind {
        event::SOFTWARE_INTERRUPT
        | event::PRIVILEGED_SOFTWARE_EXCEPTION
        | event::SOFTWARE_EXCEPTION => layout::PREV_RIP.get(),
        _ => layout::RIP.get::<u64>(),
    };
    // Does not return when it leads to an exception or a VM exit.
    core::core_interrupt(vector, kind, has_error, error);
    pt::event(PtEvent::Asynchronous(from, layout::RIP.get()));
    match kind {
        event::HARDWARE_EXCEPTION | event::PRIVILEGED_SOFTWARE_EXCEPTION if vector == DEBUG => {
            if !is_injected {
                pmu::debug_exception();
            }
        }
        _ if are_recorded() => record(BranchKind::Other, from, layout::RIP.get(), from_user),
        _ => {}
    }
}
