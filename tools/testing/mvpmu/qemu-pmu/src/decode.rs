// SPDX-License-Identifier: GPL-2.0
//! What an instruction means for the PMU.

use iced_x86::Code;
use iced_x86::Decoder;
use iced_x86::DecoderOptions;
use iced_x86::FlowControl;
use iced_x86::Instruction;
use iced_x86::InstructionInfoFactory;
use iced_x86::Mnemonic;
use iced_x86::OpAccess;
use iced_x86::OpKind;
use pmu_model::amd::BranchKind;
use pmu_model::Source;

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

/// Sources to which an instruction adds one each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources(u16);

impl Sources {
    /// With one more.
    #[must_use]
    pub const fn with(self, source: Source) -> Sources {
        Sources(self.0 | 1 << source as u16)
    }

    /// Whether `source` is among them.
    pub const fn contains(self, source: Source) -> bool {
        self.0 >> source as u16 & 1 != 0
    }
}

/// VMRUN
pub const VMRUN: [u8; 3] = [0x0f, 0x01, 0xd8];

/// The instruction `bytes` at `vaddr`. QEMU does not say in which mode the CPU is, but how long the
/// instruction is: that of the first mode in which it has this length is taken. What counting wants
/// to know does not depend on it otherwise.
pub fn decode(bytes: &[u8], vaddr: u64) -> Instruction {
    [64, 32, 16]
        .into_iter()
        .map(|bits| Decoder::with_ip(bits, bytes, vaddr, DecoderOptions::NONE).decode())
        .find(|insn| !insn.is_invalid() && insn.len() == bytes.len())
        .unwrap_or_default()
}

/// The kind of an instruction.
pub fn kind(insn: &Instruction) -> Kind {
    match insn.mnemonic() {
        Mnemonic::Wrmsr => return Kind::Wrmsr,
        Mnemonic::Rdmsr => return Kind::Rdmsr,
        Mnemonic::Rdpmc => return Kind::Rdpmc,
        Mnemonic::Cpuid => return Kind::Cpuid,
        Mnemonic::Vmrun => return Kind::Vmrun,
        _ => {}
    }
    if insn.is_string_instruction() && (insn.has_rep_prefix() || insn.has_repne_prefix()) {
        return Kind::RepString;
    }
    match insn.flow_control() {
        FlowControl::Interrupt => Kind::SoftwareInterrupt,
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::ConditionalBranch
        | FlowControl::IndirectCall => Kind::Branch,
        FlowControl::Call | FlowControl::Return if is_transfer(insn.mnemonic()) => Kind::Branch,
        _ => Kind::Plain,
    }
}

/// What an instruction of this kind adds to. A conditional branch counts as taken.
pub fn sources(insn: &Instruction, kind: Kind) -> Sources {
    let sources = Sources::default().with(Source::Instructions);
    match kind {
        Kind::SoftwareInterrupt => sources.with(Source::Branches).with(Source::FarBranches),
        Kind::Branch => {
            let sources = sources.with(Source::Branches);
            match (insn.flow_control(), insn.mnemonic()) {
                (FlowControl::ConditionalBranch, _) => sources.with(Source::Taken),
                (FlowControl::Call, Mnemonic::Call) if !insn.is_call_far() => {
                    sources.with(Source::Calls)
                }
                (FlowControl::Return, Mnemonic::Ret) => sources.with(Source::Returns),
                (FlowControl::UnconditionalBranch, _) if !insn.is_jmp_far() => {
                    sources.with(Source::Jumps)
                }
                _ if insn.is_jmp_near_indirect() => {
                    sources.with(Source::Jumps).with(Source::Indirect)
                }
                _ if insn.is_call_near_indirect() => {
                    sources.with(Source::Calls).with(Source::Indirect)
                }
                _ => sources.with(Source::FarBranches),
            }
        }
        _ if matches!(insn.mnemonic(), Mnemonic::Clflush | Mnemonic::Clflushopt) => {
            sources.with(Source::Flushes)
        }
        _ => sources,
    }
}

/// What a branch is for the last branch record stack, by its [`sources`].
pub fn branch_kind(sources: Sources) -> BranchKind {
    let indirect = sources.contains(Source::Indirect);
    let is = |source| sources.contains(source);
    match () {
        () if is(Source::Taken) => BranchKind::Conditional,
        () if is(Source::Calls) && indirect => BranchKind::CallIndirect,
        () if is(Source::Calls) => BranchKind::CallRelative,
        () if is(Source::Returns) => BranchKind::Return,
        () if is(Source::Jumps) && indirect => BranchKind::JumpIndirect,
        () if is(Source::Jumps) => BranchKind::JumpRelative,
        () => BranchKind::Far,
    }
}

/// Whether a call or return is one of the program. The decoder has it that hypervisors and enclaves
/// are called, too.
fn is_transfer(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Call
            | Mnemonic::Ret
            | Mnemonic::Retf
            | Mnemonic::Iret
            | Mnemonic::Iretd
            | Mnemonic::Iretq
            | Mnemonic::Syscall
            | Mnemonic::Sysenter
            | Mnemonic::Sysret
            | Mnemonic::Sysretq
            | Mnemonic::Sysexit
            | Mnemonic::Sysexitq
    )
}

/// Whether the instruction reads and writes the same memory operand.
pub fn is_load_store(insn: &Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(insn);
    (0..insn.op_count()).any(|n| {
        insn.op_kind(n) == OpKind::Memory
            && matches!(
                info.op_access(n),
                OpAccess::ReadWrite | OpAccess::ReadCondWrite
            )
    })
}

/// Whether this is a 32-bit store (MOV or XCHG) whose displacement lies in the last 16 MiB of the
/// address space. Linux maps the local APIC there, in its fixmap, and writes it with such ones.
pub fn is_fixmap_store(insn: &Instruction) -> bool {
    const FIXMAP: i64 = -(16 << 20);
    let stores = matches!(
        insn.code(),
        Code::Mov_rm32_r32 | Code::Mov_rm32_imm32 | Code::Xchg_rm32_r32
    );
    stores
        && insn.op0_kind() == OpKind::Memory
        && insn.memory_displ_size() >= 4
        && (FIXMAP..0).contains(&insn.memory_displacement64().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: decode in 64-bit mode only, or take what the decoder calls a call for one.
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
            // INTO, and a far call and jump, which 64-bit mode does not have; VMMCALL
            (&[0xce], Kind::SoftwareInterrupt),
            (&[0x9a, 0, 0, 0, 0, 8, 0], Kind::Branch),
            (&[0xea, 0, 0, 8, 0], Kind::Branch),
            (&[0x0f, 0x01, 0xd9], Kind::Plain),
        ] {
            assert_eq!(kind(&decode(bytes, 0)), expected, "{bytes:02x?}");
        }
    }

    // Break: take a far call for a near one, or an indirect jump for a direct one.
    #[test]
    fn branches_are_told_apart() {
        for (bytes, expected) in [
            (&[0x75, 0xfe][..], &[Source::Taken][..]),
            (&[0xe2, 0xfe], &[Source::Taken]),
            (&[0xeb, 0xfe], &[Source::Jumps]),
            (&[0xff, 0xe0], &[Source::Jumps, Source::Indirect]),
            (&[0xe8, 0, 0, 0, 0], &[Source::Calls]),
            (&[0xff, 0xd0], &[Source::Calls, Source::Indirect]),
            (&[0xc3], &[Source::Returns]),
            (&[0x48, 0xcb], &[Source::FarBranches]),
            (&[0x48, 0xcf], &[Source::FarBranches]),
            (&[0xff, 0x1f], &[Source::FarBranches]),
            (&[0x0f, 0x05], &[Source::FarBranches]),
            (&[0xcc], &[Source::FarBranches]),
        ] {
            let insn = decode(bytes, 0);
            let both = Sources::default()
                .with(Source::Instructions)
                .with(Source::Branches);
            let expected = expected.iter().fold(both, |all, source| all.with(*source));
            assert_eq!(sources(&insn, kind(&insn)), expected, "{bytes:02x?}");
        }
        let flush = decode(&[0x0f, 0xae, 0x3f], 0);
        assert!(sources(&flush, kind(&flush)).contains(Source::Flushes));
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
            // lock cmpxchg %ecx,(%rdi); shld $4,%eax,(%rdi)
            (&[0xf0, 0x0f, 0xb1, 0x0f], true),
            (&[0x0f, 0xa4, 0x07, 4], true),
        ] {
            assert_eq!(is_load_store(&decode(bytes, 0)), expected, "{bytes:02x?}");
        }
    }

    // Break: take any displacement.
    #[test]
    fn stores_to_the_local_apic_are_found() {
        let is_fixmap_store = |bytes: &[u8]| is_fixmap_store(&decode(bytes, 0xffff_ffff_8100_0000));
        // mov %esi,-0xa03000(%rdi); mov %esi,0x1000(%rdi); movl $0x400,0xffffffffff5fd340
        assert!(is_fixmap_store(&[0x89, 0xb7, 0x00, 0xd0, 0x5f, 0xff]));
        assert!(!is_fixmap_store(&[0x89, 0xb7, 0x00, 0x10, 0x00, 0x00]));
        assert!(is_fixmap_store(&[
            0xc7, 0x04, 0x25, 0x40, 0xd3, 0x5f, 0xff, 0x00, 0x04, 0x00, 0x00
        ]));
        assert!(!is_fixmap_store(&[0x8b, 0xb7, 0x00, 0xd0, 0x5f, 0xff]));
    }
}
