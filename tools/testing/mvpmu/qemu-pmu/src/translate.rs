// SPDX-License-Identifier: GPL-2.0
//! What is added to a block when QEMU translates it.

use std::ffi::c_void;
use std::sync::atomic::AtomicI64;

use pmu_model::oracle::stack_load;
use pmu_model::oracle::Mode;
use pmu_model::Class;

use crate::api;
use crate::block;
use crate::block::Block;
use crate::block::Insn;
use crate::block::Site;
use crate::callbacks;
use crate::decode;
use crate::decode::Kind;
use crate::demand;
use crate::emit::Emit;
use crate::emit::Instruction;
use crate::guest;
use crate::registers::handles;
use crate::reset;
use crate::vcpu;
use crate::vcpu::Vcpu;

/// RFLAGS: virtual-8086 mode.
const RFLAGS_VM: u64 = 1 << 17;

/// Adds to the block `tb` what keeps the counts.
///
/// # Safety
///
/// To be called by QEMU in a vCPU's thread, with a block that was just translated.
pub unsafe extern "C-unwind" fn translated(tb: *mut api::Tb, _data: *mut c_void) {
    let Some(index) = vcpu::current() else {
        return;
    };
    // SAFETY: This is the vCPU's thread, and the only use in this callback.
    let vcpu = unsafe { vcpu::get(index) };
    // SAFETY: The block is valid during the callback.
    let (vaddr, len) = unsafe {
        (
            api::qemu_plugin_tb_vaddr(tb),
            api::qemu_plugin_tb_n_insns(tb),
        )
    };
    let real_mode = vcpu.bus.register(handles().cr0) & reset::CR0_PE == 0;
    let may_start = real_mode && reset::may_start_at(vaddr);
    if may_start {
        reset::check(vcpu, vaddr);
    }
    let in_guest = vcpu.in_guest();
    let class = Class::new(in_guest, !real_mode && user_mode(vcpu));

    let insns: Vec<Instruction> = (0..len)
        // SAFETY: The block has `len` instructions, and is being translated.
        .map(|n| unsafe { Instruction::new(api::qemu_plugin_tb_get_insn(tb, n)) })
        .collect();
    let on = vcpu.version.is_some();
    let kinds: Vec<Kind> = insns.iter().map(|i| decode::kind(&i.code)).collect();
    let watching = on && vcpu.oracle != Mode::Off;
    let watching_stack = watching && class == Class::HostKernel;
    let stack_loads: Vec<_> = (insns.iter())
        .map(|insn| stack_load(insn.bytes()).filter(|_| watching_stack))
        .collect();
    let callbacks: Vec<_> = kinds.iter().map(|k| callback_of(*k, class, on)).collect();
    let block = Block {
        class,
        vaddr,
        insns: (insns.iter().zip(&kinds))
            .zip(&stack_loads)
            .map(|((insn, kind), load)| {
                let insn = Insn::new(
                    insn.vaddr,
                    insn.len,
                    *kind,
                    decode::sources(&insn.code, *kind),
                );
                insn.loading_stack(*load)
            })
            .collect(),
        sites: (insns.iter().enumerate())
            .filter(|(index, _)| callbacks[*index].is_some() || stack_loads[*index].is_some())
            .map(|(index, insn)| Site::new(index, insn.vaddr))
            .collect(),
        counted: demand::all_counted(),
        listed: AtomicI64::new(0),
        base: match demand::branches_seen() {
            true => vaddr.wrapping_sub(vcpu.bus.register(handles().rip)),
            false => 0,
        },
        branch: insns
            .last()
            .filter(|_| demand::branches_seen())
            .and_then(|insn| insn.branch(vaddr)),
    };
    // SAFETY: Just made, and kept as long as translated code has it.
    let block = unsafe { &*block::keep(block) };

    let emit = Emit { tb, block };
    if !in_guest && guest::follows_vmrun(&mut vcpu.bus, vaddr) {
        emit.at_start(callbacks::after_vmrun);
    }
    if on {
        if may_start {
            emit.at_start(callbacks::first_block);
        }
        if watching && class == Class::HostUser {
            emit.watching_user();
        }
        if class == Class::HostKernel && vcpu.sweep.is_on() {
            emit.sweeping(vcpu.sweep.may_begin_at(vaddr));
        }
        if demand::branches_seen() {
            emit.branches(insns.last());
        }
        emit.counting(insns.last());
        // Behind what leaves the block before it begins.
        if vcpu.lister.is_on() {
            emit.listing();
        }
    }
    for site in &block.sites {
        if let Some((callback, flags)) = callbacks[site.index] {
            insns[site.index].before(callback, flags, site);
        }
        if stack_loads[site.index].is_some() {
            insns[site.index].before(callbacks::stack_load, api::CB_RW_REGS, site);
        }
        if site.insn().kind == Kind::Cpuid {
            if let Some(next) = insns.get(site.index + 1) {
                next.before(callbacks::cpuid_done, api::CB_RW_REGS, site);
            }
        }
    }
    if !on {
        return;
    }
    for insn in &insns {
        if demand::MEMORY.into_iter().any(demand::counted) {
            insn.count_memory(class);
        }
        if class == Class::HostKernel && decode::is_fixmap_store(&insn.code) {
            insn.on_store(callbacks::fixmap_store);
        }
    }
}

/// What is called before an instruction of this kind.
fn callback_of(
    kind: Kind,
    class: Class,
    on: bool,
) -> Option<(api::VcpuCallback, api::CallbackFlags)> {
    match kind {
        Kind::Vmrun if class == Class::HostKernel => Some((callbacks::vmrun, api::CB_RW_REGS)),
        Kind::Rdmsr | Kind::Wrmsr if on => Some((callbacks::msr_access, api::CB_RW_REGS_PC)),
        Kind::Rdpmc if on => Some((callbacks::rdpmc, api::CB_RW_REGS_PC)),
        Kind::Cpuid if on => Some((callbacks::cpuid, api::CB_RW_REGS)),
        Kind::RepString if on => Some((callbacks::rep_string, api::CB_R_REGS)),
        _ => None,
    }
}

/// Whether the CPU is in protected mode at CPL > 0.
fn user_mode(vcpu: &mut Vcpu) -> bool {
    vcpu.bus.register(handles().cs) & 3 != 0 || vcpu.bus.register(handles().eflags) & RFLAGS_VM != 0
}
