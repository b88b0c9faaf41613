// SPDX-License-Identifier: GPL-2.0

//! Intel PT, whose rules the model has: what happens, and memory.
//!
//! Branches are those that the core tells of. Interrupts and exceptions are found where the core delivers
//! them, with the instructions that ask for one.

use pmu_model::intel::ExecMode;
use pmu_model::intel::Intel;
use pmu_model::intel::Moment;
use pmu_model::intel::PtEvent;
use pmu_model::intel::PtOutcome;
use pmu_model::intel::Unmapped;
use pmu_model::oracle::Oracle;

use crate::capability::SECONDARY_CONCEAL;
use crate::capability::SECONDARY_PT_GUEST_PHYSICAL;
use crate::core;
use crate::cpuid;
use crate::ept::Physical;
use crate::flow;
use crate::layout;
use crate::mode;
use crate::oracle;
use crate::per_cpu::CpuCell;
use crate::per_cpu::PerCpu;
use crate::pmu;
use crate::vmx;
use crate::watch;

/// The guest-physical address that the hypervisor has to map.
static UNMAPPED: CpuCell<Option<Unmapped>> = CpuCell::new(None);

/// Between VM entry and exit.
static INSIDE: CpuCell<bool> = CpuCell::new(false);

/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 2] = [&UNMAPPED, &INSIDE];

/// Adopts whether `pmu` traces.
pub fn follow(pmu: &Intel) {
    watch::set(watch::by::PT, pmu.follows_branches());
    flow::follow(pmu.traces());
}

/// The core's modes.
mod cpu_mode {
    pub const REAL: u32 = 0;
    pub const VIRTUAL_8086: u32 = 1;
    pub const LONG_64: u32 = 4;
}

/// The CPU as it is, in a guest or not.
fn moment(in_guest: bool) -> Moment {
    let concealed = in_guest && vmx::secondary_controls() & SECONDARY_CONCEAL != 0;
    let in_vmx = layout::IN_VMX.get::<u8>() != 0;
    Moment {
        user: layout::CPL.get::<u8>() != 0,
        cr3: layout::CR3.get(),
        mode: match layout::CPU_MODE.get::<u32>() {
            cpu_mode::REAL | cpu_mode::VIRTUAL_8086 => ExecMode::Bits16,
            cpu_mode::LONG_64 => ExecMode::Bits64,
            // Segments of 16 bits are not told apart.
            _ => ExecMode::Bits32,
        },
        non_root: in_guest && !concealed,
        vmcs: (in_vmx && !concealed).then(|| layout::VMCS_POINTER.get()),
        tsc: core::virtual_tsc(),
        cycles: layout::ICOUNT.get(),
        ratio: (cpuid::tsc_mhz() / 100) as u8,
    }
}

/// Memory as PT sees it, in a guest or not.
fn memory(in_guest: bool) -> Physical {
    let translated = in_guest && vmx::secondary_controls() & SECONDARY_PT_GUEST_PHYSICAL != 0;
    match translated {
        true => Physical::of_guest(core::vmread64(vmx::field::EPT_POINTER)),
        false => Physical::of_host(),
    }
}

/// VM entry succeeds, to `rip`; concealed or not.
pub fn entered(rip: u64, concealed: bool) {
    INSIDE.set(true);
    event_in(PtEvent::VmEntry(rip, concealed), true);
}

/// VM exit from `rip`; concealed or not. Also when VM entry has failed.
pub fn exited(rip: u64, concealed: bool) {
    let to = layout::RIP.get();
    let exit = match INSIDE.get() {
        true => PtEvent::VmExit(rip, to, concealed),
        false => PtEvent::Far(to),
    };
    INSIDE.set(false);
    event_in(exit, false);
}

fn is_in_guest() -> bool {
    layout::IN_VMX_GUEST.get::<u8>() != 0
}

/// This happens.
pub fn event(event: PtEvent) {
    event_in(event, is_in_guest());
}

/// The same, in a guest or not, whatever the core says by now.
fn event_in(event: PtEvent, in_guest: bool) {
    if watch::get() & watch::by::PT != 0 {
        pmu::is_at(layout::PREV_RIP.get());
        let (now, mut memory) = (moment(in_guest), memory(in_guest));
        let outcome = pmu::with(|pmu| pmu.pt_event(event, &now, &mut memory));
        came(outcome);
    }
}

/// IA32_RTIT_CTL may have been written, in a guest or not: by the instruction at `ip`, before the one at `next`.
pub fn control_written(ip: u64, next: u64, in_guest: bool) {
    if pmu::with(|pmu| pmu.map().has_to_follow_pt()) == Some(true) {
        let (now, mut memory) = (moment(in_guest), memory(in_guest));
        let outcome = pmu::with(|pmu| pmu.pt_follow((ip, next), &now, &mut memory));
        came(outcome);
    }
}

/// The same of WRMSR, or of a list of registers that is walked at VM entry or exit.
pub fn register_written() {
    let next: u64 = layout::RIP.get();
    let ip = match mode::walks_list() {
        true => next,
        false => layout::PREV_RIP.get(),
    };
    control_written(ip, next, is_in_guest());
}

/// What has come of something.
fn came(outcome: Option<PtOutcome>) {
    let outcome = outcome.unwrap_or_default();
    pmu::with(|pmu| follow(pmu.map()));
    UNMAPPED.set(outcome.unmapped);
    if outcome.unmapped.is_some() {
        layout::ASYNC_EVENT.set(1u32);
    }
    if outcome.pmi {
        pmu::output_pmi();
    }
    if pmu::with(|pmu| pmu.oracle().is_some_and(Oracle::has_finding)) == Some(true) {
        oracle::follow();
    }
}

/// Between two instructions: leaves the guest whose output goes to what is not mapped. Does not return then.
pub fn before_events() {
    const EPT_VIOLATION: u32 = 48;
    const WRITE: u64 = 1 << 1;
    /// Not by an instruction.
    const ASYNCHRONOUS: u64 = 1 << 16;
    let Some(Unmapped(address)) = UNMAPPED.get() else {
        return;
    };
    UNMAPPED.set(None);
    if is_in_guest() {
        core::vmwrite64(vmx::field::GUEST_PHYSICAL_ADDRESS, address);
        core::vm_exit(EPT_VIOLATION, WRITE | ASYNCHRONOUS);
    }
}

/// Replaces `BX_CPU_C::set_VMCSPTR(pointer)`, which VMPTRLD calls when it succeeds, and VMCLEAR and VMXON
/// with all ones.
#[export_name = "_ZN8BX_CPU_C11set_VMCSPTREm"]
extern "C-unwind" fn set_vmcs(pointer: u64) {
    core::core_set_vmcs(pointer);
    if pointer != u64::MAX {
        event(PtEvent::Vmptrld(pointer));
    }
}

#[no_mangle]
extern "C-unwind" fn bx_instr_tlb_cntrl(_cpu: u32, what: u32, _value: u64) {
    const MOV_CR3: u32 = 11;
    if what == MOV_CR3 {
        event(PtEvent::Cr3(layout::RIP.get()));
    }
}
