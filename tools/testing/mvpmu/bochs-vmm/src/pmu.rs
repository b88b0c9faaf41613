// SPDX-License-Identifier: GPL-2.0

//! The PMU of the CPU: the shared model, fed by `count`.
//!
//! An instruction that changes what is counted (WRMSR, VMRESUME) counts under
//! the old settings, as on hardware: the one that stops a counter is the last it
//! counts. One that reads a counter does not see itself.

use pmu_model::intel::Config;
use pmu_model::intel::Intel;
use pmu_model::oracle::Mode;
use pmu_model::Access;
use pmu_model::Fault;
use pmu_model::Owner;
use pmu_model::Pmu;
use pmu_model::Stats;

use crate::core;
use crate::count;
use crate::layout;
use crate::layout::gpr;
use crate::oracle;
use crate::single::SingleCell;
use crate::single::SingleThread;
use crate::vmx;

const GENERAL_PROTECTION: u32 = 13;
const EXIT_REASON_RDPMC: u32 = 15;
const RDPMC_EXITING: u32 = 1 << 11;
const CR4_PCE: u32 = 1 << 8;

/// The local APIC's entry for PMIs.
mod lvtpc {
    pub const REGISTER: u32 = 0x340;
    pub const ADDRESS: u64 = 0xfee0_0000 + REGISTER as u64;
    pub const MASKED: u32 = 1 << 16;
}

static PMU: SingleThread<Option<Pmu<Intel>>> = SingleThread::new(None);
static CONFIG: SingleCell<Option<Config>> = SingleCell::new(None);

/// Gives the CPU a PMU.
pub fn create(config: Option<Config>, mode: Mode) {
    CONFIG.set(config);
    PMU.with(|pmu| *pmu = config.map(|config| Pmu::new(Intel::new(config))));
    oracle::create(mode);
    settings_changed();
}

/// What PMU there is.
pub fn config() -> Option<Config> {
    CONFIG.get()
}

/// Lends the PMU to `f`, if there is one.
pub fn with<R>(f: impl FnOnce(&mut Pmu<Intel>) -> R) -> Option<R> {
    PMU.with(|pmu| pmu.as_mut().map(f))
}

fn access() -> Access {
    Access {
        owner: vmx::current_guest().map_or(Owner::Host, Owner::Guest),
        cpl: layout::CPL.get(),
    }
}

/// Something that decides what is counted has changed.
fn settings_changed() {
    PMU.with(|pmu| count::follow(pmu.as_ref()));
}

/// Brings the counters up to date, and delivers the PMI that may become due.
pub fn fold() {
    let events = count::take();
    let pmi = PMU.with(|pmu| {
        let Some(pmu) = pmu else { return false };
        let overflow = pmu.fold(&events);
        count::follow(Some(pmu));
        overflow.pmi
    });
    if pmi {
        deliver_pmi();
    }
}

/// One interrupt by the local APIC's LVTPC, which is masked by it (SDM volume 3,
/// "Local Vector Table", "Mask").
fn deliver_pmi() {
    let lapic = layout::lapic();
    let entry = core::lapic_read(lapic, lvtpc::ADDRESS);
    let masked = entry & lvtpc::MASKED != 0;
    PMU.with(|pmu| {
        if let Some(pmu) = pmu {
            match masked {
                true => pmu.stats_mut().pmi_masked += 1,
                false => pmu.stats_mut().pmi += 1,
            }
        }
    });
    if !masked {
        core::lapic_deliver(lapic, entry as u8, (entry >> 8 & 7) as u8, 0);
        core::lapic_set_lvt(lapic, lvtpc::REGISTER, entry | lvtpc::MASKED);
    }
}

/// RDMSR of a register of the PMU; `None` for others.
pub fn rdmsr(index: u32) -> Option<Result<u64, Fault>> {
    let register = PMU.with(|pmu| pmu.as_ref()?.register(index))?;
    fold();
    let access = access();
    oracle::at(layout::PREV_RIP.get());
    let result = with(|pmu| pmu.read(register, access));
    oracle::follow();
    result
}

/// WRMSR of a register of the PMU; `None` for others.
pub fn wrmsr(index: u32, value: u64) -> Option<Result<(), Fault>> {
    let register = PMU.with(|pmu| pmu.as_ref()?.register(index))?;
    let access = access();
    // An instruction that faults does not count.
    let refused = PMU.with(|pmu| pmu.as_ref()?.refuses(register, value));
    if let Some(fault) = refused {
        return Some(Err(fault));
    }
    count::retire_early();
    fold();
    oracle::at(layout::PREV_RIP.get());
    let result = with(|pmu| pmu.write(register, value, access));
    oracle::follow();
    settings_changed();
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
    PMU.with(|pmu| {
        if let Some(pmu) = pmu {
            pmu.map_mut().set_debugctl(value);
        }
    });
}

/// VM entry succeeds: the instruction that enters counts for the host.
pub fn vm_entry(global_ctrl: Option<u64>) {
    count::retire_early();
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
    count::drop_current();
    fold();
    PMU.with(|pmu| {
        let pmu = pmu.as_mut()?;
        pmu.stats_mut().vm_exits += 1;
        Some(pmu.map().global_ctrl())
    })
}

/// The operations so far.
pub fn stats() -> Option<Stats> {
    with(|pmu| pmu.stats_with_oracle())
}

/// Replaces `BX_CPU_C::RDPMC(instruction)`: the core's knows no PMU.
///
/// The order of the checks is that of SDM volume 2, RDPMC, and volume 3,
/// "Relative Priority of Faults and VM Exits".
#[export_name = "_ZN8BX_CPU_C5RDPMCEP15bxInstruction_c"]
unsafe extern "C-unwind" fn rdpmc(_instruction: *const std::ffi::c_void) {
    if layout::CR4.get::<u32>() & CR4_PCE == 0 && layout::CPL.get::<u8>() != 0 {
        core::exception(GENERAL_PROTECTION, 0);
    }
    let in_guest = layout::IN_VMX_GUEST.get::<u8>() != 0;
    if in_guest && layout::PROC_CONTROLS.get::<u32>() & RDPMC_EXITING != 0 {
        core::vm_exit(EXIT_REASON_RDPMC, 0);
    }
    fold();
    let index = layout::GPR.element(gpr::RCX).get::<u64>() as u32;
    let access = access();
    oracle::at(layout::PREV_RIP.get());
    let value = with(|pmu| pmu.rdpmc(index, access));
    oracle::follow();
    let Some(Ok(value)) = value else {
        core::exception(GENERAL_PROTECTION, 0);
        return;
    };
    layout::GPR.element(gpr::RAX).set(value & 0xffff_ffff);
    layout::GPR.element(gpr::RDX).set(value >> 32);
    // What the core does at the end of each instruction. Returning ends the
    // trace, which is always allowed.
    layout::PREV_RIP.set(layout::RIP.get::<u64>());
    count::retire();
    layout::ICOUNT.set(layout::ICOUNT.get::<u64>() + 1);
}

/// Replaces `bx_local_apic_c::set_lvt_entry(register, value)`: counts what
/// software writes.
#[export_name = "_ZN15bx_local_apic_c13set_lvt_entryEjj"]
extern "C-unwind" fn set_lvt_entry(lapic: *mut std::ffi::c_void, register: u32, value: u32) {
    if register == lvtpc::REGISTER {
        let owner = access().owner;
        oracle::at(layout::PREV_RIP.get());
        with(|pmu| {
            pmu.stats_mut().operations_mut(owner).lvtpc += 1;
            if let Some(oracle) = pmu.oracle_mut() {
                oracle.lvtpc(value, owner);
            }
        });
        oracle::follow();
    }
    core::lapic_set_lvt(lapic, register, value);
}
