// SPDX-License-Identifier: GPL-2.0
//! Where the oracle of the PMU model is told what happens, and what is done when it objects.
//!
//! A plugin is not told of task switches and of the way to user mode. But a block is translated for
//! one privilege level, so one of user mode says that the CPU has come there, in whichever way. And
//! Linux goes to another kernel stack by loading the stack pointer from memory.

use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use pmu_model::oracle::Entry;
use pmu_model::oracle::Finding;
use pmu_model::oracle::Mode;
use pmu_model::oracle::Oracle;
use pmu_model::oracle::Reported;
use pmu_model::oracle::SharedVcpus;
use pmu_model::oracle::StackLoad;
use pmu_model::oracle::TraceEntry;
use pmu_model::oracle::EXIT_STATUS;
use pmu_model::Access;

use crate::block::Block;
use crate::block::Site;
use crate::lbr;
use crate::registers::handles;
use crate::stats;
use crate::vcpu::Vcpu;

/// CR3: the physical address, without the bit that tells the two page tables of a process.
const PAGE_TABLE: u64 = 0x000f_ffff_ffff_e000;

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
        let process = self.bus.register(handles().cr3) & PAGE_TABLE;
        let guest = self.guest.as_ref()?;
        let (counters, status) = guest.reach(&mut self.bus);
        let has_lbr = self.pmu.map().has_lbr();
        let branches = match has_lbr && !lbr::are_switched(guest.vmcb, &mut self.bus) {
            true => guest.reach_of_branches(&mut self.bus),
            false => 0,
        };
        Some(Entry {
            guest: guest.vmcb,
            process,
            initial: guest.is_in_real_mode(&mut self.bus),
            fresh: guest.is_fresh(),
            stack,
            counters,
            status,
            rdpmc: !guest.intercepts_rdpmc(),
            branches,
            // AMD has none.
            trace: TraceEntry::default(),
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
        if let Some((vmcb, msr, value)) = self.asked.take() {
            if let Some(register) = self.pmu.register(msr) {
                self.pmu.asks(vmcb, register, value);
            }
        }
        self.oracle_follow();
    }

    /// A block of user mode is about to be executed, with something of a guest in the PMU.
    pub fn oracle_user(&mut self, block: &Block) {
        self.oracle_at(block.vaddr, 3);
        self.pmu.user();
        self.oracle_follow();
        // Once will do, until somebody changes the PMU or reads it.
        self.board().left = 0;
    }

    /// The stack pointer is about to be loaded from memory.
    pub fn oracle_switch(&mut self, site: &Site, from: StackLoad) {
        let names = handles();
        let base = [
            names.rax, names.rcx, names.rdx, names.rbx, names.rsp, names.rbp, names.rsi, names.rdi,
        ][usize::from(from.base & 7)];
        let address = self.bus.register(base).wrapping_add_signed(from.offset);
        let stack = self.bus.register(names.rsp);
        self.follow_user();
        if let Some(next) = self.bus.virtual_memory(address, 8) {
            self.oracle_at(site.vaddr, 0);
            self.pmu.switch(stack, next);
            self.oracle_follow();
            self.publish();
        }
    }

    /// The LVTPC was written, by the instruction at `rip`.
    pub fn lvtpc_written(&mut self, value: u32, rip: u64, access: Access) {
        self.pmu.stats_mut().operations_mut(access.owner).lvtpc += 1;
        self.oracle_at(rip, 0);
        self.pmu.lvtpc(value, access.owner);
        self.oracle_follow();
        self.publish();
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
            stats::write();
            // SAFETY: Ends the process at once. exit() would wait for this thread.
            unsafe { libc::_exit(EXIT_STATUS) }
        }
    }
}
