// SPDX-License-Identifier: GPL-2.0
//! Packets, byte for byte.
//!
//! | rule | source |
//! |---|---|
//! | the forms of all of them | SDM volume 3, "Packet Definitions"; libipt, pt_packet(5) and its encoder |
//! | an IP has 2, 4 or 6 bytes: those below the ones that are as in the last IP; of 6, the sign is extended | table "IP Packet Definition", "IP Compression": that it is compressed is up to the CPU |

/// The longest packet, PSB.
const LONGEST: usize = 16;

/// Branches that a short TNT packet has room for.
pub const TNT_BRANCHES: u32 = 6;

/// How instructions are executed: CS.L and CS.D.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecMode {
    /// 16-bit.
    Bits16 = 0,
    /// 64-bit.
    Bits64 = 1,
    /// 32-bit.
    Bits32 = 2,
}

/// The packets that have an IP, by their low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpKind {
    /// Tracing ends, or pauses.
    TipPgd = 0x01,
    /// Where something goes on.
    Tip = 0x0d,
    /// Tracing begins.
    TipPge = 0x11,
    /// Where something comes in between.
    Fup = 0x1d,
}

/// A packet.
#[derive(Clone, Copy)]
pub struct Packet {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Packet {
    fn of(header: &[u8], payload: &[u8]) -> Packet {
        let mut packet = Packet {
            bytes: [0; LONGEST],
            len: header.len() + payload.len(),
        };
        packet.bytes[..header.len()].copy_from_slice(header);
        packet.bytes[header.len()..packet.len].copy_from_slice(payload);
        packet
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn psb() -> Packet {
        Packet::of(&[0x02, 0x82].repeat(8), &[])
    }

    pub fn psbend() -> Packet {
        Packet::of(&[0x02, 0x23], &[])
    }

    pub fn ovf() -> Packet {
        Packet::of(&[0x02, 0xf3], &[])
    }

    pub fn trace_stop() -> Packet {
        Packet::of(&[0x02, 0x83], &[])
    }

    /// The low 7 bytes of the TSC.
    pub fn tsc(tsc: u64) -> Packet {
        Packet::of(&[0x19], &tsc.to_le_bytes()[..7])
    }

    pub fn cbr(ratio: u8) -> Packet {
        Packet::of(&[0x02, 0x03], &[ratio, 0])
    }

    pub fn mode_exec(mode: ExecMode) -> Packet {
        Packet::of(&[0x99], &[mode as u8])
    }

    /// Bits 51:5 of CR3, above the one that says "VMX non-root operation".
    pub fn pip(cr3: u64, non_root: bool) -> Packet {
        const ADDRESS: u64 = (1 << 52) - 1;
        let payload = (cr3 & ADDRESS) >> 5 << 1 | u64::from(non_root);
        Packet::of(&[0x02, 0x43], &payload.to_le_bytes()[..6])
    }

    /// Bits 51:12 of the pointer.
    pub fn vmcs(pointer: u64) -> Packet {
        Packet::of(&[0x02, 0xc8], &(pointer >> 12).to_le_bytes()[..5])
    }

    /// So many branches, the last one in bit 0, behind a 1.
    pub fn tnt(branches: u8, count: u32) -> Packet {
        Packet::of(&[(1 << count | branches) << 1], &[])
    }

    /// Cycles since the last one: 5 bits, then 7 a byte.
    pub fn cyc(cycles: u64) -> Packet {
        const KIND: u8 = 0b11;
        let mut rest = cycles >> 5;
        let mut packet = Packet::of(&[KIND, 0], &[]);
        packet.bytes[0] |= (cycles as u8 & 0x1f) << 3 | u8::from(rest > 0) << 2;
        packet.len = 1;
        while rest > 0 {
            packet.bytes[packet.len] = (rest as u8 & 0x7f) << 1 | u8::from(rest >> 7 > 0);
            packet.len += 1;
            rest >>= 7;
        }
        packet
    }

    /// With an IP, after `last` one.
    pub fn ip(kind: IpKind, ip: u64, last: Option<u64>) -> Packet {
        let same_from = |bit: u32| last.is_some_and(|last| last >> bit == ip >> bit);
        let (form, len) = match () {
            () if same_from(16) => (1, 2),
            () if same_from(32) => (2, 4),
            () => (3, 6),
        };
        Packet::of(&[kind as u8 | form << 5], &ip.to_le_bytes()[..len])
    }

    /// With none: where that is must not be seen, or is nowhere.
    pub fn no_ip(kind: IpKind) -> Packet {
        Packet::of(&[kind as u8], &[])
    }
}
