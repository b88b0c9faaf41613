// SPDX-License-Identifier: GPL-2.0
//! Where the oracle of the PMU model is told what happens, and what is done when it objects.
//!
//! A plugin is not told of task switches and of the way to user mode. Both take an instruction:
//! only IRET, SYSRET and SYSEXIT lower the privilege, and Linux goes to another kernel stack by
//! loading the stack pointer from memory.

use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use pmu_model::amd;
use pmu_model::oracle::Entry;
use pmu_model::oracle::Finding;
use pmu_model::oracle::Mode;
use pmu_model::oracle::Oracle;
use pmu_model::oracle::Reported;
use pmu_model::oracle::SharedVcpus;
use pmu_model::oracle::StackLoad;
use pmu_model::oracle::EXIT_STATUS;

use crate::block::Site;
use crate::decode::ToUser;
use crate::registers::handles;
use crate::svm::Guest;
use crate::vcpu::Vcpu;

static VCPUS: OnceLock<SharedVcpus> = OnceLock::new();
static REPORTED: OnceLock<Mutex<Reported>> = OnceLock::new();

impl Vcpu {
    /// Has the oracle watch from now on.
    pub fn watch(&mut self, mode: Mode) {
        if mode != Mode::Off {
            let vcpus = VCPUS.get_or_init(SharedVcpus::default).clone();
            self.pmu.watch(Oracle::new(self.index, vcpus));
            self.oracle = mode;
        }
    }

    /// The next operation is that of the instruction at `rip`.
    pub fn oracle_at(&mut self, rip: u64, cpl: u8) {
        if let Some(oracle) = self.pmu.oracle_mut() {
            oracle.at(rip, cpl);
        }
    }

    /// VMRUN is about to be executed.
    pub fn oracle_enter(&mut self, site: &Site) {
        if self.oracle == Mode::Off {
            return;
        }
        self.oracle_at(site.vaddr, 0);
        self.fold();
        if let Some(entry) = self.entry() {
            self.pmu.enter(entry);
        }
        self.oracle_follow();
    }

    /// The VM entry that is under way.
    fn entry(&mut self) -> Option<Entry> {
        let stack = self.bus.register(handles().rsp);
        let guest = self.guest.as_ref()?;
        let (counters, status) = guest.reach(&mut self.bus);
        Some(Entry {
            guest: guest.vmcb,
            fresh: guest.is_fresh(),
            stack,
            counters,
            status,
        })
    }

    /// A #VMEXIT was noticed, and the host is about to go on.
    pub fn oracle_exit(&mut self, rip: u64) {
        if self.oracle == Mode::Off {
            return;
        }
        self.oracle_at(rip, 0);
        self.fold();
        self.pmu.exit();
        self.oracle_follow();
    }

    /// IRET, SYSRET or SYSEXIT is about to be executed, with something of a guest in the PMU.
    pub fn oracle_user(&mut self, site: &Site, how: ToUser) {
        // IRET pops RIP, then CS.
        let cs = match how {
            ToUser::Always => Some(3),
            ToUser::Iret { operand } => {
                let stack = self.bus.register(handles().rsp);
                self.bus.virtual_memory(stack.wrapping_add(operand), 2)
            }
        };
        if cs.is_some_and(|cs| cs & 3 != 0) {
            self.oracle_at(site.vaddr, 0);
            self.pmu.user();
            self.oracle_follow();
        }
    }

    /// The stack pointer is about to be loaded from memory.
    pub fn oracle_switch(&mut self, site: &Site, from: StackLoad) {
        let names = handles();
        let base = [
            names.rax, names.rcx, names.rdx, names.rbx, names.rsp, names.rbp, names.rsi, names.rdi,
        ][usize::from(from.base & 7)];
        let address = self.bus.register(base).wrapping_add_signed(from.offset);
        let stack = self.bus.register(names.rsp);
        if let Some(next) = self.bus.virtual_memory(address, 8) {
            self.oracle_at(site.vaddr, 0);
            self.pmu.switch(stack, next);
            self.oracle_follow();
            self.publish();
        }
    }

    /// Something was done to the PMU: acts on what the oracle says.
    pub fn oracle_follow(&mut self) {
        let Some(oracle) = self.pmu.oracle_mut() else {
            return;
        };
        let finding = oracle.take_finding();
        let left = self.guest.is_none() && self.pmu.has_left();
        self.board().left = u64::from(left);
        if let Some(finding) = finding {
            self.report(&finding);
        }
    }

    #[cold]
    fn report(&mut self, finding: &Finding) {
        let reported = REPORTED.get_or_init(Mutex::default);
        let new = reported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_new(finding);
        if new {
            let code: Vec<String> = (0..16)
                .map_while(|n| {
                    self.bus
                        .virtual_memory(finding.place.rip.wrapping_add(n), 1)
                })
                .map(|byte| format!("{byte:02x}"))
                .collect();
            eprint!("{finding}oracle:   code: {}\noracle: end\n", code.join(" "));
        }
        if self.oracle == Mode::On {
            self.publish();
            crate::write_stats();
            // SAFETY: Ends the process at once. exit() would wait for this thread.
            unsafe { libc::_exit(EXIT_STATUS) }
        }
    }
}

impl Guest {
    /// What the guest can read or write without a #VMEXIT: counters, a bit for each, and the
    /// status.
    fn reach(&self, bus: &mut crate::registers::Bus) -> (u64, bool) {
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
}
