// SPDX-License-Identifier: GPL-2.0

//! What the core does wrong, and how this machine works round it. (For QEMU see
//! qemu-pmu/src/quirks.rs. What the core does not have at all, like a PMU, is no
//! bug of it, and elsewhere.)
//!
//! Each has a name; `--without-quirk NAME` leaves the work-around out, and a
//! test in tests/vmx.rs runs that way: it fails when the bug is gone.

use crate::core;
use crate::layout;
use crate::single::SingleThread;

/// A bug of the core that is worked round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// VM entry wants the posted-interrupt descriptor aligned to 4096 bytes; the
    /// SDM ("Checks on VMX Controls") asks for 64. KVM's is aligned to 64.
    ///
    /// Work-around: the mask in the code of the check is changed.
    PidAlignment,
    /// The CPU has LA57, but VM entry and VM exit cannot switch between four and
    /// five levels of page tables: the core gives up ("VMENTER CR4 is broken").
    ///
    /// Work-around: the feature is excluded.
    La57,
    /// A virtual interrupt that waits does not wake a guest that is halted: with
    /// virtual-interrupt delivery, guests hang now and then.
    ///
    /// Work-around: the controls that KVM needs for APICv are hidden.
    Apicv,
    /// VM entry computes which events are masked before it says "in guest
    /// mode", so that it applies the rules of host mode: with RFLAGS.IF clear in
    /// the guest, an external interrupt that should cause a VM exit waits.
    ///
    /// Work-around: compute it again before events are injected.
    EventMaskAtEntry,
    /// When an external interrupt arrives while a virtual one is pending, the
    /// virtual one is delivered first, even if the guest masks it.
    ///
    /// Work-around: a masked virtual interrupt is no longer pending then.
    VirtualBeforeExternal,
    /// TPAUSE calls the hook that tells of HLT, which with interrupts off would be
    /// a halt for good, while TPAUSE ends by itself.
    ///
    /// Work-around: the length of the instruction tells them apart.
    TpauseIsHlt,
}

impl Quirk {
    /// All of them.
    pub const ALL: [Quirk; 6] = [
        Quirk::PidAlignment,
        Quirk::La57,
        Quirk::Apicv,
        Quirk::EventMaskAtEntry,
        Quirk::VirtualBeforeExternal,
        Quirk::TpauseIsHlt,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Quirk::PidAlignment => "pid-alignment",
            Quirk::La57 => "la57",
            Quirk::Apicv => "apicv",
            Quirk::EventMaskAtEntry => "event-mask-at-entry",
            Quirk::VirtualBeforeExternal => "virtual-before-external",
            Quirk::TpauseIsHlt => "tpause-is-hlt",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Result<Quirk, String> {
        Quirk::ALL
            .into_iter()
            .find(|quirk| quirk.name() == name)
            .ok_or_else(|| format!("there is no work-around {name}"))
    }
}

/// The work-arounds that were left out.
static WITHOUT: SingleThread<Vec<Quirk>> = SingleThread::new(Vec::new());

fn active(quirk: Quirk) -> bool {
    WITHOUT.with(|without| !without.contains(&quirk))
}

/// A change of the core's code.
struct Patch {
    function: &'static str,
    offset: usize,
    expected: [u8; 8],
    replacement: [u8; 8],
}

/// The mask of the alignment check, an immediate operand.
const PID_ALIGNMENT: Patch = Patch {
    function: "_ZN8BX_CPU_C26VMenterLoadCheckVmControlsEv",
    offset: 0x81c,
    expected: [0xff, 0x0f, 0, 0, 0, 0xff, 0xff, 0xff],
    replacement: [0x3f, 0, 0, 0, 0, 0xff, 0xff, 0xff],
};

/// Leaves these out.
pub fn leave_out(without: &[Quirk]) {
    WITHOUT.with(|list| list.extend_from_slice(without));
}

/// Applies to the selected copy of the core what has to be done before the CPU is made.
pub fn apply() -> Result<(), String> {
    if active(Quirk::PidAlignment) {
        patch(&PID_ALIGNMENT)?;
    }
    Ok(())
}

fn patch(patch: &Patch) -> Result<(), String> {
    let function = core::address_of(patch.function)?;
    // SAFETY: The function of the pinned file is longer than the offset.
    let target = unsafe { function.add(patch.offset) }.cast::<[u8; 8]>();
    // SAFETY: Code of the core, readable; a byte array has no alignment.
    let found = unsafe { target.read() };
    if found != patch.expected {
        return Err(format!(
            "the core's code differs: {}+{:#x} is {found:02x?}, expected {:02x?}",
            patch.function, patch.offset, patch.expected
        ));
    }
    const PAGE: usize = 4096;
    let start = target as usize & !(PAGE - 1);
    let len = target as usize + patch.expected.len() - start;
    let protect = |protection| {
        // SAFETY: Whole pages of the core's code, which stay readable and executable; nothing runs
        // in them meanwhile, as there is one thread.
        match unsafe { libc::mprotect(start as *mut _, len, libc::PROT_READ | protection) } {
            0 => Ok(()),
            _ => Err(format!(
                "cannot change the core's code: {}",
                std::io::Error::last_os_error()
            )),
        }
    };
    protect(libc::PROT_WRITE | libc::PROT_EXEC)?;
    // SAFETY: Writable now.
    unsafe { target.write(patch.replacement) };
    protect(libc::PROT_EXEC)
}

/// Whether LA57 is excluded.
pub fn excludes_la57() -> bool {
    active(Quirk::La57)
}

/// The controls that a VMX capability register must not offer.
pub fn hidden_controls(index: u32) -> u32 {
    const PIN_CONTROLS: [u32; 2] = [0x481, 0x48d];
    const SECONDARY_CONTROLS: u32 = 0x48b;
    const POSTED_INTERRUPTS: u32 = 1 << 7;
    const APIC_REGISTERS: u32 = 1 << 8;
    const VIRTUAL_INTERRUPTS: u32 = 1 << 9;
    if !active(Quirk::Apicv) {
        return 0;
    }
    match index {
        SECONDARY_CONTROLS => APIC_REGISTERS | VIRTUAL_INTERRUPTS,
        _ if PIN_CONTROLS.contains(&index) => POSTED_INTERRUPTS,
        _ => 0,
    }
}

/// Whether an instruction of this length that tells of a halt is HLT.
pub fn is_hlt(len: u64) -> bool {
    const HLT_LEN: u64 = 1;
    len == HLT_LEN || !active(Quirk::TpauseIsHlt)
}

/// Called before VM entry injects events.
pub fn before_inject_events() {
    if active(Quirk::EventMaskAtEntry) {
        core::handle_interrupt_mask_change();
    }
}

/// Called before an external interrupt is delivered.
pub fn before_external_interrupt() {
    /// A virtual interrupt, in the core's sets of events.
    const VIRTUAL_INTERRUPT: u32 = 1 << 9;
    if layout::IN_VMX_GUEST.get::<u8>() == 0 || !active(Quirk::VirtualBeforeExternal) {
        return;
    }
    let pending: u32 = layout::PENDING_EVENTS.get();
    let masked: u32 = layout::MASKED_EVENTS.get();
    if pending & masked & VIRTUAL_INTERRUPT != 0 {
        layout::PENDING_EVENTS.set(pending & !VIRTUAL_INTERRUPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        for quirk in Quirk::ALL {
            assert_eq!(Quirk::named(quirk.name()), Ok(quirk));
        }
    }
}
