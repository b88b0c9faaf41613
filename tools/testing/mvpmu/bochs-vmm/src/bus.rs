// SPDX-License-Identifier: GPL-2.0

//! Interrupt messages from the IOAPIC and from local APICs to the local APICs of all CPUs (SDM volume
//! 3, "Issuing Interprocessor Interrupts"). What comes is noticed by a CPU when it is its turn.

use crate::core;
use crate::cpus;
use crate::layout;

/// Delivery modes that are told apart.
const LOWEST_PRIORITY: u8 = 1;
const START_UP: u8 = 6;

/// The physical destination that is all of them, with 8 bits and with 32.
const ALL: u32 = 0xff;

/// A message.
#[derive(Clone, Copy)]
struct Message {
    vector: u8,
    mode: u8,
    trigger: bool,
}

/// Delivers `message` to the CPUs for whose local APICs `is_meant` is true; whether there is one.
fn deliver(message: Message, is_meant: impl Fn() -> bool) -> bool {
    let mut meant: Vec<usize> = (0..cpus::count())
        .filter(|cpu| core::on(*cpu, &is_meant))
        .collect();
    if message.mode == LOWEST_PRIORITY {
        // The first of those with the lowest one.
        let priority = |cpu: &usize| core::on(*cpu, || core::lapic_priority(layout::lapic()));
        meant = meant.into_iter().min_by_key(priority).into_iter().collect();
    }
    for cpu in &meant {
        core::on(*cpu, || accept(message));
    }
    !meant.is_empty()
}

/// The selected CPU gets it.
fn accept(message: Message) {
    let Message {
        vector,
        mode,
        trigger,
    } = message;
    // A guest that waits for it would exit, and that can be done only on its turn. No VM entry that KVM
    // makes has this activity state.
    let is_in_guest = layout::IN_VMX_GUEST.get::<u8>() != 0;
    if mode == START_UP && is_in_guest {
        return;
    }
    core::lapic_deliver(layout::lapic(), vector, mode, trigger.into());
}

/// Replaces `apic_bus_deliver_interrupt(..)`: the core's knows one CPU.
#[export_name = "_Z26apic_bus_deliver_interrupthjhbbb"]
pub extern "C-unwind" fn deliver_interrupt(
    vector: u8,
    destination: u32,
    mode: u8,
    logical: bool,
    _level: bool,
    trigger: bool,
) -> bool {
    let message = Message {
        vector,
        mode,
        trigger,
    };
    if logical {
        let matches = || core::lapic_matches(layout::lapic(), destination);
        return destination != 0 && deliver(message, matches);
    }
    if mode == LOWEST_PRIORITY {
        return false;
    }
    let is_for_all = destination & ALL == ALL;
    deliver(message, || is_for_all || layout::lapic_id() == destination)
}

/// Replaces `apic_bus_broadcast_interrupt(vector, mode, trigger, except)`: to all, or all but one.
#[export_name = "_Z28apic_bus_broadcast_interrupthhbi"]
extern "C-unwind" fn broadcast(vector: u8, mode: u8, trigger: bool, except: u32) -> bool {
    let message = Message {
        vector,
        mode,
        trigger,
    };
    deliver(message, || layout::lapic_id() != except);
    true
}
