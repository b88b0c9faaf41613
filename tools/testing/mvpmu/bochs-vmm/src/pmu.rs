// SPDX-License-Identifier: GPL-2.0

//! The PMU of the CPU: the shared model, fed by what `gather` has.
//!
//! An instruction that changes what is counted (WRMSR, VMRESUME) counts under
//! the old settings, as on hardware: the one that stops a counter is the last it
//! counts. One that reads a counter does not see itself.

use pmu_model::intel::Config;
use pmu_model::intel::Intel;
use pmu_model::intel::Transfer;
use pmu_model::options::PmiDelay;
use pmu_model::options::PowerOn;
use pmu_model::options::Weights;
use pmu_model::oracle::Oracle;
use pmu_model::Access;
use pmu_model::Fault;
use pmu_model::Owner;
use pmu_model::Pmu;
use pmu_model::Reset;
use pmu_model::Stats;

use crate::bts;
use crate::gather;
use crate::layout;
use crate::lbr;
use crate::lvtpc;
use crate::mode;
use crate::per_cpu::CpuCell;
use crate::per_cpu::CpuThing;
use crate::per_cpu::PerCpu;
use crate::pt;
use crate::single::SingleCell;
use crate::watch;

static PMU: CpuThing<Box<Pmu<Intel>>> = CpuThing::new();
static CONFIG: SingleCell<Option<Config>> = SingleCell::new(None);

/// What the PMU is otherwise than it would be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// When a PMI comes.
    pub pmi_delay: PmiDelay,
    /// What is in the registers at first.
    pub power_on: PowerOn,
    /// How long an instruction takes.
    pub weights: Weights,
}

/// The PMI that is under way.
static PMI_DELAY: CpuCell<PmiDelay> = CpuCell::new(PmiDelay::NONE);

/// What a CPU has of its own.
pub static PER_CPU: [&dyn PerCpu; 2] = [&PMU, &PMI_DELAY];

/// Gives CPU number `cpu`, whose turn it is, a PMU.
pub fn create(cpu: usize, config: Option<Config>, options: Options) {
    CONFIG.set(config);
    PMI_DELAY.set(options.pmi_delay);
    PMU.with(|pmu| {
        *pmu = config.map(|config| {
            let mut pmu = Pmu::new(Intel::new(config).with_weights(options.weights));
            pmu.power_on(options.power_on, cpu as u32);
            Box::new(pmu)
        });
    });
    settings_changed();
}

/// What PMU there is.
pub fn config() -> Option<Config> {
    CONFIG.get()
}

/// Lends the PMU to `f`, if there is one.
pub fn with<R>(f: impl FnOnce(&mut Pmu<Intel>) -> R) -> Option<R> {
    PMU.with(|pmu| pmu.as_deref_mut().map(f))
}

fn access() -> Access {
    Access {
        owner: mode::current_guest().map_or(Owner::Host, Owner::Guest),
        cpl: layout::CPL.get(),
    }
}

/// Something that decides what is counted has changed.
fn settings_changed() {
    PMU.with(|pmu| {
        gather::follow(pmu.as_deref());
        if let Some(pmu) = pmu {
            lbr::follow(pmu.map());
            pt::follow(pmu.map());
        }
    });
}

/// Brings the counters up to date, and delivers the PMI that may become due.
pub fn fold() {
    let events = gather::take();
    let pmi = PMU.with(|pmu| {
        let Some(pmu) = pmu else { return false };
        let overflow = pmu.fold(&events);
        gather::follow(Some(pmu));
        // A PMI may have frozen them.
        lbr::follow(pmu.map());
        overflow.pmi
    });
    if pmi {
        follow_pmi(|delay, now| delay.raise(now));
    }
}

/// An instruction is about to be executed, and a PMI is under way.
pub fn step() {
    follow_pmi(|_, _| ());
}

/// Something may have become of the PMI that is under way.
fn follow_pmi(change: impl FnOnce(&mut PmiDelay, u64)) {
    let now = layout::ICOUNT.get();
    let mut delay = PMI_DELAY.get();
    change(&mut delay, now);
    let has_come = delay.take(now);
    watch::set(watch::by::PMI, delay.left(now).is_some());
    PMI_DELAY.set(delay);
    if has_come {
        deliver_pmi();
    }
}

/// One interrupt by the local APIC's LVTPC.
fn deliver_pmi() {
    let delivered = lvtpc::deliver();
    with(|pmu| match delivered {
        true => pmu.stats_mut().pmi += 1,
        false => pmu.stats_mut().pmi_masked += 1,
    });
}

/// The instruction at `rip` does what comes next: who, and at which level.
fn at(pmu: &mut Pmu<Intel>, rip: u64) -> Access {
    let access = access();
    if let Some(oracle) = pmu.oracle_mut() {
        oracle.at(rip, access.cpl);
    }
    access
}

/// RDMSR of a register of the PMU; `None` for others.
pub fn rdmsr(index: u32) -> Option<Result<u64, Fault>> {
    let register = PMU.with(|pmu| pmu.as_ref()?.register(index))?;
    fold();
    with(|pmu| {
        let access = at(pmu, layout::PREV_RIP.get());
        pmu.read(register, access)
    })
}

/// WRMSR of a register of the PMU; `None` for others.
pub fn wrmsr(index: u32, value: u64) -> Option<Result<(), Fault>> {
    let register = PMU.with(|pmu| pmu.as_ref()?.register(index))?;
    // An instruction that faults does not count.
    let owner = access().owner;
    let refused = PMU.with(|pmu| pmu.as_mut()?.refuses(register, value, owner));
    if let Some(fault) = refused {
        return Some(Err(fault));
    }
    gather::retire_early();
    fold();
    let result = with(|pmu| {
        let access = at(pmu, layout::PREV_RIP.get());
        pmu.write(register, value, access)
    });
    settings_changed();
    pt::register_written();
    result
}

/// Loads IA32_PERF_GLOBAL_CTRL. Its reserved bits were checked at VM entry.
pub fn load_global_ctrl(value: u64) {
    fold();
    PMU.with(|pmu| {
        if let Some(pmu) = pmu {
            let _ = pmu.map_mut().set_global_ctrl(value);
        }
    });
    settings_changed();
}

/// Follows IA32_DEBUGCTL.
pub fn set_debugctl(value: u64) {
    let stores = with(|pmu| {
        pmu.map_mut().set_debugctl(value);
        pmu.map().stores_branches()
    });
    bts::turn(stores == Some(true));
}

/// VM entry loads IA32_LBR_CTL. Its reserved bits were checked.
pub fn load_lbr_control(value: u64) {
    with(|pmu| pmu.load_lbr_control(value));
    settings_changed();
}

/// VM exit clears IA32_LBR_CTL.
pub fn clear_lbr_control() {
    with(|pmu| pmu.map_mut().set_lbr_control(0));
    settings_changed();
}

/// Control was transferred, while branches are recorded. The result is whether the oracle objects.
pub fn transferred(transfer: Transfer) -> bool {
    let objects = with(|pmu| {
        at(pmu, transfer.from);
        pmu.transferred(transfer);
        pmu.oracle().is_some_and(Oracle::has_finding)
    });
    objects == Some(true)
}

/// Loads IA32_RTIT_CTL. Its reserved bits were checked at VM entry.
pub fn load_pt_control(value: u64) {
    with(|pmu| pmu.map_mut().set_pt_control(value));
}

/// #DB is raised.
pub fn debug_exception() {
    with(|pmu| pmu.map_mut().debug_exception());
    settings_changed();
}

/// IA32_DEBUGCTL was written by software, for the oracle.
pub fn debugctl_written() {
    with(|pmu| {
        at(pmu, layout::PREV_RIP.get());
        pmu.trace_changed();
    });
}

/// The trace of branches has come to its threshold.
pub fn trace_pmi() {
    event(layout::PREV_RIP.get(), Pmu::trace_pmi);
    settings_changed();
    follow_pmi(|delay, now| delay.raise(now));
}

/// A region of the output of PT was filled that asks for a PMI.
pub fn output_pmi() {
    settings_changed();
    follow_pmi(|delay, now| delay.raise(now));
}

/// VM entry succeeds: the instruction that enters counts for the host.
pub fn vm_entry(global_ctrl: Option<u64>) {
    gather::retire_early();
    fold();
    PMU.with(|pmu| {
        if let Some(pmu) = pmu {
            pmu.stats_mut().vm_entries += 1;
        }
    });
    if let Some(value) = global_ctrl {
        load_global_ctrl(value);
    }
}

/// VM exit: the result is IA32_PERF_GLOBAL_CTRL, to be saved. An instruction that
/// exits does not retire.
pub fn vm_exit() -> Option<u64> {
    gather::drop_current();
    fold();
    PMU.with(|pmu| {
        let pmu = pmu.as_mut()?;
        pmu.stats_mut().vm_exits += 1;
        Some(pmu.map().global_ctrl())
    })
}

/// The CPU was initialized.
pub fn init() {
    fold();
    with(|pmu| {
        pmu.reset(Reset::Init);
        pmu.stats_mut().resets += 1;
    });
    settings_changed();
}

/// The operations so far.
pub fn stats() -> Option<Stats> {
    with(|pmu| pmu.stats_with_oracle())
}

/// RDPMC with `index` in ECX; `None` when there is no PMU.
pub fn rdpmc(index: u32) -> Option<Result<u64, Fault>> {
    fold();
    with(|pmu| {
        let access = at(pmu, layout::PREV_RIP.get());
        pmu.rdpmc(index, access)
    })
}

/// Software writes the LVTPC.
pub fn lvtpc_written(value: u32) {
    with(|pmu| {
        let owner = at(pmu, layout::PREV_RIP.get()).owner;
        pmu.stats_mut().operations_mut(owner).lvtpc += 1;
        pmu.lvtpc(value, owner);
    });
}

/// The instruction at `rip` executes, for the oracle.
pub fn is_at(rip: u64) {
    with(|pmu| at(pmu, rip));
}

/// Something happens at `rip` that the oracle is told of.
pub fn event(rip: u64, tell: impl FnOnce(&mut Pmu<Intel>)) {
    with(|pmu| {
        at(pmu, rip);
        tell(pmu);
    });
}
