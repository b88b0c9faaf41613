// SPDX-License-Identifier: GPL-2.0

//! Fields of the core's objects.
//!
//! The core exports functions, not field offsets; these come from the pinned
//! file's code. [`verify`] reads back through them what was set with exported
//! functions, so that a wrong one is one line at start and not a strange guest.

use std::ffi::c_void;

use crate::core;

/// A field of the CPU object.
#[derive(Clone, Copy)]
pub struct CpuField(usize);

/// A field of the object that holds the time.
#[derive(Clone, Copy)]
pub struct TimeField(usize);

/// General purpose registers, 8 bytes each.
pub const GPR: CpuField = CpuField(0x58);
/// RIP; while an instruction executes, of the next one.
pub const RIP: CpuField = CpuField(0xd8);
/// EFLAGS, of which the arithmetic flags are elsewhere (32 bits).
const EFLAGS: CpuField = CpuField(0xf8);
/// RIP of the instruction that executes.
pub const PREV_RIP: CpuField = CpuField(0x110);
/// Instructions executed.
pub const ICOUNT: CpuField = CpuField(0x128);
/// Current privilege level (byte).
pub const CPL: CpuField = CpuField(0x16d);
/// CR3.
pub const CR3: CpuField = CpuField(0x2a0);
/// CR4 (32 bits).
pub const CR4: CpuField = CpuField(0x2a8);
/// Pointer to the local APIC.
pub const LAPIC: CpuField = CpuField(0xc58);
/// IA32_APIC_BASE.
pub const APIC_BASE: CpuField = CpuField(0xc68);
/// Whether the CPU is in VMX operation (byte).
pub const IN_VMX: CpuField = CpuField(0x8da8);
/// Whether the CPU is in VMX non-root operation (byte).
pub const IN_VMX_GUEST: CpuField = CpuField(0x8da9);
/// Address of the current VMCS.
pub const VMCS_POINTER: CpuField = CpuField(0x8db0);
/// Primary processor-based VM-execution controls (32 bits).
pub const PROC_CONTROLS: CpuField = CpuField(0x8dcc);
/// Secondary processor-based VM-execution controls that there are (32 bits).
pub const SECONDARY_CONTROLS: CpuField = CpuField(0x9038);
/// VM-exit controls that there are (32 bits).
pub const EXIT_CONTROLS: CpuField = CpuField(0x9048);
/// VM-entry controls that there are (32 bits).
pub const ENTRY_CONTROLS: CpuField = CpuField(0x9050);
/// Activity state, 0 for active (32 bits).
pub const ACTIVITY: CpuField = CpuField(0x9074);
/// Events that wait (32 bits).
pub const PENDING_EVENTS: CpuField = CpuField(0x9078);
/// Events that are masked (32 bits).
pub const MASKED_EVENTS: CpuField = CpuField(0x907c);
/// Whether something is to be handled between two instructions (32 bits).
pub const ASYNC_EVENT: CpuField = CpuField(0x9080);
/// The mode of execution (32 bits).
pub const CPU_MODE: CpuField = CpuField(0x9088);

/// Ticks until the next timer event (32 bits).
pub const COUNTDOWN: TimeField = TimeField(0x1638);
/// What the countdown started from (32 bits).
pub const PERIOD: TimeField = TimeField(0x163c);
/// Ticks when the countdown started.
pub const TOTAL: TimeField = TimeField(0x1640);

/// Whether `cpu_loop` is to return (byte).
pub const KILL: TimeField = TimeField(0x1670);

/// A value that a field can hold.
pub trait Value: Copy {}
impl Value for u8 {}
impl Value for u32 {}
impl Value for u64 {}
impl Value for *mut c_void {}

impl CpuField {
    /// Element `n` of a field of 8-byte elements.
    pub const fn element(self, n: usize) -> CpuField {
        CpuField(self.0 + 8 * n)
    }

    /// Reads it.
    #[inline(always)]
    pub fn get<T: Value>(self) -> T {
        // SAFETY: Nothing runs before the core is loaded; the offset lies within
        // the CPU object of the pinned file, is aligned for T, and only this
        // thread uses the object.
        unsafe { core::cpu().add(self.0).cast::<T>().read() }
    }

    /// Writes it.
    #[inline(always)]
    pub fn set<T: Value>(self, value: T) {
        // SAFETY: As for `get`; T is plain data.
        unsafe { core::cpu().add(self.0).cast::<T>().write(value) }
    }
}

impl TimeField {
    /// Reads it.
    #[inline(always)]
    pub fn get<T: Value>(self) -> T {
        // SAFETY: As for `CpuField`, with the time object.
        unsafe { core::pc_system().add(self.0).cast::<T>().read() }
    }

    /// Writes it.
    #[inline(always)]
    pub fn set<T: Value>(self, value: T) {
        // SAFETY: As for `CpuField`, with the time object.
        unsafe { core::pc_system().add(self.0).cast::<T>().write(value) }
    }
}

/// The local APIC of the CPU.
pub fn lapic() -> *mut c_void {
    LAPIC.get()
}

/// In the local APIC: its number (32 bits).
const LAPIC_ID: usize = 0x44;

/// The number of the local APIC.
pub fn lapic_id() -> u32 {
    // SAFETY: The object that the CPU has, whose type has this field in the pinned file.
    unsafe { lapic().cast::<u8>().add(LAPIC_ID).cast::<u32>().read() }
}

/// Sets it.
pub fn set_lapic_id(id: u32) {
    // SAFETY: As above.
    unsafe { lapic().cast::<u8>().add(LAPIC_ID).cast::<u32>().write(id) }
}

/// Whether RFLAGS.IF is set.
pub fn takes_interrupts() -> bool {
    const IF: u32 = 1 << 9;
    EFLAGS.get::<u32>() & IF != 0
}

/// The registers by the numbers of the instruction set.
pub mod gpr {
    /// RAX.
    pub const RAX: usize = 0;
    /// RCX.
    pub const RCX: usize = 1;
    /// RDX.
    pub const RDX: usize = 2;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSP.
    pub const RSP: usize = 4;
    /// RSI.
    pub const RSI: usize = 6;
}

const PROBE: u64 = 0x0123_4567_89ab_cde0;

/// Compares what the fields hold with what was set; call after `cpu_new`.
pub fn verify() -> Result<(), String> {
    for register in 0..16 {
        core::cpu_set_reg64(0, register, PROBE + u64::from(register));
        let found: u64 = GPR.element(register as usize).get();
        expect(
            "general purpose register",
            found,
            PROBE + u64::from(register),
        )?;
        core::cpu_set_reg64(0, register, 0);
    }
    let rip = core::cpu_get_pc(0);
    core::cpu_set_pc(0, PROBE);
    expect("RIP", RIP.get(), PROBE)?;
    core::cpu_set_pc(0, rip);
    core::cpu_set_cr4(0, 0x20);
    expect("CR4", CR4.get::<u32>(), 0x20u32)?;
    core::cpu_set_cr3(0, 0x5000);
    expect("CR3", CR3.get(), 0x5000u64)?;
    core::cpu_set_eflags(0, 0x202);
    expect("RFLAGS.IF", u8::from(takes_interrupts()), 1)?;
    core::cpu_set_eflags(0, 2);
    expect("RFLAGS.IF", u8::from(takes_interrupts()), 0)?;
    core::cpu_set_killbit(0);
    expect("kill bit", KILL.get::<u8>(), 1u8)?;
    core::cpu_clear_killbit(0);
    let base = APIC_BASE.get::<u64>() & !0xfff;
    expect("IA32_APIC_BASE", base, 0xfee0_0000u64)?;
    set_lapic_id(5);
    let id = core::lapic_read(lapic(), 0xfee0_0020);
    expect("local APIC ID", id, 5 << 24)?;
    set_lapic_id(0);
    // Version register of an integrated APIC, from the APIC that LAPIC names.
    let version = core::lapic_read(lapic(), 0xfee0_0030) & 0xf0;
    expect("local APIC", version, 0x10)?;
    expect("CPL", CPL.get::<u8>(), 0u8)?;
    expect("VMX operation", IN_VMX.get::<u8>(), 0u8)?;
    expect("VMX guest mode", IN_VMX_GUEST.get::<u8>(), 0u8)?;
    Ok(())
}

fn expect<T: PartialEq + std::fmt::LowerHex>(what: &str, found: T, set: T) -> Result<(), String> {
    if found == set {
        Ok(())
    } else {
        Err(format!(
            "the core lays out its CPU differently: {what} reads {found:#x}, was set to {set:#x}"
        ))
    }
}
