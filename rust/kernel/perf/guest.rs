// SPDX-License-Identifier: GPL-2.0

//! Lending the CPU's PMU to a guest.
//!
//! While a CPU's PMU is lent, perf has stopped its events there and does not touch the PMU's
//! registers: they belong to whoever has the [`LentPmu`].
//!
//! C headers: [`include/linux/perf_event.h`](srctree/include/linux/perf_event.h),
//! [`arch/x86/include/asm/perf_event.h`](srctree/arch/x86/include/asm/perf_event.h)

use crate::{
    cpu::CpuId,
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    interrupt::LocalInterruptDisabled,
    prelude::*,
    types::NotThreadSafe,
    x86::{
        cpu,
        pmu::{
            amd,
            intel,
            CounterSet,
            Registers, //
        },
    },
};
use core::{
    arch::asm,
    marker::PhantomData,
    mem,
    ptr::{
        self,
        NonNull, //
    },
};

/// The prefix of a memory operand that is this CPU's instance of a variable.
#[cfg(CONFIG_SMP)]
macro_rules! this_cpu {
    () => {
        "gs:"
    };
}
#[cfg(not(CONFIG_SMP))]
macro_rules! this_cpu {
    () => {
        ""
    };
}

/// The number of this CPU, without the call that [`CpuId::current`] is.
#[cfg(CONFIG_SMP)]
#[inline(always)]
fn here(_irq: &LocalInterruptDisabled) -> u32 {
    let number: u32;

    // SAFETY: This CPU's instance of the variable is valid for reads, and nobody writes it any more.
    unsafe {
        asm!(
            concat!("mov {0:e}, dword ptr ", this_cpu!(), "[rip + {1}]"),
            out(reg) number,
            sym bindings::cpu_number,
            options(nostack, readonly, preserves_flags),
        )
    };
    number
}

/// The number of the only CPU.
#[cfg(not(CONFIG_SMP))]
#[inline(always)]
fn here(_irq: &LocalInterruptDisabled) -> u32 {
    0
}

/// Accounts one VM or vCPU that uses the PMU directly.
///
/// While an instance exists, events that count inside guests (`!exclude_guest`) cannot be created,
/// but for the hardlockup detector's, which gives way, and those to which guests give way.
pub struct MediatedVm(());

impl MediatedVm {
    /// Accounts it. May sleep.
    ///
    /// Fails with `EBUSY` while an event exists that counts inside guests.
    // In the caller, as perf exports the function to KVM's modules only: an exported symbol of this
    // crate would let any module call it.
    #[inline(always)]
    pub fn new() -> Result<Self> {
        // SAFETY: The C API requires no more than a context that may sleep, which the type system
        // doesn't track.
        to_result(unsafe { bindings::perf_create_mediated_pmu() })?;
        Ok(Self(()))
    }

    /// Whether perf wants the PMU back, for an event that counts inside guests, from whoever has
    /// promised that ([`Provider::yields`]).
    ///
    /// [`Provider::yields`]: crate::kvm::mediated_pmu::Provider::yields
    #[inline(always)]
    pub fn is_wanted(&self) -> bool {
        // SAFETY: The C API requires nothing.
        unsafe { bindings::perf_mediated_pmu_wanted() }
    }
}

impl Drop for MediatedVm {
    fn drop(&mut self) {
        // SAFETY: `new` accounted the VM that is released here.
        unsafe { bindings::perf_release_mediated_pmu() }
    }
}

/// The guest's view of the local APIC's performance counter entry (LVTPC).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GuestLvtpc(u32);

impl GuestLvtpc {
    /// Takes the value of the guest's LVTPC register (AMD APM volume 2, "Performance Monitor
    /// Counter Interrupts"; Intel SDM volume 3, "Local Vector Table"). Only its mask bit matters to hardware.
    #[inline(always)]
    pub const fn new(value: u32) -> Self {
        Self(value)
    }
}

/// The architectural last branch records of a guest, `struct perf_guest_lbr`: in memory, or in the
/// registers of a CPU, where they may stay when the PMU is no longer lent.
///
/// # Invariants
///
/// `lbr` points to those of a vCPU, which exists for all of `'a`. They are in memory or in the registers
/// of the CPU on which its thread runs, and only that thread loads or changes them.
pub struct GuestLbrs<'a> {
    lbr: NonNull<bindings::perf_guest_lbr>,
    _life: PhantomData<&'a mut bindings::perf_guest_lbr>,
    _here: NotThreadSafe,
}

impl GuestLbrs<'_> {
    /// Wraps a pointer of C.
    ///
    /// # Safety
    ///
    /// As the type invariant says of `lbr`, for all of the result's life.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(lbr: NonNull<bindings::perf_guest_lbr>) -> Self {
        // INVARIANT: By the safety requirement.
        Self {
            lbr,
            _life: PhantomData,
            _here: NotThreadSafe,
        }
    }

    /// Has them in this CPU's registers. How many registers had to be written: none, if that is where
    /// they were.
    ///
    /// Those of another guest that were there are saved first. The CPU records branches into them while
    /// the guest runs and has enabled that.
    #[cfg(CONFIG_CPU_SUP_INTEL)]
    #[inline(always)]
    pub fn load(&mut self, _lent: &mut Registers<'_>) -> u32 {
        // SAFETY: `_lent` is the proof that interrupts are disabled and the PMU of this CPU is lent. By the
        // type invariant the object exists, and they are in memory or here.
        unsafe { bindings::perf_guest_lbr_load(self.lbr.as_ptr()) }
    }

    /// There are none.
    #[cfg(not(CONFIG_CPU_SUP_INTEL))]
    #[inline(always)]
    pub fn load(&mut self, _lent: &mut Registers<'_>) -> u32 {
        0
    }
}

/// The PMU of a CPU, lent to a guest. It is the proof by which the PMU's registers are reached.
///
/// Perf has stopped its events on that CPU, and its PMIs go to the vector of mediated guests. It may
/// stay lent when interrupts are enabled again, as long as the guest's thread stays on the CPU and
/// in the kernel.
///
/// What the types do not enforce: that the guest's values leave the registers before other code can
/// read them. Whoever has one returns it before the thread leaves the CPU or the kernel.
///
/// Dropping gives the PMU back, with all counters and selectors cleared. If one is forgotten
/// ([`core::mem::forget`]), perf does without the PMU of that CPU, and each further
/// [`LentPmu::load`] there fails.
///
/// # Examples
///
/// ```ignore
/// fn enter(irq: &LocalInterruptDisabled, lvtpc: GuestLvtpc) -> Option<LentPmu> {
///     let (lent, dirty) = LentPmu::load(lvtpc, CounterSet::first(6, 0), irq)?;
///     let mut registers = lent.registers(irq)?;
///     // ... write the guest's registers, clear the counters in `dirty` ...
///     Some(lent)
/// }
///
/// fn leave(irq: &LocalInterruptDisabled, lent: LentPmu) {
///     // ... stop the PMU as a whole, save the guest's registers ...
///     lent.put(counters, selectors, false, irq);
/// }
/// ```
///
/// # Invariants
///
/// Perf has lent the PMU of CPU `cpu`; nobody else gives it back.
#[must_use = "the PMU goes back to perf when this is dropped"]
pub struct LentPmu {
    cpu: CpuId,
}

impl LentPmu {
    /// Takes the PMU of this CPU from perf, disabled as a whole. Of `counters`, which the caller
    /// knows, those are returned that may hold what events of the host have counted; the others
    /// are zero, and no event selector is enabled.
    ///
    /// Fails if it is lent already, of which the kernel warns.
    #[inline(always)]
    pub fn load(
        lvtpc: GuestLvtpc,
        counters: CounterSet,
        _irq: &LocalInterruptDisabled,
    ) -> Option<(Self, CounterSet)> {
        let mut counters = counters.bits();

        // SAFETY: Interrupts are disabled, of which `_irq` is the proof; `counters` is valid for
        // reads and writes.
        if !unsafe { bindings::perf_load_guest_pmu(lvtpc.0, &mut counters) } {
            return None;
        }

        let cpu = CpuId::current();

        // INVARIANT: It was not lent, now it is.
        Some((Self { cpu }, CounterSet::from_bits(counters)))
    }

    /// The registers of the PMU, on the CPU where it is lent.
    #[inline(always)]
    pub fn registers<'a>(&'a self, irq: &'a LocalInterruptDisabled) -> Option<Registers<'a>> {
        if !self.is_here(irq) {
            return None;
        }
        // SAFETY: Interrupts are disabled, of which `irq` is the proof. By the type invariant the
        // PMU of this CPU is lent, and stays so while `self` is borrowed.
        Some(unsafe { Registers::new(irq) })
    }

    /// Whether this is the CPU.
    #[inline(always)]
    fn is_here(&self, irq: &LocalInterruptDisabled) -> bool {
        self.cpu.as_u32() == here(irq)
    }

    /// Masks the CPU's PMIs as the guest's LVTPC is now.
    #[inline(always)]
    pub fn route_pmi(&self, lvtpc: GuestLvtpc, irq: &LocalInterruptDisabled) {
        if self.is_here(irq) {
            // SAFETY: Interrupts are disabled, and the PMU of this CPU is lent.
            unsafe { bindings::perf_load_guest_lvtpc(lvtpc.0) };
        }
    }

    /// Whether events of the host wait for this CPU's PMU, if it is lent.
    #[inline(always)]
    pub fn is_contended(_irq: &LocalInterruptDisabled) -> bool {
        let contended: u32;

        // SAFETY: This CPU's instance of the variable is valid for reads, and nobody else writes it
        // while interrupts are disabled.
        unsafe {
            asm!(
                concat!("movzx {0:e}, byte ptr ", this_cpu!(), "[rip + {1}]"),
                out(reg) contended,
                sym bindings::perf_guest_ctx_contended,
                options(nostack, readonly, preserves_flags),
            )
        };
        contended != 0
    }

    /// Gives the PMU back. The caller has stopped it as a whole and cleared its status.
    ///
    /// `counters` may hold something of the guest, as may the selectors of `selectors`; of fixed
    /// counters, their control. Perf clears what it does not program for its own events now. With
    /// `branches` the branch stack is the guest's, too; perf clears it before it uses it.
    #[inline(always)]
    pub fn put(
        self,
        counters: CounterSet,
        selectors: CounterSet,
        branches: bool,
        irq: &LocalInterruptDisabled,
    ) {
        if self.is_here(irq) {
            // SAFETY: Interrupts are disabled. By the type invariant the PMU of this CPU is lent; it
            // is given back once, as `self` is forgotten.
            unsafe { bindings::perf_put_guest_pmu(counters.bits(), selectors.bits(), branches) };
            mem::forget(self);
        }
        // Else it is dropped.
    }

    /// Gives the PMU of this CPU back, whatever it holds.
    ///
    /// # Safety
    ///
    /// Interrupts must be disabled and the PMU must be lent.
    unsafe extern "C" fn abandon(_: *mut c_void) {
        // SAFETY: By the safety requirement.
        let mut registers = unsafe { Registers::new(LocalInterruptDisabled::assume_disabled()) };

        match cpu::Vendor::of_host() {
            cpu::Vendor::Amd => {
                let status = registers.read(amd::GLOBAL_STATUS);

                registers.write(amd::GLOBAL_CTL, 0);
                registers.write(amd::GLOBAL_STATUS_CLR, status);
            }
            _ => {
                let status = registers.read(intel::GLOBAL_STATUS);

                registers.write(intel::GLOBAL_CTRL, 0);
                registers.write(intel::GLOBAL_STATUS_RESET, status);
                if intel::has_perf_metrics() {
                    registers.write(intel::PERF_METRICS, 0);
                }
            }
        }
        // SAFETY: By the safety requirement.
        unsafe { bindings::perf_put_guest_pmu(u64::MAX, u64::MAX, true) };
    }
}

impl Drop for LentPmu {
    fn drop(&mut self) {
        // The CPUs' numbers fit.
        let cpu = self.cpu.as_u32() as c_int;

        // SAFETY: `abandon` takes no data. It is called with interrupts disabled, on the CPU whose
        // PMU is lent by the type invariant; once, as `self` ends.
        #[allow(clippy::useless_conversion, reason = "an int up to Linux 7.2")]
        let failed = unsafe {
            let wait = true.into();

            bindings::smp_call_function_single(cpu, Some(Self::abandon), ptr::null_mut(), wait)
        };

        if failed != 0 {
            pr_err!("perf does without the PMU of CPU {cpu}\n");
        }
    }
}
