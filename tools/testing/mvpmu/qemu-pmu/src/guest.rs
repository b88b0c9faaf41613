// SPDX-License-Identifier: GPL-2.0
//! A guest, as its VMCB describes it.
//!
//! A plugin is not told of #VMEXIT. So a value that no exit has is put into the VMCB's exit code
//! before VMRUN: once it changed, the guest was left.

use pmu_model::amd;
use pmu_model::oracle::BranchRegister;

use crate::decode::VMRUN;
use crate::registers::Bus;

/// VMCB fields, as offsets.
mod vmcb {
    /// Intercept words 3 and 4.
    pub const INTERCEPTS: u64 = 0x00c;
    /// Physical address of the MSR permission map.
    pub const MSRPM_BASE: u64 = 0x048;
    /// EXITCODE
    pub const EXIT_CODE: u64 = 0x070;
    /// EXITINFO1
    pub const EXIT_INFO_1: u64 = 0x078;
    /// EXITINTINFO
    pub const EXIT_INT_INFO: u64 = 0x088;
    /// EVENTINJ
    pub const EVENT_INJECTION: u64 = 0x0a8;
    /// nRIP
    pub const NEXT_RIP: u64 = 0x0c8;
    /// CPL
    pub const CPL: u64 = 0x4cb;
    /// CS: base
    pub const CS_BASE: u64 = 0x418;
    /// CR0
    pub const CR0: u64 = 0x558;
    /// RIP
    pub const RIP: u64 = 0x578;
    /// RAX
    pub const RAX: u64 = 0x5f8;
}

/// Intercept: RDPMC.
const INTERCEPT_RDPMC: u64 = 1 << 15;
/// Intercept: CPUID.
const INTERCEPT_CPUID: u64 = 1 << 18;
/// Intercept: MSRs, as the permission map says.
const INTERCEPT_MSR: u64 = 1 << 28;

/// Exit codes: physical interrupts, NMI, SMI, INIT, virtual interrupts. The guest is left between
/// two instructions.
const EXITS_BETWEEN: std::ops::RangeInclusive<u64> = 0x60..=0x64;
/// Exit codes: an intercepted instruction, at which RIP points. Between them are those of events,
/// task switches and shutdown.
const EXITS_INSTRUCTION: [std::ops::RangeInclusive<u64>; 3] =
    [0x00..=0x3f, 0x65..=0x7c, 0x80..=0x8d];
/// Exit code: RDMSR or WRMSR.
const EXIT_MSR: u64 = 0x7c;
/// EXITINFO1: it was WRMSR.
const MSR_WRITE: u64 = 1;
/// Exit codes: #PF and nested page fault.
const EXITS_PAGE_FAULT: [u64; 2] = [0x4e, 0x400];
/// Page fault error code: it was an instruction fetch.
const PAGE_FAULT_FETCH: u64 = 1 << 4;
/// EXITINTINFO: an event was being delivered.
const INT_INFO_VALID: u64 = 1 << 31;
/// EXITINTINFO types: interrupt, NMI. They come between two instructions.
const INT_INFO_BETWEEN: [u64; 2] = [0, 2];
/// EXITINTINFO and EVENTINJ: vector, type, and that there is one.
const EVENT: u64 = INT_INFO_VALID | 0x7ff;

/// CR0: protected mode.
const CR0_PE: u64 = 1;

/// Exit code: VMRUN found the VMCB invalid.
const EXIT_INVALID: u64 = u64::MAX;

/// An exit code that does not exist.
const RUNNING: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// The guest a vCPU runs.
pub struct Guest {
    /// Physical address of the VMCB.
    pub vmcb: u64,
    /// What VMRUN found in the intercept words.
    intercepts: u64,
    /// What VMRUN found in the exit code.
    exit_code: u64,
    /// Address of the VMRUN.
    pub vmrun: u64,
    /// A software interrupt that VMRUN injects.
    injected: Option<Injected>,
}

/// An injected event of an instruction: its handler returns behind that, to nRIP (APM volume 2,
/// "Event Injection"). QEMU, which has no nRIP, has it return to RIP.
struct Injected {
    /// EVENTINJ.
    event: u64,
    /// RIP of the instruction.
    rip: u64,
}

impl Injected {
    fn find(vmcb: u64, bus: &mut Bus) -> Option<Injected> {
        /// Types: exception, software interrupt.
        const EXCEPTION: u64 = 3;
        const SOFTWARE: u64 = 4;
        /// #BP and #OF, the exceptions of INT3 and INTO.
        const OF_INSTRUCTIONS: [u64; 2] = [3, 4];

        let event = bus.physical(vmcb + vmcb::EVENT_INJECTION, 8) & EVENT;
        let kind = event >> 8 & 7;
        let software =
            kind == SOFTWARE || kind == EXCEPTION && OF_INSTRUCTIONS.contains(&(event & 0xff));
        (event & INT_INFO_VALID != 0 && software).then(|| Injected {
            event,
            rip: bus.physical(vmcb + vmcb::RIP, 8),
        })
    }
}

/// A #VMEXIT.
pub struct Exit {
    /// Where the guest was left.
    pub rip: u64,
    /// It was left between two instructions, not within the one at `rip`.
    pub between: bool,
    /// By the instruction at this linear address, which is intercepted.
    pub instruction: Option<u64>,
    /// By WRMSR.
    pub wrmsr: bool,
    /// It was at CPL > 0.
    pub user: bool,
}

impl Guest {
    /// The guest that the VMRUN at `vmrun` is about to enter.
    pub fn enter(vmcb: u64, vmrun: u64, bus: &mut Bus) -> Guest {
        let guest = Guest {
            vmcb,
            intercepts: bus.physical(vmcb + vmcb::INTERCEPTS, 8),
            exit_code: bus.physical(vmcb + vmcb::EXIT_CODE, 8),
            vmrun,
            injected: Injected::find(vmcb, bus),
        };
        bus.set_physical(vmcb + vmcb::EXIT_CODE, RUNNING, 8);
        if guest.injected.is_some() {
            let next = bus.physical(vmcb + vmcb::NEXT_RIP, 8);
            bus.set_physical(vmcb + vmcb::RIP, next, 8);
        }
        guest
    }

    /// It was not entered after all.
    pub fn was_not_entered(&self, bus: &mut Bus) {
        bus.set_physical(self.vmcb + vmcb::EXIT_CODE, self.exit_code, 8);
        self.take_injection_back(bus);
    }

    /// What was to be injected has not arrived.
    fn take_injection_back(&self, bus: &mut Bus) {
        if let Some(injected) = &self.injected {
            bus.set_physical(self.vmcb + vmcb::RIP, injected.rip, 8);
        }
    }

    /// How it was left, if it was.
    pub fn exit(&self, bus: &mut Bus) -> Option<Exit> {
        let vmcb = self.vmcb;
        let code = bus.physical(vmcb + vmcb::EXIT_CODE, 8);
        if code == RUNNING {
            return None;
        }
        let info = bus.physical(vmcb + vmcb::EXIT_INFO_1, 8);
        let int_info = bus.physical(vmcb + vmcb::EXIT_INT_INFO, 8);
        let delivering =
            int_info & INT_INFO_VALID != 0 && INT_INFO_BETWEEN.contains(&(int_info >> 8 & 7));
        let rejected = self
            .injected
            .as_ref()
            .is_some_and(|injected| code == EXIT_INVALID || int_info & EVENT == injected.event);
        if rejected {
            self.take_injection_back(bus);
        }
        let rip = bus.physical(vmcb + vmcb::RIP, 8);
        let intercepted = EXITS_INSTRUCTION.iter().any(|codes| codes.contains(&code));
        let fetching = EXITS_PAGE_FAULT.contains(&code) && info & PAGE_FAULT_FETCH != 0;
        Some(Exit {
            rip,
            instruction: intercepted
                .then(|| bus.physical(vmcb + vmcb::CS_BASE, 8).wrapping_add(rip)),
            between: EXITS_BETWEEN.contains(&code) || delivering || fetching,
            wrmsr: code == EXIT_MSR && info == MSR_WRITE,
            user: bus.physical(vmcb + vmcb::CPL, 1) != 0,
        })
    }

    /// Sets nRIP: the guest was left by an intercepted instruction of this length, or by nothing of
    /// the kind, then it is 0.
    pub fn set_next_rip(&self, bus: &mut Bus, exit: &Exit, len: Option<u8>) {
        let next = len.map_or(0, |len| exit.rip.wrapping_add(len.into()));
        bus.set_physical(self.vmcb + vmcb::NEXT_RIP, next, 8);
    }

    /// Its RAX, in the VMCB.
    pub fn rax(&self, bus: &mut Bus) -> u64 {
        bus.physical(self.vmcb + vmcb::RAX, 8)
    }

    /// Changes its RAX in the VMCB.
    pub fn set_rax(&self, bus: &mut Bus, rax: u64) {
        bus.set_physical(self.vmcb + vmcb::RAX, rax, 8);
    }

    /// Whether RDPMC exits.
    pub fn intercepts_rdpmc(&self) -> bool {
        self.intercepts & INTERCEPT_RDPMC != 0
    }

    /// Whether no #VMEXIT has ever written the VMCB: KVM makes them of zeroes, and 0, a read of
    /// CR0, is nothing that KVM intercepts in a guest with nested paging.
    pub fn is_fresh(&self) -> bool {
        self.exit_code == 0
    }

    /// Whether it is entered in real mode.
    pub fn is_in_real_mode(&self, bus: &mut Bus) -> bool {
        bus.physical(self.vmcb + vmcb::CR0, 8) & CR0_PE == 0
    }

    /// The MSR permission map, if MSRs are intercepted at all.
    fn msrpm(&self, bus: &mut Bus) -> Option<u64> {
        let used = self.intercepts & INTERCEPT_MSR != 0;
        used.then(|| bus.physical(self.vmcb + vmcb::MSRPM_BASE, 8))
    }

    /// Whether CPUID exits.
    pub fn intercepts_cpuid(&self) -> bool {
        self.intercepts & INTERCEPT_CPUID != 0
    }

    /// Whether RDMSR or WRMSR of `msr` exits.
    pub fn intercepts_msr(&self, bus: &mut Bus, msr: u32, write: bool) -> bool {
        /// Each of the map's three parts has two bits for each of 0x2000 MSRs.
        const PART: u64 = 0x2000;
        let Some(map) = self.msrpm(bus) else {
            return false;
        };
        let n = match msr {
            0x0000_0000..=0x0000_1fff => u64::from(msr),
            0xc000_0000..=0xc000_1fff => PART + u64::from(msr & 0x1fff),
            0xc001_0000..=0xc001_1fff => 2 * PART + u64::from(msr & 0x1fff),
            _ => return true,
        };
        let bit = 2 * n + u64::from(write);
        bus.physical(map + bit / 8, 1) >> (bit % 8) & 1 != 0
    }

    /// What the guest can read or write without a #VMEXIT: counters, a bit for each, and the
    /// status.
    pub fn reach(&self, bus: &mut Bus) -> (u64, bool) {
        let all = (1 << amd::COUNTERS) - 1;
        let Some(map) = self.msrpm(bus) else {
            return (all, true);
        };
        // Two bits for each MSR, in the parts for C000_0000 and C001_0000.
        let status = bus.physical(map + 0x800 + 0x300 / 4, 1) & 0b01 == 0;
        if !self.intercepts_rdpmc() {
            return (all, status);
        }
        let legacy = bus.physical(map + 0x1000, 2);
        let extended = bus.physical(map + 0x1000 + 0x200 / 4, 4);
        let counters = (0..amd::COUNTERS).filter(|n| {
            let legacy = *n < 4 && legacy >> (2 * (4 + n)) & 0b11 != 0b11;
            legacy || extended >> (2 * (2 * n + 1)) & 0b11 != 0b11
        });
        (counters.fold(0, |bits, n| bits | 1 << n), status)
    }

    /// The registers of the last branch record stack that the guest can read without a #VMEXIT: the bit
    /// of each.
    pub fn reach_of_branches(&self, bus: &mut Bus) -> u128 {
        let Some(map) = self.msrpm(bus) else {
            return u128::MAX;
        };
        // Of two bits for each MSR the lower one is that of RDMSR. LastBranchStackSelect and DebugExtnCtl
        // are in the upper half of a byte.
        let entries = bus.physical(map + 0x1000 + 0x300 / 4, 8);
        let others = bus.physical(map + 0x800 + 0x10e / 4, 1) >> 4;
        let of_entries = (0..amd::LBR_ENTRIES)
            .flat_map(|n| [BranchRegister::From(n), BranchRegister::To(n)])
            .enumerate()
            .filter(|(n, _)| entries >> (2 * n) & 1 == 0);
        let others = [BranchRegister::Filter, BranchRegister::Control]
            .into_iter()
            .enumerate()
            .filter(|(n, _)| others >> (2 * n) & 1 == 0);
        let all = of_entries.chain(others);
        all.fold(0, |bits, (_, register)| bits | register.bit())
    }
}

/// Whether the block at `vaddr` is where a host goes on after a #VMEXIT.
pub fn follows_vmrun(bus: &mut Bus, vaddr: u64) -> bool {
    let before = vaddr.wrapping_sub(VMRUN.len() as u64);
    let [a, b, c] = VMRUN;
    bus.virtual_memory(before, VMRUN.len()) == Some(u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 0]))
}
