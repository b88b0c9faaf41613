// SPDX-License-Identifier: GPL-2.0
//! RDMSR, WRMSR and RDPMC.
//!
//! Those of the PMU are executed here and skipped in QEMU, which knows none of them. Everything
//! that faults or exits before the PMU is reached is left to QEMU.

use pmu_model::amd;
use pmu_model::amd::Version;
use pmu_model::Access;
use pmu_model::Class;
use pmu_model::Fault;

use crate::apic;
use crate::block::Site;
use crate::decode::Kind;
use crate::leave;
use crate::leave::Origin;
use crate::quirks;
use crate::quirks::Quirk;
use crate::registers::handles;
use crate::vcpu::Vcpu;

/// EFER
const MSR_EFER: u32 = 0xc000_0080;
/// EFER: SVM enable.
const EFER_SVME: u64 = 1 << 12;
/// CR4: RDPMC is allowed at CPL > 0.
const CR4_PCE: u64 = 1 << 8;

/// What such an instruction is about to do to the PMU.
#[derive(Clone, Copy)]
enum Operation {
    Read(amd::Register),
    Write(amd::Register, u64),
    Rdpmc(u32),
    /// RDMSR of DebugCtl.
    ReadDebugctl,
    /// WRMSR of it.
    WriteDebugctl(u64),
}

/// RDMSR or WRMSR is about to be executed. Does not return when it is one of the PMU.
///
/// # Safety
///
/// No frame up to the callback has anything to drop.
pub unsafe fn execute(vcpu: &mut Vcpu, site: &Site, origin: Origin) {
    if site.block().class.is_user() {
        return;
    }
    let msr = vcpu.bus.register(handles().rcx) as u32;
    let write = site.insn().kind == Kind::Wrmsr;
    if let Some(guest) = &vcpu.guest {
        if guest.intercepts_msr(&mut vcpu.bus, msr, write) {
            return;
        }
    }
    let has_freeze = vcpu.version == Some(Version::PerfMonV2);
    let operation = match vcpu.pmu.register(msr) {
        // QEMU has none, and reads 0.
        None if msr == amd::MSR_DEBUGCTL && has_freeze => match write {
            true => Operation::WriteDebugctl(vcpu.bus.edx_eax()),
            false if vcpu.pmu.map().debugctl() == 0 => return,
            false => Operation::ReadDebugctl,
        },
        Some(register) if write => Operation::Write(register, vcpu.bus.edx_eax()),
        Some(register) => Operation::Read(register),
        // SAFETY: The caller's promise.
        None if amd::is_pmu_msr(msr) => unsafe { leave::general_protection(origin) },
        None if write => return follow(vcpu, site, msr),
        None => return,
    };
    // SAFETY: The caller's promise.
    unsafe { replace(vcpu, site, origin, operation) }
}

/// RDPMC is about to be executed. Does not return, unless it faults or exits in QEMU.
///
/// # Safety
///
/// No frame up to the callback has anything to drop.
pub unsafe fn execute_rdpmc(vcpu: &mut Vcpu, site: &Site, origin: Origin) {
    if site.block().class.is_user() && vcpu.bus.register(handles().cr4) & CR4_PCE == 0 {
        return;
    }
    if vcpu.guest.as_ref().is_some_and(|g| g.intercepts_rdpmc()) {
        return;
    }
    let index = vcpu.bus.register(handles().rcx) as u32;
    // SAFETY: The caller's promise.
    unsafe { replace(vcpu, site, origin, Operation::Rdpmc(index)) }
}

/// Executes the instruction in place of QEMU.
///
/// # Safety
///
/// No frame up to the callback has anything to drop.
unsafe fn replace(vcpu: &mut Vcpu, site: &Site, origin: Origin, operation: Operation) -> ! {
    let block = site.block();
    let set_pc = !quirks::active(Quirk::SetPc);
    let pc = if set_pc {
        site.vaddr
    } else {
        leave::restore(origin);
        vcpu.bus.register(handles().rip)
    };
    // The rest of the block is left; what is not left is this instruction.
    vcpu.unretire(block, site.index);
    vcpu.lister.give_back(block, site.index..=site.index);
    vcpu.board().leave();
    let access = vcpu.access(block.class);
    vcpu.oracle_at(pc, access.cpl);
    let result = perform(vcpu, operation, block.class, access);
    vcpu.oracle_follow();
    vcpu.publish();
    match result {
        // SAFETY: The caller's promise.
        Ok(()) if set_pc => unsafe { leave::by_set_pc(pc.wrapping_add(site.insn().len.into())) },
        // SAFETY: The caller's promise; registers are up to date since the restore.
        Ok(()) => unsafe { leave::to_pc(origin, pc.wrapping_add(site.insn().len.into())) },
        // SAFETY: The caller's promise.
        Err(Fault::GeneralProtection) => unsafe { leave::general_protection(origin) },
    }
}

/// Carries the operation out and counts the instruction.
fn perform(
    vcpu: &mut Vcpu,
    operation: Operation,
    class: Class,
    access: Access,
) -> Result<(), Fault> {
    match operation {
        Operation::Write(register, value) => {
            // The write counts under the configuration that it replaces.
            vcpu.retire_one(class);
            vcpu.fold();
            vcpu.pmu.write(register, value, access)?;
            vcpu.arm();
        }
        Operation::Read(register) => {
            vcpu.fold();
            let value = vcpu.pmu.read(register, access)?;
            vcpu.bus.set_edx_eax(value);
            vcpu.retire_one(class);
        }
        Operation::ReadDebugctl => {
            let value = vcpu.pmu.map().debugctl();
            vcpu.bus.set_edx_eax(value);
            vcpu.retire_one(class);
        }
        Operation::WriteDebugctl(value) => {
            vcpu.retire_one(class);
            vcpu.fold();
            vcpu.pmu.map_mut().set_debugctl(value);
            vcpu.arm();
        }
        Operation::Rdpmc(index) => {
            vcpu.fold();
            let value = vcpu.pmu.rdpmc(index, access)?;
            vcpu.bus.set_edx_eax(value);
            vcpu.retire_one(class);
        }
    }
    Ok(())
}

/// WRMSR of something else that the PMU depends on. QEMU executes it.
fn follow(vcpu: &mut Vcpu, site: &Site, msr: u32) {
    let block = site.block();
    if block.class.is_guest() && msr != apic::MSR_X2APIC_LVTPC {
        return;
    }
    let value = vcpu.bus.edx_eax();
    match msr {
        MSR_EFER => {
            // Up to this instruction the old value decides, from the next one on the new one.
            vcpu.unretire(block, site.index);
            vcpu.retire_one(block.class);
            vcpu.fold();
            vcpu.pmu.map_mut().set_svme(value & EFER_SVME != 0);
            vcpu.arm();
            vcpu.reretire(block, site.index);
            vcpu.unretire_one(block.class);
        }
        apic::MSR_APIC_BASE => vcpu.apic.set_base(value, &mut vcpu.bus),
        apic::MSR_X2APIC_LVTPC if vcpu.apic.set_lvtpc(value) => {
            let access = vcpu.access(block.class);
            vcpu.lvtpc_written(value as u32, site.vaddr, access);
        }
        _ => {}
    }
}
