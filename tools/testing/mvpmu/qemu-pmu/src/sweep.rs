// SPDX-License-Identifier: GPL-2.0
//! The sweep: an interrupt before each instruction of a part of the run, in the kernel of the host.
//!
//! (For the Intel machine, which copies itself, see bochs-vmm/src/sweep.rs.) Here the host repeats the
//! part. In each run one interrupt comes, before the first instruction that is due and had none yet:
//! if two runs differ, as the clock's interrupts do, nothing is missed. The host compares the results,
//! and ends when there was none.
//!
//! In a place, up to the interrupt, a block is one instruction. One CPU is swept: that which has named
//! the places, and it has to be the only one that runs.

use std::collections::HashMap;
use std::collections::HashSet;
use std::ffi::CStr;

use pmu_model::sweep::Every;
use pmu_model::sweep::Places;
use pmu_model::sweep::BEGIN;
use pmu_model::sweep::END;
use pmu_model::sweep::MISSED;
use pmu_model::sweep::PLACE;

use crate::demand;
use crate::registers::handles;
use crate::symbols::symbols;
use crate::vcpu::Vcpu;

/// What is injected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An NMI for no reason.
    Nmi,
    /// A PMI as LVTPC has it, without an overflow: one that comes late.
    Pmi,
    /// The local APIC's timer.
    Timer,
    /// A byte at the serial port: somebody may wait for it.
    Byte,
}

impl Kind {
    fn numbered(n: u64) -> Option<Kind> {
        const KINDS: [Kind; 4] = [Kind::Nmi, Kind::Pmi, Kind::Timer, Kind::Byte];
        KINDS.get(n as usize).copied()
    }
}

/// A run of the part.
struct Run {
    /// How often each instruction was executed.
    executed: HashMap<u64, u32>,
    /// Before which one the interrupt came.
    injected: Option<u64>,
}

/// What a vCPU is swept by.
#[derive(Default)]
pub struct Sweep {
    places: Places,
    /// What comes in each run, and before which instructions.
    plan: Option<(Kind, Every)>,
    /// Instructions that are not due any more: address, and how often the run had executed it.
    passed: HashSet<(u64, u32)>,
    run: Option<Run>,
    /// It is in a place, and wants blocks of one instruction.
    steps: bool,
}

impl Sweep {
    /// Whether there is something to be swept.
    pub fn is_on(&self) -> bool {
        !self.places.is_empty()
    }

    /// Whether the block at this address may be where it begins.
    pub fn may_begin_at(&self, vaddr: u64) -> bool {
        self.places.may_begin_at(vaddr)
    }

    /// Whether an interrupt is to come in one of the places, now that the instruction at `rip` is about
    /// to be executed.
    fn is_inside(&mut self, rip: u64, rsp: u64) -> bool {
        let waits = self.run.as_ref().is_some_and(|run| run.injected.is_none());
        waits && self.places.is_inside(rip, rsp)
    }

    /// The instruction at `rip`, which is swept, is about to be executed: what is to come before it.
    fn due(&mut self, rip: u64) -> Option<Kind> {
        let (kind, every) = self.plan?;
        let run = self.run.as_mut().filter(|run| run.injected.is_none())?;
        let times = run.executed.entry(rip).or_default();
        *times += 1;
        if *times > every.times || !self.passed.insert((rip, *times)) {
            return None;
        }
        let due = self.passed.len().is_multiple_of(every.nth as usize);
        due.then(|| {
            run.injected = Some(rip);
            kind
        })
    }
}

impl Vcpu {
    /// The host has executed CPUID of the machine's leaf, with this in ECX: the answer, if there is
    /// one.
    pub fn sweep_mark(&mut self, number: u32) -> Option<u64> {
        let rbx = self.bus.register(handles().rbx);
        let rdx = self.bus.register(handles().rdx);
        match number {
            PLACE => {
                self.sweep.places.add(rbx..rdx);
                self.translate_anew();
                None
            }
            BEGIN => {
                let plan = Kind::numbered(rdx).map(|kind| (kind, Every::from_rbx(rbx)));
                if std::mem::replace(&mut self.sweep.plan, plan) != plan {
                    self.sweep.passed.clear();
                }
                self.sweep.places.leave();
                self.sweep.run = Some(Run {
                    executed: HashMap::new(),
                    injected: None,
                });
                None
            }
            END => self.sweep.run.take()?.injected,
            MISSED => self.sweep.places.not_entered().next(),
            _ => None,
        }
    }

    /// The block at `rip` of the host's kernel is about to be executed. Whether it is not: an interrupt
    /// was sent, which comes before it, or it has to be executed in steps.
    pub fn sweep_step(&mut self, rip: u64) -> bool {
        let rsp = self.bus.register(handles().rsp);
        let inside = self.sweep.is_inside(rip, rsp);
        if self.step(inside) {
            return true;
        }
        let Some(kind) = inside.then(|| self.sweep.due(rip)).flatten() else {
            return false;
        };
        self.step(false);
        let interrupt = match kind {
            Kind::Nmi => Some(self.apic.nmi(&mut self.bus)),
            Kind::Pmi => self.apic.performance_interrupt(&mut self.bus),
            Kind::Timer => self.apic.timer_interrupt(&mut self.bus),
            Kind::Byte => return type_byte(b'x'),
        };
        if let Some(interrupt) = &interrupt {
            interrupt.send(&mut self.bus);
        }
        interrupt.is_some()
    }

    /// From here on a block is one instruction, or no longer. True if that begins: this block may have
    /// more.
    fn step(&mut self, wanted: bool) -> bool {
        if std::mem::replace(&mut self.sweep.steps, wanted) == wanted {
            return false;
        }
        demand::want_steps(wanted);
        self.board().inside = wanted.into();
        wanted
    }
}

/// Types a byte at the first serial port. False when there is none.
fn type_byte(byte: u8) -> bool {
    /// The console; the monitor shares it, and this is what is below both.
    const SERIAL: &CStr = c"serial0-base";
    let symbols = symbols();
    // SAFETY: In a callback of translated code the vCPU's thread does not have the lock; it has it
    // only between these two calls. A character device is there as long as the machine.
    unsafe {
        (symbols.bql_lock_impl)(c"sweep".as_ptr(), 0);
        let serial = (symbols.qemu_chr_find)(SERIAL.as_ptr());
        if !serial.is_null() {
            (symbols.qemu_chr_be_write)(serial, &byte, 1);
        }
        (symbols.bql_unlock)();
        !serial.is_null()
    }
}
