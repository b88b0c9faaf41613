// SPDX-License-Identifier: GPL-2.0
//! The instructions that a machine has to watch, and whose they are.

/// Where Linux has modules (Documentation/arch/x86/x86_64/mm.rst).
const MODULES: std::ops::Range<u64> = 0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000;

/// Whether the code at this address may handle the PMU of a guest: KVM's and that of its providers
/// are modules, all else that knows of the PMU is not.
pub fn is_provider(rip: u64) -> bool {
    MODULES.contains(&rip)
}

/// Whether a function of the kernel, called so, saves or loads last branch records of guests: perf has some, in
/// arch/x86/events/intel/lbr.c.
pub fn is_branch_function(name: &str) -> bool {
    ["perf_guest_lbr_load", "perf_guest_lbr_save", "guest_lbr_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Whether a function of the kernel, called so, loads the registers of a guest's trace: those of perf are in
/// arch/x86/events/intel/pt.c.
pub fn loads_trace(name: &str) -> bool {
    ["intel_pt_guest_enter", "pt_load_guest"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// Whether such a function may read them.
pub fn saves_trace(name: &str) -> bool {
    [
        "intel_pt_guest_",
        "pt_save_guest",
        "pt_save_left",
        "pt_swap_host_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// MOV RSP from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackLoad {
    /// The number of the base register.
    pub base: u8,
    /// Added to it.
    pub offset: i64,
}

/// Linux goes to the kernel stack of another task with MOV RSP, [register + displacement]. The
/// stacks for entries and interrupts come from per-CPU memory, with a segment prefix.
pub fn stack_load(bytes: &[u8]) -> Option<StackLoad> {
    let &[0x48, 0x8b, modrm, ref displacement @ ..] = bytes else {
        return None;
    };
    const RSP: u8 = 4;
    const SIB: u8 = 4;
    let base = modrm & 7;
    if modrm >> 3 & 7 != RSP || base == SIB {
        return None;
    }
    let offset = match (modrm >> 6, displacement) {
        (1, [d, ..]) => i64::from(d.cast_signed()),
        (2, [a, b, c, d, ..]) => i64::from(i32::from_le_bytes([*a, *b, *c, *d])),
        _ => return None,
    };
    Some(StackLoad { base, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: take all functions of perf, or only those that the compiler has left whole.
    #[test]
    fn perf_has_functions_for_records_of_guests() {
        for name in [
            "perf_guest_lbr_load",
            "perf_guest_lbr_save.cold",
            "guest_lbr_write.isra.0",
        ] {
            assert!(is_branch_function(name), "{name}");
        }
        for name in [
            "intel_pmu_arch_lbr_read",
            "perf_load_guest_lbr",
            "x_guest_lbr_",
        ] {
            assert!(!is_branch_function(name), "{name}");
        }
    }

    // Break: take all functions of the driver, or swap the two.
    #[test]
    fn the_driver_has_functions_for_traces_of_guests() {
        for name in ["intel_pt_guest_enter", "pt_load_guest.isra.0"] {
            assert!(loads_trace(name), "{name}");
        }
        for name in [
            "intel_pt_guest_exit",
            "pt_save_left",
            "pt_config",
            "xpt_load_guest",
        ] {
            assert!(!loads_trace(name), "{name}");
        }
        for name in [
            "intel_pt_guest_enter",
            "intel_pt_guest_put",
            "pt_save_left",
            "pt_save_guest.cold",
            "pt_swap_host_in",
        ] {
            assert!(saves_trace(name), "{name}");
        }
        for name in ["pt_event_start", "pt_read_offset", "intel_pt_interrupt"] {
            assert!(!saves_trace(name), "{name}");
        }
    }

    // Break: take any register for the stack pointer.
    #[test]
    fn the_way_to_another_stack_is_found() {
        // mov 0x1218(%rsi),%rsp; mov 0x1218(%rsi),%rax; mov %rsp,0x1218(%rdi); mov (%rsp),%rsp
        let (base, offset) = (6, 0x1218);
        let load = stack_load(&[0x48, 0x8b, 0xa6, 0x18, 0x12, 0, 0]);
        assert_eq!(load, Some(StackLoad { base, offset }));
        assert_eq!(stack_load(&[0x48, 0x8b, 0x86, 0x18, 0x12, 0, 0]), None);
        assert_eq!(stack_load(&[0x48, 0x89, 0xa7, 0x18, 0x12, 0, 0]), None);
        assert_eq!(stack_load(&[0x48, 0x8b, 0x24, 0x24]), None);
    }
}
