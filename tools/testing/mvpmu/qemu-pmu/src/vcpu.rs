// SPDX-License-Identifier: GPL-2.0
//! The state of a vCPU.
//!
//! Each vCPU has a thread in QEMU. Its state is touched by callbacks in this thread only, and a
//! callback never runs inside another one, so the state needs no lock. What others want to see of
//! it at the end, the statistics, is [published](crate::stats).

use std::cell::Cell;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering;
use std::sync::OnceLock;

use pmu_model::amd::Amd;
use pmu_model::amd::HostLbr;
use pmu_model::amd::Uncore;
use pmu_model::amd::Version;
use pmu_model::options::PmiDelay;
use pmu_model::oracle::Mode;
use pmu_model::Access;
use pmu_model::Class;
use pmu_model::Owner;
use pmu_model::Pmu;

use crate::apic::LocalApic;
use crate::apic::MAX_APICS;
use crate::args::Args;
use crate::board;
use crate::board::Board;
use crate::board::Events;
use crate::guest::Guest;
use crate::leaf::Leaf;
use crate::listing::Lister;
use crate::quirks;
use crate::quirks::Quirk;
use crate::registers::Bus;
use crate::rep::Rep;
use crate::stats;
use crate::sweep::Sweep;
use crate::symbols;
use crate::symbols::CpuState;

/// A vCPU.
pub struct Vcpu {
    /// QEMU's number for it.
    pub index: u32,
    /// Its PMU.
    pub pmu: Pmu<Amd>,
    /// Whether CPUID announces the PMU, and its registers exist; which one.
    pub version: Option<Version>,
    /// The PMI under way, if there is one.
    pub pmi_delay: PmiDelay,
    /// Registers and memory.
    pub bus: Bus,
    /// The accumulators when they were folded into the PMU last.
    pub folded: Events,
    /// Instructions of each class, up to the last fold.
    pub retired: [u64; Class::COUNT],
    /// The guest it runs, in guest mode.
    pub guest: Option<Guest>,
    /// It was left, and the host has not gone on yet.
    pub exited: bool,
    /// WRMSR that made the guest leave: of which VMCB, the MSR, the value.
    pub asked: Option<(u64, u32, u64)>,
    /// What the oracle does.
    pub oracle: Mode,
    /// The local APIC.
    pub apic: LocalApic,
    /// A CPUID whose result is to be changed.
    pub cpuid: Option<Leaf>,
    /// A string instruction that may go on.
    pub rep: Option<Rep>,
    /// An exception was raised and is not delivered yet.
    pub exception: bool,
    /// The address of the last page fault that was an instruction fetch.
    pub fetch_fault: Option<u64>,
    /// A counter of it counts cycles by a condition: see [`demand`](crate::demand).
    pub steps: bool,
    /// What it is swept by.
    pub sweep: Sweep,
    /// What is listed of it.
    pub lister: Lister,
    /// RIP at the start of the block that was entered last, while branches are recorded.
    pub block_start: u64,
    /// A guest whose last branch records are switched: its VMCB, and what is kept of the host.
    pub lbr_of: Option<(u64, HostLbr)>,
    /// How many RESETs it has come through.
    pub resets: u64,
    /// The thread's `current_cpu`.
    current_cpu: *const *mut CpuState,
}

impl Vcpu {
    fn new(index: u32, args: &Args) -> Vcpu {
        let version = args.version().unwrap_or(Version::Core);
        let map = Amd::new(version)
            .with_weights(args.weights)
            .with_counters(args.counters)
            .with_lbr(args.lbr)
            .with_uncore(UNCORE.get_or_init(Uncore::default).clone());
        let mut pmu = Pmu::new(map);
        if args.version().is_some() {
            pmu.power_on(args.power_on, index);
        }
        Vcpu {
            index,
            pmu,
            pmi_delay: args.pmi_delay,
            version: args.version(),
            bus: Bus::default(),
            folded: Events::default(),
            retired: [0; Class::COUNT],
            guest: None,
            exited: false,
            asked: None,
            oracle: Mode::Off,
            apic: LocalApic::default(),
            cpuid: None,
            rep: None,
            exception: false,
            fetch_fault: None,
            steps: false,
            sweep: Sweep::default(),
            lister: Lister::new(args.listing),
            block_start: 0,
            lbr_of: None,
            resets: 0,
            current_cpu: symbols::current_cpu_slot(),
        }
    }

    /// The scoreboard entry. Translated code of this vCPU writes it, but not while a callback
    /// runs.
    pub fn board(&mut self) -> &mut Board {
        // SAFETY: The entry exists since the vCPU started; this thread alone uses it.
        unsafe { &mut *board::find(self.index) }
    }

    /// QEMU's own structure for it.
    pub fn cpu_state(&self) -> *mut CpuState {
        // SAFETY: The slot is this thread's, looked up when the vCPU started in it.
        unsafe { *self.current_cpu }
    }

    /// Has QEMU drop all translations, before this vCPU goes on.
    pub fn translate_anew(&self) {
        // SAFETY: In the CPU's thread.
        unsafe { (symbols::symbols().queue_tb_flush)(self.cpu_state()) };
    }

    /// Lets other threads see the statistics as they are now.
    pub fn publish(&self) {
        stats::publish(self.index, self.pmu.stats_with_oracle());
    }

    /// The circumstances of an access by an instruction of `class`.
    pub fn access(&self, class: Class) -> Access {
        Access {
            owner: self
                .guest
                .as_ref()
                .map_or(Owner::Host, |g| Owner::Guest(g.vmcb)),
            cpl: if class.is_user() { 3 } else { 0 },
        }
    }
}

/// The data fabric and the L3 of all vCPUs.
static UNCORE: OnceLock<Uncore> = OnceLock::new();

/// The vCPUs that have started.
static VCPUS: [AtomicPtr<Vcpu>; MAX_APICS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_APICS];

thread_local! {
    /// The number of the vCPU whose thread this is.
    static INDEX: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Starts a vCPU in its own thread; says why not.
pub fn start(index: u32, args: &Args) -> Result<(), String> {
    let Some(slot) = VCPUS.get(index as usize) else {
        return Err(format!("no more than {MAX_APICS} vCPUs"));
    };
    if INDEX.get().is_some() && quirks::active(Quirk::OneThread) {
        return Err("several vCPUs in one thread: use -accel tcg,thread=multi".into());
    }
    INDEX.set(Some(index));
    let vcpu = Box::new(Vcpu::new(index, args));
    slot.store(Box::into_raw(vcpu), Ordering::Release);
    Ok(())
}

/// The numbers of the vCPUs that have started.
pub fn all() -> impl Iterator<Item = u32> {
    (0..)
        .zip(&VCPUS)
        .filter(|(_, slot)| !slot.load(Ordering::Acquire).is_null())
        .map(|(index, _)| index)
}

/// The vCPU with this number.
///
/// # Safety
///
/// Only once in a callback, and in this vCPU's thread, and after [`start`].
pub unsafe fn get<'a>(index: u32) -> &'a mut Vcpu {
    // SAFETY: It was started and is never freed. The caller is the only one who has it.
    unsafe { &mut *VCPUS[index as usize].load(Ordering::Relaxed) }
}

/// The number of the vCPU whose thread this is.
pub fn current() -> Option<u32> {
    INDEX.get()
}
