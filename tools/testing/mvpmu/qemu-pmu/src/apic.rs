// SPDX-License-Identifier: GPL-2.0
//! The local APIC, as far as performance interrupts need it.
//!
//! In xAPIC mode its registers are memory. In x2APIC mode they are MSRs, which a plugin cannot
//! read, so what is written there is followed.

use pmu_model::Reset;

use crate::registers::Bus;

/// `IA32_APIC_BASE`
pub const MSR_APIC_BASE: u32 = 0x1b;
/// The LVTPC in x2APIC mode.
pub const MSR_X2APIC_LVTPC: u32 = 0x834;

/// `IA32_APIC_BASE`: x2APIC mode.
const APIC_BASE_EXTD: u64 = 1 << 10;
/// `IA32_APIC_BASE`: enabled.
const APIC_BASE_EN: u64 = 1 << 11;
/// LVT: masked.
const LVT_MASKED: u32 = 1 << 16;
/// LVT: vector and delivery mode, the same as in an interrupt message.
const LVT_MESSAGE: u32 = 0x7ff;
/// LVT: vector.
const LVT_VECTOR: u32 = 0xff;
/// An interrupt message: delivery mode NMI.
const MESSAGE_NMI: u32 = 4 << 8;

/// The most local APICs there can be: physical IDs that an interrupt message can name.
pub const MAX_APICS: usize = 255;

/// Where the registers and interrupt messages are.
const BASE: u64 = 0xfee0_0000;
/// Register: the ID, in the upper byte.
const ID: u64 = 0x20;
/// Register: the spurious interrupt vector.
const SVR: u64 = 0xf0;
/// Register: the LVT entry of the timer.
const LVT_TIMER: u64 = 0x320;
/// Register: the LVTPC.
const LVTPC: u64 = 0x340;
/// SVR: software enabled.
const SVR_ENABLE: u32 = 1 << 8;

/// What is known of a vCPU's local APIC.
#[derive(Default)]
pub struct LocalApic {
    /// In x2APIC mode: ID and LVTPC.
    x2apic: Option<X2Apic>,
    /// Switched off in `IA32_APIC_BASE`.
    disabled: bool,
}

#[derive(Clone, Copy)]
struct X2Apic {
    id: u8,
    lvtpc: u32,
}

/// Where an interrupt goes.
pub struct Interrupt {
    address: u64,
    data: u32,
}

impl LocalApic {
    /// `IA32_APIC_BASE` is written.
    pub fn set_base(&mut self, value: u64, bus: &mut Bus) {
        self.disabled = value & APIC_BASE_EN == 0;
        if value & APIC_BASE_EXTD == 0 {
            self.x2apic = None;
        } else if self.x2apic.is_none() {
            self.x2apic = Some(X2Apic {
                id: id(bus),
                lvtpc: register(bus, LVTPC),
            });
        }
    }

    /// The LVTPC is written as an MSR; true when the APIC takes it.
    pub fn set_lvtpc(&mut self, value: u64) -> bool {
        match &mut self.x2apic {
            Some(x2apic) => {
                x2apic.lvtpc = value as u32;
                true
            }
            None => false,
        }
    }

    /// RESET brings xAPIC mode back. INIT leaves the mode alone and masks the LVT.
    pub fn reset(&mut self, reset: Reset) {
        match (reset, &mut self.x2apic) {
            (Reset::Reset, _) => *self = LocalApic::default(),
            (Reset::Init, Some(x2apic)) => x2apic.lvtpc = LVT_MASKED,
            (Reset::Init, None) => {}
        }
    }

    /// An NMI.
    pub fn nmi(&self, bus: &mut Bus) -> Interrupt {
        let id = self.x2apic.map_or_else(|| id(bus), |x2apic| x2apic.id);
        Interrupt::new(id, MESSAGE_NMI)
    }

    /// The timer's interrupt, if it is not masked. In x2APIC mode there is none: nobody has followed
    /// what was written.
    pub fn timer_interrupt(&self, bus: &mut Bus) -> Option<Interrupt> {
        let timer = register(bus, LVT_TIMER);
        let masked = self.disabled || self.x2apic.is_some() || timer & LVT_MASKED != 0;
        (!masked).then(|| Interrupt::new(id(bus), timer & LVT_VECTOR))
    }

    /// The interrupt that the LVTPC asks for, if it is not masked. (A local APIC that is disabled
    /// by software masks its LVT.)
    pub fn performance_interrupt(&self, bus: &mut Bus) -> Option<Interrupt> {
        if self.disabled {
            return None;
        }
        let (id, lvtpc) = match self.x2apic {
            Some(x2apic) => (x2apic.id, x2apic.lvtpc),
            None if register(bus, SVR) & SVR_ENABLE == 0 => return None,
            None => (id(bus), register(bus, LVTPC)),
        };
        (lvtpc & LVT_MASKED == 0).then(|| Interrupt::new(id, lvtpc & LVT_MESSAGE))
    }
}

impl Interrupt {
    /// To the CPU whose local APIC has this ID.
    fn new(id: u8, data: u32) -> Interrupt {
        Interrupt {
            address: BASE | u64::from(id) << 12,
            data,
        }
    }

    /// Sends it, as an interrupt message to the CPU itself.
    pub fn send(&self, bus: &mut Bus) {
        bus.set_physical(self.address, u64::from(self.data), 4);
    }
}

/// Whether a store to this virtual address can be one to the LVTPC: it has the same offset in its
/// page.
pub fn may_be_lvtpc(vaddr: u64) -> bool {
    vaddr & 0xfff == LVTPC
}

/// The LVTPC, if it is at this physical address, in xAPIC mode.
pub fn lvtpc_at(bus: &mut Bus, physical: u64) -> Option<u32> {
    (physical == BASE + LVTPC).then(|| register(bus, LVTPC))
}

/// The ID in xAPIC mode.
fn id(bus: &mut Bus) -> u8 {
    register(bus, ID).to_be_bytes()[0]
}

/// A register in xAPIC mode.
fn register(bus: &mut Bus, offset: u64) -> u32 {
    bus.physical(BASE + offset, 4) as u32
}
