// SPDX-License-Identifier: GPL-2.0

//! An IOAPIC with 24 pins (82093AA), as far as edge-triggered ISA interrupts
//! need it.

use crate::bus;
use crate::single::SingleThread;

/// Where it is.
pub const BASE: u64 = 0xfec0_0000;

const PINS: usize = 24;
const VERSION: u32 = 0x11;

const REGISTER_SELECT: u8 = 0x00;
const WINDOW: u8 = 0x10;

const ID: u8 = 0x00;
const VERSION_REGISTER: u8 = 0x01;
const REDIRECTION: u8 = 0x10;

const ENTRY_MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR.
const ENTRY_READ_ONLY: u64 = 1 << 12 | 1 << 14;

/// What a pin sends over the APIC bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    vector: u8,
    mode: u8,
    logical: bool,
    level: bool,
    destination: u32,
}

struct IoApic {
    id: u8,
    select: u8,
    entries: [u64; PINS],
}

static IOAPIC: SingleThread<IoApic> = SingleThread::new(IoApic::new());

impl IoApic {
    const fn new() -> Self {
        Self {
            id: 1,
            select: 0,
            entries: [ENTRY_MASKED; PINS],
        }
    }

    /// The entry and the half of it that the selected register is.
    fn selected(&self) -> Option<(usize, u32)> {
        let offset = self.select.checked_sub(REDIRECTION)?;
        let pin = usize::from(offset / 2);
        (pin < PINS).then_some((pin, u32::from(offset % 2) * 32))
    }

    fn read(&self, register: u8) -> u32 {
        match (register, self.select) {
            (REGISTER_SELECT, _) => u32::from(self.select),
            (WINDOW, ID) => u32::from(self.id) << 24,
            (WINDOW, VERSION_REGISTER) => VERSION | (PINS as u32 - 1) << 16,
            (WINDOW, _) => match self.selected() {
                Some((pin, shift)) => (self.entries[pin] >> shift) as u32,
                None => 0,
            },
            _ => 0,
        }
    }

    fn write(&mut self, register: u8, value: u32) {
        match register {
            REGISTER_SELECT => self.select = value as u8,
            WINDOW => {
                if let Some((pin, shift)) = self.selected() {
                    let half = u64::from(u32::MAX) << shift;
                    let kept = self.entries[pin] & (!half | ENTRY_READ_ONLY);
                    self.entries[pin] = kept | (u64::from(value) << shift) & !ENTRY_READ_ONLY;
                }
            }
            _ => {}
        }
    }

    fn message(&self, pin: usize) -> Option<Message> {
        let entry = self.entries[pin];
        (entry & ENTRY_MASKED == 0).then_some(Message {
            vector: entry as u8,
            mode: (entry >> 8 & 7) as u8,
            logical: entry >> 11 & 1 != 0,
            level: entry >> 15 & 1 != 0,
            destination: (entry >> 56) as u32,
        })
    }
}

/// Sets its number.
pub fn set_id(id: u8) {
    IOAPIC.with(|ioapic| ioapic.id = id);
}

/// The register at this physical address, if it is one of ours.
pub fn register_of(address: u64) -> Option<u8> {
    (address & !0xff == BASE).then_some(address as u8)
}

/// Reads a register.
pub fn read(register: u8) -> u32 {
    IOAPIC.with(|ioapic| ioapic.read(register))
}

/// Writes a register.
pub fn write(register: u8, value: u32) {
    IOAPIC.with(|ioapic| ioapic.write(register, value));
}

/// An edge arrives at `pin`.
pub fn pulse(pin: usize) {
    if let Some(message) = IOAPIC.with(|ioapic| ioapic.message(pin)) {
        bus::deliver_interrupt(
            message.vector,
            message.destination,
            message.mode,
            message.logical,
            true,
            message.level,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_entry(ioapic: &mut IoApic, pin: u8, entry: u64) {
        ioapic.write(REGISTER_SELECT, u32::from(REDIRECTION + 2 * pin));
        ioapic.write(WINDOW, entry as u32);
        ioapic.write(REGISTER_SELECT, u32::from(REDIRECTION + 2 * pin + 1));
        ioapic.write(WINDOW, (entry >> 32) as u32);
    }

    #[test]
    fn version_says_24_pins() {
        let mut ioapic = IoApic::new();
        ioapic.write(REGISTER_SELECT, u32::from(VERSION_REGISTER));
        assert_eq!(ioapic.read(WINDOW), 0x0017_0011);
    }

    #[test]
    fn a_masked_pin_sends_nothing() {
        let mut ioapic = IoApic::new();
        assert_eq!(ioapic.message(4), None);
        write_entry(&mut ioapic, 4, ENTRY_MASKED | 0x34);
        assert_eq!(ioapic.message(4), None);
    }

    #[test]
    fn an_entry_reads_back_and_becomes_the_message() {
        let mut ioapic = IoApic::new();
        write_entry(&mut ioapic, 23, 0x0100_0000_0000_0831);
        ioapic.write(REGISTER_SELECT, u32::from(REDIRECTION + 46));
        assert_eq!(ioapic.read(WINDOW), 0x831);
        ioapic.write(REGISTER_SELECT, u32::from(REDIRECTION + 47));
        assert_eq!(ioapic.read(WINDOW), 0x0100_0000);
        let message = ioapic.message(23).unwrap();
        assert_eq!(
            message,
            Message {
                vector: 0x31,
                mode: 0,
                logical: true,
                level: false,
                destination: 1
            }
        );
    }

    #[test]
    fn read_only_bits_stay_0() {
        let mut ioapic = IoApic::new();
        write_entry(&mut ioapic, 1, ENTRY_READ_ONLY | 0x40);
        assert_eq!(ioapic.entries[1], 0x40);
    }

    #[test]
    fn registers_beyond_the_last_pin_read_0() {
        let mut ioapic = IoApic::new();
        ioapic.write(REGISTER_SELECT, u32::from(REDIRECTION) + 48);
        ioapic.write(WINDOW, 0xffff_ffff);
        assert_eq!(ioapic.read(WINDOW), 0);
    }
}
