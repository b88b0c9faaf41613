// SPDX-License-Identifier: GPL-2.0

//! The CPU, by the CPUID instruction and by registers that need the msr driver.

use std::arch::x86_64::__cpuid_count;
use std::fs::File;
use std::os::unix::fs::FileExt;

use mvpmu_host::Root;

/// EAX, EBX, ECX and EDX of a leaf.
pub type Leaf = [u32; 4];

/// What a CPU says of itself.
pub trait Cpu {
    /// The leaf; all 0 where there is none.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf;

    /// A model-specific register, for who may read it.
    fn msr(&self, index: u32) -> Option<u64>;
}

/// The CPU that this program runs on.
pub struct ThisCpu {
    root: Root,
}

impl ThisCpu {
    /// Registers are read by the driver below `root`.
    pub fn new(root: &Root) -> Self {
        ThisCpu { root: root.clone() }
    }
}

impl Cpu for ThisCpu {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        // Above the last leaf of a range, Intel's CPUs answer with another one.
        let last = __cpuid_count(leaf & 0xffff_0000, 0).eax;
        if leaf > last {
            return [0; 4];
        }
        let result = __cpuid_count(leaf, subleaf);
        [result.eax, result.ebx, result.ecx, result.edx]
    }

    fn msr(&self, index: u32) -> Option<u64> {
        let driver = File::open(self.root.path("/dev/cpu/0/msr")).ok()?;
        let mut bytes = [0; 8];
        driver.read_exact_at(&mut bytes, index.into()).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

/// Who has made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// AMD, and Hygon.
    Amd,
    /// Intel.
    Intel,
    /// Anybody else.
    Other,
}

/// What of a CPU matters, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who has made it.
    pub vendor: Vendor,
    /// SVM or VMX.
    pub virtualization: bool,
    /// Core types that differ.
    pub hybrid: bool,
    /// Of PerfMon or of the architectural PMU; 0: no PMU.
    pub pmu_version: u32,
    /// General purpose counters.
    pub gp_counters: u32,
    /// Fixed counters.
    pub fixed_counters: u32,
    /// Intel: counters can be written at full width, if known.
    pub full_width_writes: Option<bool>,
    /// Intel: VM entry and exit can load PERF_GLOBAL_CTRL, if known.
    pub loads_global_ctrl: Option<bool>,
    /// What the hypervisor below calls itself.
    pub hypervisor: Option<String>,
}

const SIGNATURE: u32 = 0;
const FEATURES: u32 = 1;
const STRUCTURED_FEATURES: u32 = 7;
const INTEL_PMU: u32 = 0xa;
const HYPERVISOR: u32 = 0x4000_0000;
const AMD_FEATURES: u32 = 0x8000_0001;
const AMD_PMU: u32 = 0x8000_0022;

const PERF_CAPABILITIES: u32 = 0x345;
const VMX_BASIC: u32 = 0x480;
const VMX_EXIT_CTLS: u32 = 0x483;
const VMX_ENTRY_CTLS: u32 = 0x484;
const VMX_TRUE_EXIT_CTLS: u32 = 0x48f;
const VMX_TRUE_ENTRY_CTLS: u32 = 0x490;

fn has(value: u32, bit: u32) -> bool {
    value & (1 << bit) != 0
}

fn name(words: [u32; 3]) -> String {
    let bytes = words.map(u32::to_le_bytes);
    String::from_utf8_lossy(bytes.as_flattened())
        .trim_matches('\0')
        .to_owned()
}

impl Identity {
    /// Asks the CPU.
    pub fn of(cpu: &dyn Cpu) -> Self {
        let [_, b, c, d] = cpu.cpuid(SIGNATURE, 0);
        let vendor = match name([b, d, c]).as_str() {
            "AuthenticAMD" | "HygonGenuine" => Vendor::Amd,
            "GenuineIntel" => Vendor::Intel,
            _ => Vendor::Other,
        };
        let [_, _, features, _] = cpu.cpuid(FEATURES, 0);
        // Reserved for hypervisors, which set it.
        let hypervisor = has(features, 31).then(|| {
            let [_, b, c, d] = cpu.cpuid(HYPERVISOR, 0);
            mvpmu_host::printable(&name([b, c, d]))
        });
        let mut identity = Identity {
            vendor,
            virtualization: false,
            hybrid: false,
            pmu_version: 0,
            gp_counters: 0,
            fixed_counters: 0,
            full_width_writes: None,
            loads_global_ctrl: None,
            hypervisor,
        };
        match vendor {
            Vendor::Amd => identity.amd(cpu),
            Vendor::Intel => identity.intel(cpu, features),
            Vendor::Other => {}
        }
        identity
    }

    /// APM volume 3, Fn8000_0001_ECX[2] (SVM) and [23] (six counters), Fn8000_0022_EAX[0] (PerfMonV2)
    /// and EBX[3:0] (how many counters).
    fn amd(&mut self, cpu: &dyn Cpu) {
        let [_, _, features, _] = cpu.cpuid(AMD_FEATURES, 0);
        let [version, counters, _, _] = cpu.cpuid(AMD_PMU, 0);
        self.virtualization = has(features, 2);
        if has(version, 0) {
            self.pmu_version = 2;
            self.gp_counters = counters & 0xf;
        } else if has(features, 23) {
            self.pmu_version = 1;
            self.gp_counters = 6;
        }
    }

    /// SDM volume 2, CPUID: leaf 1 ECX[5] (VMX) and [15] (PERF_CAPABILITIES), leaf 7 EDX[15] (hybrid),
    /// leaf 10 EAX[7:0] (version), EAX[15:8] and EDX[4:0] (counters).
    fn intel(&mut self, cpu: &dyn Cpu, features: u32) {
        let [.., d] = cpu.cpuid(STRUCTURED_FEATURES, 0);
        let [a, _, _, fixed] = cpu.cpuid(INTEL_PMU, 0);
        self.virtualization = has(features, 5);
        self.hybrid = has(d, 15);
        self.pmu_version = a & 0xff;
        self.gp_counters = (a >> 8) & 0xff;
        self.fixed_counters = fixed & 0x1f;
        self.full_width_writes = match has(features, 15) {
            true => cpu
                .msr(PERF_CAPABILITIES)
                .map(|value| value & (1 << 13) != 0),
            false => Some(false),
        };
        self.loads_global_ctrl = loads_global_ctrl(cpu);
    }
}

/// SDM volume 3, appendix "VMX Capability Reporting Facility": the high half of a register says which
/// controls may be 1; bit 55 of VMX_BASIC that there are the TRUE ones.
fn loads_global_ctrl(cpu: &dyn Cpu) -> Option<bool> {
    let (exit, entry) = match cpu.msr(VMX_BASIC)? & (1 << 55) {
        0 => (VMX_EXIT_CTLS, VMX_ENTRY_CTLS),
        _ => (VMX_TRUE_EXIT_CTLS, VMX_TRUE_ENTRY_CTLS),
    };
    let may = |index, bit| Some(has((cpu.msr(index)? >> 32) as u32, bit));
    Some(may(exit, 12)? && may(entry, 13)?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A CPU made of what it answers.
    #[derive(Clone, Default)]
    pub struct Made {
        leaves: BTreeMap<u32, Leaf>,
        msrs: BTreeMap<u32, u64>,
    }

    impl Cpu for Made {
        fn cpuid(&self, leaf: u32, _subleaf: u32) -> Leaf {
            self.leaves.get(&leaf).copied().unwrap_or_default()
        }

        fn msr(&self, index: u32) -> Option<u64> {
            self.msrs.get(&index).copied()
        }
    }

    fn words(text: &str) -> [u32; 3] {
        let word = |at: usize| {
            let bytes = text.as_bytes()[at..at + 4].try_into();
            u32::from_le_bytes(bytes.expect("there are twelve bytes"))
        };
        [word(0), word(4), word(8)]
    }

    impl Made {
        fn vendor(name: &str) -> Self {
            let [b, d, c] = words(name);
            let mut cpu = Made::default();
            cpu.leaves.insert(SIGNATURE, [0x10, b, c, d]);
            cpu.leaves.insert(FEATURES, [0; 4]);
            cpu
        }

        /// Zen 4: SVM, PerfMonV2, six counters.
        pub fn zen4() -> Self {
            let mut cpu = Made::vendor("AuthenticAMD");
            let features = 1 << 2 | 1 << 23;
            cpu.leaves.insert(AMD_FEATURES, [0, 0, features, 0]);
            cpu.leaves.insert(AMD_PMU, [1, 6, 0, 0]);
            cpu
        }

        /// Zen 3: the same without PerfMonV2.
        pub fn zen3() -> Self {
            let mut cpu = Made::zen4();
            cpu.leaves.remove(&AMD_PMU);
            cpu
        }

        /// Sapphire Rapids: VMX, version 5, eight and three counters.
        pub fn sapphire_rapids() -> Self {
            let mut cpu = Made::vendor("GenuineIntel");
            cpu.leaves.insert(FEATURES, [0, 0, 1 << 5 | 1 << 15, 0]);
            cpu.leaves.insert(INTEL_PMU, [0x0730_0805, 0, 0, 3]);
            cpu.msrs.insert(PERF_CAPABILITIES, 1 << 13);
            cpu.msrs.insert(VMX_BASIC, 1 << 55);
            cpu.msrs.insert(VMX_TRUE_EXIT_CTLS, 1 << (32 + 12));
            cpu.msrs.insert(VMX_TRUE_ENTRY_CTLS, 1 << (32 + 13));
            cpu
        }

        /// Alder Lake: two types of cores.
        pub fn hybrid(mut self) -> Self {
            self.leaves.insert(STRUCTURED_FEATURES, [0, 0, 0, 1 << 15]);
            self
        }

        /// A vendor without a driver.
        pub fn unknown() -> Self {
            Made::vendor("CentaurHauls")
        }

        /// On top of a hypervisor.
        pub fn below(mut self, hypervisor: &str) -> Self {
            self.leaves.entry(FEATURES).or_default()[2] |= 1 << 31;
            let [b, c, d] = words(hypervisor);
            self.leaves.insert(HYPERVISOR, [0, b, c, d]);
            self
        }

        /// Without SVM and VMX.
        pub fn without_virtualization(mut self) -> Self {
            self.leaves.entry(FEATURES).or_default()[2] &= !(1 << 5);
            self.leaves.entry(AMD_FEATURES).or_default()[2] &= !(1 << 2);
            self
        }

        /// Without a PMU.
        pub fn without_pmu(mut self) -> Self {
            self.leaves.remove(&AMD_PMU);
            self.leaves.remove(&INTEL_PMU);
            self.leaves.entry(AMD_FEATURES).or_default()[2] &= !(1 << 23);
            self
        }

        /// Without the msr driver.
        pub fn without_msrs(mut self) -> Self {
            self.msrs.clear();
            self
        }

        /// VM exit cannot load PERF_GLOBAL_CTRL.
        pub fn without_load_at_exit(mut self) -> Self {
            self.msrs.insert(VMX_TRUE_EXIT_CTLS, 0);
            self
        }
    }

    #[test]
    fn cpus_are_told_by_their_leaves() {
        let amd = Identity::of(&Made::zen4());
        assert_eq!(amd.vendor, Vendor::Amd);
        assert!(amd.virtualization);
        assert_eq!((amd.pmu_version, amd.gp_counters), (2, 6));
        assert_eq!(amd.hypervisor, None);
        assert_eq!(Identity::of(&Made::zen3()).pmu_version, 1);

        let intel = Identity::of(&Made::sapphire_rapids());
        assert_eq!(intel.vendor, Vendor::Intel);
        let pmu = (intel.pmu_version, intel.gp_counters, intel.fixed_counters);
        assert_eq!(pmu, (5, 8, 3));
        assert_eq!(intel.full_width_writes, Some(true));
        assert_eq!(intel.loads_global_ctrl, Some(true));
        assert!(!intel.hybrid);
        assert!(Identity::of(&Made::sapphire_rapids().hybrid()).hybrid);
        let guest = Identity::of(&Made::zen4().below("KVMKVMKVM\0\0\0"));
        assert_eq!(guest.hypervisor.as_deref(), Some("KVMKVMKVM"));
    }

    #[test]
    fn what_takes_the_msr_driver_is_unknown_without() {
        let intel = Identity::of(&Made::sapphire_rapids().without_msrs());
        assert_eq!(intel.full_width_writes, None);
        assert_eq!(intel.loads_global_ctrl, None);
        let old = Identity::of(&Made::sapphire_rapids().without_load_at_exit());
        assert_eq!(old.loads_global_ctrl, Some(false));
    }
}
