// SPDX-License-Identifier: GPL-2.0
//! Counts of what was done to the PMU. A machine writes them as JSON objects.

use serde::Serialize;

use crate::oracle::Counts;
use crate::Class;
use crate::Owner;

/// PMU register operations that were carried out; those that were refused (#GP) count as such only,
/// intercepted ones do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Operations {
    /// RDMSR of a PMU register.
    pub rdmsr: u64,
    /// WRMSR of a PMU register.
    pub wrmsr: u64,
    /// RDPMC.
    pub rdpmc: u64,
    /// Writes of the local APIC's LVTPC.
    pub lvtpc: u64,
    /// WRMSR of a PMU register that was refused.
    pub refused: u64,
}

/// Everything counted on one logical CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Operations in host mode.
    pub host: Operations,
    /// Operations in guest mode.
    pub guest: Operations,
    /// VM entries (VMRUN, VMLAUNCH, VMRESUME).
    pub vm_entries: u64,
    /// VM exits.
    pub vm_exits: u64,
    /// PMIs delivered to the CPU.
    pub pmi: u64,
    /// PMIs that the LVTPC's mask bit (or a disabled local APIC) stopped.
    pub pmi_masked: u64,
    /// RESETs and INITs after power-up.
    pub resets: u64,
    /// What the oracle has seen, if there is one.
    pub oracle: Option<Counts>,
}

impl Stats {
    /// The operations of this mode.
    pub fn operations_mut(&mut self, owner: Owner) -> &mut Operations {
        match owner {
            Owner::Host => &mut self.host,
            Owner::Guest(_) => &mut self.guest,
        }
    }
}

/// A CPUID leaf by which the host reads what its CPU has counted, while it runs.
///
/// ECX selects: 0 RDMSR, 1 WRMSR, 2 RDPMC of PMU registers and 3 writes of the LVTPC, all in host
/// mode; 4 VM exits; 5 instructions; 6 violations that its oracle has seen, where one watches; 7
/// instructions of the host at CPL 0, 8 at CPL > 0. The count is in EDX:EAX; [`LEAF_SIGNATURE`] in
/// EBX says that there is one, and 1 in ECX.
pub const LEAF: u32 = 0x4d76_7075;

/// What the leaf has in EBX.
pub const LEAF_SIGNATURE: u32 = 0x746e_756f;

/// The leaf with this value.
pub fn leaf_with(value: u64) -> [u32; 4] {
    [value as u32, LEAF_SIGNATURE, 1, (value >> 32) as u32]
}

/// The instructions that a CPU has executed.
#[derive(Clone, Copy, Debug)]
pub struct Instructions {
    /// Whoever executed them, and whatever an instruction is for the machine.
    pub all: u64,
    /// Those that retired, as an event of the PMU counts them, of each class.
    pub retired: [u64; Class::COUNT],
}

impl Stats {
    /// The leaf for this selection: EAX, EBX, ECX, EDX.
    pub fn leaf(&self, ecx: u32, instructions: &Instructions) -> [u32; 4] {
        let value = match ecx {
            0 => Some(self.host.rdmsr),
            1 => Some(self.host.wrmsr),
            2 => Some(self.host.rdpmc),
            3 => Some(self.host.lvtpc),
            4 => Some(self.vm_exits),
            5 => Some(instructions.all),
            6 => self.oracle.map(|counts| counts.violations),
            7 => Some(instructions.retired[Class::HostKernel as usize]),
            8 => Some(instructions.retired[Class::HostUser as usize]),
            _ => None,
        };
        match value {
            Some(value) => leaf_with(value),
            None => [0, LEAF_SIGNATURE, 0, 0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when two counts are exchanged, or the halves of one.
    #[test]
    fn the_leaf_has_the_counts() {
        let stats = Stats {
            host: Operations {
                rdmsr: 1,
                wrmsr: 2 << 32,
                rdpmc: 3,
                lvtpc: 4,
                refused: 6,
            },
            vm_exits: 5,
            oracle: Some(Counts {
                violations: 7,
                ..Counts::default()
            }),
            ..Stats::default()
        };
        let instructions = Instructions {
            all: 6,
            retired: [8, 9, 10, 11],
        };
        let leaves = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|ecx| stats.leaf(ecx, &instructions));
        let value = |[eax, _, is_there, edx]: [u32; 4]| (is_there, eax, edx);
        assert_eq!(
            leaves.map(value),
            [
                (1, 1, 0),
                (1, 0, 2),
                (1, 3, 0),
                (1, 4, 0),
                (1, 5, 0),
                (1, 6, 0),
                (1, 7, 0),
                (1, 8, 0),
                (1, 9, 0),
                (0, 0, 0)
            ]
        );
        assert!(leaves.iter().all(|leaf| leaf[1] == LEAF_SIGNATURE));
        assert_eq!(Stats::default().leaf(6, &instructions)[2], 0);
    }
}
