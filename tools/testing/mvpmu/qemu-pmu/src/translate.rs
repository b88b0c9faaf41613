// SPDX-License-Identifier: GPL-2.0
//! What is added to a block when QEMU translates it.

use std::ffi::c_uint;
use std::ffi::c_void;

use pmu_model::Class;
use pmu_model::Source;

use crate::api;
use crate::apic;
use crate::block;
use crate::block::Block;
use crate::block::Insn;
use crate::block::Site;
use crate::board;
use crate::callback_with_origin;
use crate::count;
use crate::cpuid;
use crate::decode;
use crate::decode::Kind;
use crate::demand;
use crate::leave;
use crate::leave::Origin;
use crate::msr;
use crate::registers::handles;
use crate::reset;
use crate::svm;
use crate::vcpu;
use crate::vcpu::Vcpu;

/// The longest instruction.
const INSTRUCTION_MAX: usize = 15;
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
    let guest = vcpu.in_guest();
    let class = Class::new(guest, !real_mode && user_mode(vcpu));

    let insns: Vec<Instruction> = (0..len)
        // SAFETY: The block has `len` instructions.
        .map(|n| Instruction::new(unsafe { api::qemu_plugin_tb_get_insn(tb, n) }))
        .collect();
    let on = vcpu.version.is_some();
    let kinds: Vec<Kind> = insns.iter().map(|i| decode::kind(i.bytes())).collect();
    let callbacks: Vec<_> = kinds.iter().map(|k| callback_of(*k, class, on)).collect();
    let block = Block {
        class,
        vaddr,
        insns: (insns.iter().zip(&kinds))
            .map(|(insn, kind)| Insn::new(insn.vaddr, insn.len, *kind))
            .collect(),
        sites: (insns.iter().zip(&callbacks).enumerate())
            .filter(|(_, (_, callback))| callback.is_some())
            .map(|(index, (insn, _))| Site::new(index, insn.vaddr))
            .collect(),
        counts_branches: demand::counted(Source::Branches),
    };
    // SAFETY: Just made, and kept as long as translated code has it.
    let block = unsafe { &*block::keep(block) };

    let emit = Emit { tb, block };
    if !guest && svm::follows_vmrun(&mut vcpu.bus, vaddr) {
        emit.at_start(after_vmrun);
    }
    if on {
        if may_start {
            emit.at_start(first_block);
        }
        emit.counting(insns.last());
    }
    for site in &block.sites {
        if let Some((callback, flags)) = callbacks[site.index] {
            insns[site.index].before(callback, flags, site);
        }
        if site.insn().kind == Kind::Cpuid {
            if let Some(next) = insns.get(site.index + 1) {
                next.before(cpuid_done, api::CB_RW_REGS, site);
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
        if class == Class::HostKernel && decode::is_fixmap_store(insn.bytes()) {
            insn.on_store(fixmap_store);
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
        Kind::Vmrun if class == Class::HostKernel => Some((vmrun, api::CB_RW_REGS)),
        Kind::Rdmsr | Kind::Wrmsr if on => Some((msr_access, api::CB_RW_REGS_PC)),
        Kind::Rdpmc if on => Some((rdpmc, api::CB_RW_REGS_PC)),
        Kind::Cpuid if on => Some((cpuid, api::CB_RW_REGS)),
        Kind::RepString if on => Some((rep_string, api::CB_R_REGS)),
        _ => None,
    }
}

/// Whether the CPU is in protected mode at CPL > 0.
fn user_mode(vcpu: &mut Vcpu) -> bool {
    vcpu.bus.register(handles().cs) & 3 != 0 || vcpu.bus.register(handles().eflags) & RFLAGS_VM != 0
}

/// A block that is being translated, with what is remembered of it.
#[derive(Clone, Copy)]
struct Emit<'a> {
    tb: *mut api::Tb,
    block: &'a Block,
}

impl Emit<'_> {
    fn data(self) -> *mut c_void {
        std::ptr::from_ref(self.block).cast_mut().cast()
    }

    /// Calls when the block starts.
    fn at_start(self, callback: api::VcpuCallback) {
        // SAFETY: The block is being translated; ours outlives it.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_cb(
                self.tb,
                callback,
                api::CB_RW_REGS,
                self.data(),
            );
        }
    }

    /// Calls when the block starts and a field of the scoreboard compares so.
    fn at_start_if(
        self,
        field: api::U64Field,
        condition: api::Condition,
        value: u64,
        callback: api::VcpuCallback,
        flags: api::CallbackFlags,
    ) {
        // SAFETY: As above.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_cond_cb(
                self.tb,
                callback,
                flags,
                condition,
                field,
                value,
                self.data(),
            );
        }
    }

    /// Changes a field of the scoreboard when the block starts.
    fn inline(self, op: api::InlineOp, field: api::U64Field, value: u64) {
        // SAFETY: As above.
        unsafe {
            api::qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(self.tb, op, field, value);
        }
    }

    /// Keeps the accumulators. The order matters: when one of the callbacks leaves the block,
    /// nothing of it has been added and it is not open.
    fn counting(self, last: Option<&Instruction>) {
        let class = self.block.class;
        let instructions = board::events(Source::Instructions, class);
        let branches = board::events(Source::Branches, class);
        let open = self.block.address();
        let closed = open | board::CLOSED;
        let (n, n_branches) = self.block.counts_from(0);

        self.at_start_if(
            board::block(),
            api::COND_LT,
            board::CLOSED,
            left_open,
            api::CB_RW_REGS,
        );
        self.at_start_if(
            instructions,
            api::COND_GE,
            count::ALARM,
            alarm,
            api::CB_RW_REGS_PC,
        );
        self.inline(api::INLINE_ADD_U64, instructions, n);
        if n_branches > 0 {
            self.inline(api::INLINE_ADD_U64, branches, n_branches);
        }
        // A block of one instruction cannot be left in the middle.
        match last.filter(|_| n > 1) {
            None => self.inline(api::INLINE_STORE_U64, board::block(), closed),
            Some(last) => {
                self.inline(api::INLINE_STORE_U64, board::block(), open);
                last.inline(api::INLINE_STORE_U64, board::block(), closed);
            }
        }
    }
}

/// An instruction that is being translated.
struct Instruction {
    insn: *mut api::Insn,
    vaddr: u64,
    len: usize,
    bytes: [u8; INSTRUCTION_MAX],
}

impl Instruction {
    fn new(insn: *mut api::Insn) -> Instruction {
        let mut bytes = [0; INSTRUCTION_MAX];
        // SAFETY: The instruction is being translated; the array is as long as is said.
        unsafe {
            api::qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len());
            Instruction {
                insn,
                vaddr: api::qemu_plugin_insn_vaddr(insn),
                len: api::qemu_plugin_insn_size(insn),
                bytes,
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(INSTRUCTION_MAX)]
    }

    /// Calls before it is executed.
    fn before(&self, callback: api::VcpuCallback, flags: api::CallbackFlags, site: &Site) {
        let data = std::ptr::from_ref(site).cast_mut().cast();
        // SAFETY: It is being translated; the site outlives the translation.
        unsafe { api::qemu_plugin_register_vcpu_insn_exec_cb(self.insn, callback, flags, data) };
    }

    /// Calls at each store.
    fn on_store(&self, callback: api::MemCallback) {
        // SAFETY: It is being translated.
        unsafe {
            api::qemu_plugin_register_vcpu_mem_cb(
                self.insn,
                callback,
                api::CB_R_REGS,
                api::MEM_W,
                std::ptr::null_mut(),
            );
        }
    }

    /// Changes a field of the scoreboard before it is executed.
    fn inline(&self, op: api::InlineOp, field: api::U64Field, value: u64) {
        // SAFETY: It is being translated.
        unsafe {
            api::qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(self.insn, op, field, value);
        }
    }

    /// Counts its memory accesses.
    fn count_memory(&self, class: Class) {
        let count = |rw, source| {
            // SAFETY: It is being translated.
            unsafe {
                api::qemu_plugin_register_vcpu_mem_inline_per_vcpu(
                    self.insn,
                    rw,
                    api::INLINE_ADD_U64,
                    board::events(source, class),
                    1,
                );
            }
        };
        if decode::is_load_store(self.bytes()) {
            count(api::MEM_W, Source::LoadStores);
        } else {
            count(api::MEM_R, Source::Loads);
            count(api::MEM_W, Source::Stores);
        }
    }
}

/// What callbacks get: the vCPU, and what was registered.
///
/// # Safety
///
/// Once in a callback of QEMU in the vCPU's thread; `data` is what was registered.
unsafe fn context<'a, T>(index: c_uint, data: *mut c_void) -> (&'a mut Vcpu, &'a T) {
    // SAFETY: The caller's promise. What was registered lives as long as the translation.
    unsafe { (vcpu::get(index), &*data.cast_const().cast()) }
}

unsafe extern "C-unwind" fn after_vmrun(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, _) = unsafe { context::<Block>(index, data) };
    vcpu.in_guest();
}

unsafe extern "C-unwind" fn first_block(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    reset::check(vcpu, block.vaddr);
}

/// The block before was left in the middle, or CPUID was its last instruction.
unsafe extern "C-unwind" fn left_open(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    cpuid::executed(vcpu);
    if vcpu.board().has_cpuid() {
        vcpu.board().leave();
    } else {
        vcpu.broke_at(block.vaddr, false);
    }
}

callback_with_origin!(
    /// An accumulator is full.
    alarm => on_alarm
);

unsafe extern "C-unwind" fn on_alarm(
    index: c_uint,
    data: *mut c_void,
    host_pc: usize,
    env: *mut c_void,
) {
    // SAFETY: Registered with a block.
    let (vcpu, block) = unsafe { context::<Block>(index, data) };
    vcpu.suspend_rep(block);
    if vcpu.fold() {
        // The interrupt comes before the block.
        leave::restore(vcpu, Origin { host_pc, env });
        // SAFETY: There is nothing to drop in this frame, the only one.
        unsafe { leave::to_main_loop(vcpu) }
    }
}

unsafe extern "C-unwind" fn vmrun(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    vcpu.vmrun(site);
}

callback_with_origin!(msr_access => on_msr_access);

unsafe extern "C-unwind" fn on_msr_access(
    index: c_uint,
    data: *mut c_void,
    host_pc: usize,
    env: *mut c_void,
) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    // SAFETY: There is nothing to drop in this frame, the only one.
    unsafe { msr::execute(vcpu, site, Origin { host_pc, env }) };
}

callback_with_origin!(rdpmc => on_rdpmc);

unsafe extern "C-unwind" fn on_rdpmc(
    index: c_uint,
    data: *mut c_void,
    host_pc: usize,
    env: *mut c_void,
) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    // SAFETY: There is nothing to drop in this frame, the only one.
    unsafe { msr::execute_rdpmc(vcpu, site, Origin { host_pc, env }) };
}

unsafe extern "C-unwind" fn cpuid(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    cpuid::execute(vcpu, site);
}

unsafe extern "C-unwind" fn cpuid_done(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, _) = unsafe { context::<Site>(index, data) };
    cpuid::executed(vcpu);
}

unsafe extern "C-unwind" fn rep_string(index: c_uint, data: *mut c_void) {
    // SAFETY: Registered with a site.
    let (vcpu, site) = unsafe { context::<Site>(index, data) };
    vcpu.enter_rep(site);
}

unsafe extern "C-unwind" fn fixmap_store(index: c_uint, info: u32, vaddr: u64, _data: *mut c_void) {
    if vaddr & 0xfff != apic::LVTPC {
        return;
    }
    // SAFETY: In a callback of a memory access, as the calls demand.
    let physical = unsafe {
        let hwaddr = api::qemu_plugin_get_hwaddr(info, vaddr);
        if hwaddr.is_null() {
            return;
        }
        api::qemu_plugin_hwaddr_phys_addr(hwaddr)
    };
    // SAFETY: In the vCPU's thread, once.
    let vcpu = unsafe { vcpu::get(index) };
    let access = vcpu.access(Class::HostKernel);
    apic::stored(vcpu, physical, access);
}
