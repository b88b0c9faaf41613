// SPDX-License-Identifier: GPL-2.0
//! As much of x86 instruction decoding as counting needs.

use pmu_model::oracle::stack_load;
use pmu_model::oracle::StackLoad;

/// What an instruction means for the PMU.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it retires.
    Plain,
    /// A branch.
    Branch,
    /// INT n, INT3, INTO, INT1: a branch that arrives as an exception, but retires.
    SoftwareInterrupt,
    /// A string instruction with a repeat prefix.
    RepString,
    /// RDMSR
    Rdmsr,
    /// WRMSR
    Wrmsr,
    /// RDPMC
    Rdpmc,
    /// CPUID
    Cpuid,
    /// VMRUN
    Vmrun,
}

impl Kind {
    /// Whether it counts as a retired branch.
    pub fn is_branch(self) -> bool {
        matches!(self, Kind::Branch | Kind::SoftwareInterrupt)
    }
}

/// What the oracle wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// It goes, or may go, to user mode.
    ToUser(ToUser),
    /// MOV RSP from memory.
    StackLoad(StackLoad),
}

/// How an instruction goes to user mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToUser {
    /// SYSRET, SYSEXIT
    Always,
    /// IRET, with this operand size in bytes.
    Iret {
        /// 4 or 8.
        operand: u64,
    },
}

/// What the oracle wants to see of the instruction `bytes`, in 64-bit mode.
pub fn watched(bytes: &[u8]) -> Option<Watched> {
    let iret = |operand| Some(Watched::ToUser(ToUser::Iret { operand }));
    match *bytes {
        [0x48, 0xcf] => iret(8),
        [0xcf] => iret(4),
        [0x0f, 0x07 | 0x35] | [0x48, 0x0f, 0x07 | 0x35] => Some(Watched::ToUser(ToUser::Always)),
        _ => stack_load(bytes).map(Watched::StackLoad),
    }
}

/// VMRUN
pub const VMRUN: [u8; 3] = [0x0f, 0x01, 0xd8];

/// An instruction split where its opcode begins.
struct Split<'a> {
    /// F2 or F3 among the prefixes.
    repeat: bool,
    /// 66 among the prefixes.
    operand_size: bool,
    /// Opcode, ModRM, displacement, immediate.
    rest: &'a [u8],
}

fn split(bytes: &[u8]) -> Split<'_> {
    let mut repeat = false;
    let mut operand_size = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            0xf2 | 0xf3 => repeat = true,
            0x66 => operand_size = true,
            0x67 | 0xf0 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
            _ => break,
        }
        at += 1;
    }
    // REX, unless it is all there is: then it is a 32-bit INC or DEC.
    if at + 1 < bytes.len() && bytes[at] & 0xf0 == 0x40 {
        at += 1;
    }
    Split {
        repeat,
        operand_size,
        rest: &bytes[at..],
    }
}

/// The kind of the instruction `bytes`.
pub fn kind(bytes: &[u8]) -> Kind {
    let Split { repeat, rest, .. } = split(bytes);
    let reg = |modrm: u8| modrm >> 3 & 7;
    match *rest {
        [0xa4..=0xa7 | 0xaa..=0xaf | 0x6c..=0x6f, ..] if repeat => Kind::RepString,
        [0x0f, 0x30, ..] => Kind::Wrmsr,
        [0x0f, 0x32, ..] => Kind::Rdmsr,
        [0x0f, 0x33, ..] => Kind::Rdpmc,
        [0x0f, 0xa2, ..] => Kind::Cpuid,
        [0x0f, 0x01, 0xd8, ..] => Kind::Vmrun,
        // SYSCALL, SYSRET, SYSENTER, SYSEXIT, Jcc
        [0x0f, 0x05 | 0x07 | 0x34 | 0x35 | 0x80..=0x8f, ..] => Kind::Branch,
        [0x0f, ..] => Kind::Plain,
        [0xcc..=0xce | 0xf1, ..] => Kind::SoftwareInterrupt,
        // Jcc, LOOPcc and JrCXZ, CALL, JMP, RET, IRET, far ones
        [0x70..=0x7f | 0xe0..=0xe3 | 0xe8..=0xeb | 0xc2 | 0xc3 | 0xca | 0xcb | 0xcf | 0x9a, ..] => {
            Kind::Branch
        }
        [0xff, modrm, ..] if (2..=5).contains(&reg(modrm)) => Kind::Branch,
        _ => Kind::Plain,
    }
}

/// Whether the instruction reads and writes the same memory operand.
pub fn is_load_store(bytes: &[u8]) -> bool {
    let (opcode, modrm, two_byte) = match *split(bytes).rest {
        [0x0f, opcode, modrm, ..] => (opcode, modrm, true),
        [opcode, modrm, ..] => (opcode, modrm, false),
        _ => return false,
    };
    if modrm >= 0xc0 {
        return false;
    }
    let reg = modrm >> 3 & 7;
    if two_byte {
        return match opcode {
            // CMPXCHG, XADD, CMPXCHG8B, BTS, BTR, BTC
            0xb0 | 0xb1 | 0xc0 | 0xc1 | 0xc7 | 0xab | 0xb3 | 0xbb => true,
            0xba => reg >= 5,
            _ => false,
        };
    }
    match opcode {
        // ADD, OR, ADC, SBB, AND, SUB, XOR with a memory destination; CMP (38, 39) only reads.
        0x00..=0x37 => opcode & 7 < 2,
        0x80..=0x83 => reg != 7,
        // INC, DEC
        0xfe | 0xff => reg < 2,
        // NOT, NEG
        0xf6 | 0xf7 => reg == 2 || reg == 3,
        // shifts and rotates, XCHG
        0xc0 | 0xc1 | 0xd0..=0xd3 | 0x86 | 0x87 => true,
        _ => false,
    }
}

/// Whether this is a 32-bit store (MOV or XCHG) whose displacement lies in the last 16 MiB of the
/// address space. Linux maps the local APIC there, in its fixmap, and writes it with such ones.
pub fn is_fixmap_store(bytes: &[u8]) -> bool {
    let split = split(bytes);
    let (opcode, modrm, tail) = match *split.rest {
        [opcode, modrm, ref tail @ ..] => (opcode, modrm, tail),
        _ => return false,
    };
    if split.operand_size || !matches!(opcode, 0x87 | 0x89 | 0xc7) {
        return false;
    }
    // The displacement is 32 bits wide with mod 2, or with mod 0 when there is no base.
    let has_sib = modrm & 7 == 4;
    let displacement = match (modrm >> 6, has_sib, tail) {
        (2, false, d) | (2, true, [_, d @ ..]) => d,
        (0, true, [sib, d @ ..]) if sib & 7 == 5 => d,
        (0, false, d) if modrm & 7 == 5 => d,
        _ => return false,
    };
    matches!(*displacement, [_, _, _, 0xff, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: do not skip prefixes.
    #[test]
    fn instructions_the_pmu_cares_about_are_found() {
        for (bytes, expected) in [
            (&[0x90][..], Kind::Plain),
            (&[0x0f, 0x33], Kind::Rdpmc),
            (&[0x48, 0x0f, 0x33], Kind::Rdpmc),
            (&[0x0f, 0x30], Kind::Wrmsr),
            (&[0x0f, 0x32], Kind::Rdmsr),
            (&[0x0f, 0xa2], Kind::Cpuid),
            (&[0x0f, 0x01, 0xd8], Kind::Vmrun),
            (&[0x0f, 0x01, 0xd9], Kind::Plain),
            (&[0xf3, 0xaa], Kind::RepString),
            (&[0xf3, 0x48, 0xa5], Kind::RepString),
            (&[0xa4], Kind::Plain),
            (&[0xf3, 0x90], Kind::Plain),
            (&[0x75, 0xfe], Kind::Branch),
            (&[0x0f, 0x85, 0, 0, 0, 0], Kind::Branch),
            (&[0xe8, 0, 0, 0, 0], Kind::Branch),
            (&[0xf3, 0xc3], Kind::Branch),
            (&[0xff, 0xd0], Kind::Branch),
            (&[0xff, 0x30], Kind::Plain),
            (&[0x41, 0xff, 0xe0], Kind::Branch),
            (&[0x0f, 0x05], Kind::Branch),
            (&[0xcc], Kind::SoftwareInterrupt),
            (&[0xcd, 0x80], Kind::SoftwareInterrupt),
            (&[0x48], Kind::Plain),
        ] {
            assert_eq!(kind(bytes), expected, "{bytes:02x?}");
        }
    }

    // Break: forget the prefix of SYSRETQ.
    #[test]
    fn ways_to_user_mode_are_found() {
        let iret = |operand| Some(Watched::ToUser(ToUser::Iret { operand }));
        assert_eq!(watched(&[0x48, 0xcf]), iret(8));
        assert_eq!(watched(&[0xcf]), iret(4));
        let sysret = Some(Watched::ToUser(ToUser::Always));
        assert_eq!(watched(&[0x48, 0x0f, 0x07]), sysret);
    }

    // Break: count CMP as a load-store.
    #[test]
    fn read_modify_write_is_one_access() {
        for (bytes, expected) in [
            (&[0x01, 0x07][..], true),
            (&[0x03, 0x07], false),
            (&[0x39, 0x07], false),
            (&[0xf0, 0x4c, 0x0f, 0xc1, 0x0f], true),
            (&[0x01, 0xc7], false),
            (&[0x83, 0x07, 1], true),
            (&[0x83, 0x3f, 1], false),
            (&[0xff, 0x07], true),
            (&[0xff, 0x37], false),
        ] {
            assert_eq!(is_load_store(bytes), expected, "{bytes:02x?}");
        }
    }

    // Break: take any displacement.
    #[test]
    fn stores_to_the_local_apic_are_found() {
        // mov %esi,-0xa03000(%rdi); mov %esi,0x1000(%rdi); movl $0x400,0xffffffffff5fd340
        assert!(is_fixmap_store(&[0x89, 0xb7, 0x00, 0xd0, 0x5f, 0xff]));
        assert!(!is_fixmap_store(&[0x89, 0xb7, 0x00, 0x10, 0x00, 0x00]));
        assert!(is_fixmap_store(&[
            0xc7, 0x04, 0x25, 0x40, 0xd3, 0x5f, 0xff, 0x00, 0x04, 0x00, 0x00
        ]));
        assert!(!is_fixmap_store(&[0x8b, 0xb7, 0x00, 0xd0, 0x5f, 0xff]));
    }
}
