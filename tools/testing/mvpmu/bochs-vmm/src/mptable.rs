// SPDX-License-Identifier: GPL-2.0

//! The MultiProcessor Specification 1.4 table: how Linux finds the local APIC,
//! the IOAPIC and the ISA interrupts on a machine without ACPI.

use crate::ioapic;

/// Where the floating pointer goes: in the BIOS area that is searched for it.
pub const ADDRESS: u64 = 0xf_0000;

const HEADER_LEN: usize = 44;
const POINTER_LEN: usize = 16;
const LOCAL_APIC: u32 = 0xfee0_0000;

const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IOAPIC: u8 = 2;
const ENTRY_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;

const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 2;
const TYPE_NMI: u8 = 1;
const TYPE_EXTINT: u8 = 3;
const ALL_LOCAL_APICS: u8 = 0xff;

/// The number of the IOAPIC: the first one that no local APIC has.
pub fn ioapic_id(cpus: usize) -> u8 {
    cpus as u8
}

/// The table of a machine with so many CPUs, to be put at [`ADDRESS`].
pub fn build(cpus: usize) -> Vec<u8> {
    let ioapic_id = ioapic_id(cpus);
    let mut entries = Vec::new();
    let mut count = 0u16;
    let mut entry = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };

    for cpu in 0..cpus {
        let mut processor = [0u8; 20];
        processor[0] = ENTRY_PROCESSOR;
        processor[1] = cpu as u8;
        processor[2] = 0x14;
        processor[3] = match cpu {
            0 => ENABLED | BOOT_PROCESSOR,
            _ => ENABLED,
        };
        entry(&processor);
    }

    entry(&[ENTRY_BUS, 0, b'I', b'S', b'A', b' ', b' ', b' ']);

    let base = (ioapic::BASE as u32).to_le_bytes();
    entry(&[
        ENTRY_IOAPIC,
        ioapic_id,
        0x11,
        ENABLED,
        base[0],
        base[1],
        base[2],
        base[3],
    ]);

    // IRQ 2 is the cascade; IRQ 0 arrives at pin 2.
    for irq in (0..16).filter(|&irq| irq != 2) {
        let pin = if irq == 0 { 2 } else { irq };
        entry(&[ENTRY_INTERRUPT, 0, 0, 0, 0, irq, ioapic_id, pin]);
    }

    entry(&[
        ENTRY_LOCAL_INTERRUPT,
        TYPE_EXTINT,
        0,
        0,
        0,
        0,
        ALL_LOCAL_APICS,
        0,
    ]);
    entry(&[
        ENTRY_LOCAL_INTERRUPT,
        TYPE_NMI,
        0,
        0,
        0,
        0,
        ALL_LOCAL_APICS,
        1,
    ]);

    let mut header = vec![0u8; HEADER_LEN];
    header[0..4].copy_from_slice(b"PCMP");
    header[4..6].copy_from_slice(&((HEADER_LEN + entries.len()) as u16).to_le_bytes());
    header[6] = 4;
    header[8..16].copy_from_slice(b"MVPMU   ");
    header[16..28].copy_from_slice(b"BOCHS VMM   ");
    header[34..36].copy_from_slice(&count.to_le_bytes());
    header[36..40].copy_from_slice(&LOCAL_APIC.to_le_bytes());
    let mut table = header;
    table.extend_from_slice(&entries);
    table[7] = checksum(&table);

    let mut all = vec![0u8; POINTER_LEN];
    all[0..4].copy_from_slice(b"_MP_");
    all[4..8].copy_from_slice(&(ADDRESS as u32 + POINTER_LEN as u32).to_le_bytes());
    all[8] = 1;
    all[9] = 4;
    all[10] = checksum(&all);
    all.extend_from_slice(&table);
    all
}

/// The byte that makes the sum 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte))
    }

    #[test]
    fn the_sums_are_0_and_the_lengths_match() {
        let all = build(2);
        let (pointer, table) = all.split_at(POINTER_LEN);
        assert_eq!(sum(pointer), 0);
        assert_eq!(sum(table), 0);
        assert_eq!(
            usize::from(u16::from_le_bytes([table[4], table[5]])),
            table.len()
        );
    }

    #[test]
    fn every_cpu_is_there_and_every_isa_interrupt_but_the_cascade_has_a_pin() {
        let all = build(3);
        let mut entries = &all[POINTER_LEN + HEADER_LEN..];
        let (mut pins, mut processors) = (Vec::new(), Vec::new());
        let mut count = 0u16;
        while let Some(&kind) = entries.first() {
            let len = if kind == ENTRY_PROCESSOR { 20 } else { 8 };
            if kind == ENTRY_PROCESSOR {
                processors.push((entries[1], entries[3]));
            }
            if kind == ENTRY_IOAPIC {
                assert_eq!(entries[1], 3);
            }
            if kind == ENTRY_INTERRUPT {
                pins.push((entries[5], entries[7]));
            }
            entries = &entries[len..];
            count += 1;
        }
        assert_eq!(processors, [(0, 3), (1, 1), (2, 1)]);
        assert_eq!(pins.len(), 15);
        assert_eq!(pins[0], (0, 2));
        assert!(pins[1..].iter().all(|(irq, pin)| irq == pin && *irq != 2));
        let stored = [all[POINTER_LEN + 34], all[POINTER_LEN + 35]];
        assert_eq!(u16::from_le_bytes(stored), count);
    }
}
