// SPDX-License-Identifier: GPL-2.0

//! The CPUs, which take turns: one process, one thread, one time for all.
//!
//! A turn ends at the end of a number of ticks, between two instructions, or when the CPU halts. The
//! next CPU goes on at the tick at which the last one has stopped: the TSC, which is the ticks,
//! never goes back. While all CPUs are halted, time goes on to the next timer that is due. So a
//! second run is the same as the first.

use crate::core;
use crate::gather;
use crate::layout;
use crate::lbr;
use crate::msr;
use crate::oracle;
use crate::per_cpu::PerCpu;
use crate::pmu;
use crate::pt;
use crate::single::SingleCell;
use crate::stop;
use crate::timers;
use crate::watch;

/// Ticks that a turn has.
const TURN: u64 = 10_000;

/// Sources of a reset.
const RESET_INIT: u32 = 10;
const RESET_POWER_ON: u32 = 11;

/// IA32_APIC_BASE: the bootstrap processor.
const BOOTSTRAP_PROCESSOR: u64 = 1 << 8;

static COUNT: SingleCell<usize> = SingleCell::new(1);
/// Whose turn it is.
static CURRENT: SingleCell<usize> = SingleCell::new(0);

/// What each CPU has of its own, besides the core.
static PER_CPU: [&[&dyn PerCpu]; 7] = [
    &pmu::PER_CPU,
    &gather::PER_CPU,
    &msr::PER_CPU,
    &lbr::PER_CPU,
    &pt::PER_CPU,
    &oracle::PER_CPU,
    &watch::PER_CPU,
];

/// How many there are.
#[inline(always)]
pub fn count() -> usize {
    COUNT.get()
}

/// The number of the CPU whose turn it is: that of its local APIC.
pub fn current() -> usize {
    CURRENT.get()
}

/// Makes so many, for which the core was loaded, each by `equip` when it is its turn. The first one
/// has the turn afterwards; the others wait for a start-up IPI.
pub fn create(count: usize, equip: impl Fn(usize)) -> Result<(), String> {
    COUNT.set(count);
    for cpu in 0..count {
        give_turn(cpu);
        equip(cpu);
        core::cpu_new(0);
        layout::verify()?;
        if cpu > 0 {
            // The core wants the number of its only CPU to be 0.
            layout::set_lapic_id(cpu as u32);
            reset(RESET_POWER_ON);
        }
    }
    give_turn(0);
    core::cpu_clear_killbit(0);
    Ok(())
}

/// Has CPU number `next` go on where time is.
pub fn give_turn(next: usize) {
    let now = timers::now();
    let last = CURRENT.get();
    if next != last {
        for of_cpu in PER_CPU.into_iter().flatten() {
            of_cpu.exchange(last, next);
        }
        CURRENT.set(next);
    }
    core::select(next);
    timers::go_on_at(now);
}

/// Runs them until the machine ends.
pub fn run() {
    if count() == 1 {
        while core::cpu_killbit(0) == 0 {
            core::cpu_loop(0);
        }
        return;
    }
    while let Some(next) = next() {
        if next != current() {
            give_turn(next);
        }
        timers::end_turn_in(TURN);
        // Whether there are events stays as it is.
        layout::KILL.set(0u8);
        core::cpu_loop(0);
    }
}

/// The next one that has something to do; time passes until there is one. `None`: the machine has
/// ended.
fn next() -> Option<usize> {
    while stop::reason().is_none() {
        let mut after = (1..=count()).map(|n| (current() + n) % count());
        if let Some(cpu) = after.find(|cpu| core::on(*cpu, can_run)) {
            return Some(cpu);
        }
        if !timers::wait() {
            stop::now(stop::Reason::HaltedForGood);
        }
    }
    None
}

/// The core's activity states.
mod activity {
    pub const ACTIVE: u32 = 0;
    pub const HALTED: u32 = 1;
    pub const WAITS_FOR_SIPI: u32 = 3;
    /// Monitored wait, with interrupts off.
    pub const WAITS_FOR_ANY_INTERRUPT: u32 = 5;
}

/// Whether the selected CPU is not halted, or something wakes it: as `handleWaitForEvent` of the core
/// decides.
fn can_run() -> bool {
    /// From outside.
    const INTERRUPTS: u32 = 0x1c00;
    /// What else ends a halt when it is not masked.
    const OTHER_EVENTS: u32 = 0xe0b7;
    let pending: u32 = layout::PENDING_EVENTS.get();
    let state: u32 = layout::ACTIVITY.get();
    match state {
        activity::ACTIVE => true,
        activity::WAITS_FOR_SIPI => false,
        _ => {
            let wakes = layout::takes_interrupts() || state == activity::WAITS_FOR_ANY_INTERRUPT;
            pending & INTERRUPTS != 0 && wakes
                || pending & !layout::MASKED_EVENTS.get::<u32>() & OTHER_EVENTS != 0
        }
    }
}

/// Whether none has anything to do.
pub fn all_wait() -> bool {
    (0..count()).all(|cpu| core::on(cpu, || layout::ACTIVITY.get::<u32>() != activity::ACTIVE))
}

/// Whether all CPUs are halted and take no interrupts, so that nothing happens any more; that
/// of the current one is known.
pub fn others_are_halted_for_good() -> bool {
    let is_halted = || match layout::ACTIVITY.get::<u32>() {
        activity::WAITS_FOR_SIPI => true,
        activity::HALTED => !layout::takes_interrupts() && !can_run(),
        _ => false,
    };
    let mut others = (0..count()).filter(|cpu| *cpu != current());
    others.all(|cpu| core::on(cpu, is_halted))
}

/// The instructions that all have executed.
pub fn instructions() -> u64 {
    let of_cpu = |cpu| core::on(cpu, || layout::ICOUNT.get::<u64>());
    (0..count()).map(of_cpu).sum()
}

/// The current CPU has halted.
pub fn halted() {
    if count() > 1 {
        core::cpu_set_killbit(0);
    }
}

/// Replaces `BX_CPU_C::reset(source)`: all but the first CPU wait for a start-up IPI then (SDM volume
/// 3, "MP Initialization Protocol Algorithm for MP Systems").
#[export_name = "_ZN8BX_CPU_C5resetEj"]
extern "C-unwind" fn reset(source: u32) {
    core::core_reset(source);
    if source == RESET_INIT {
        pmu::init();
    }
    if current() == 0 && source == RESET_INIT {
        // There is no firmware for it to start with.
        stop::now(stop::Reason::Reset);
    }
    if current() > 0 {
        let base: u64 = layout::APIC_BASE.get();
        layout::APIC_BASE.set(base & !BOOTSTRAP_PROCESSOR);
        core::core_enter_sleep_state(activity::WAITS_FOR_SIPI);
        halted();
    }
}

/// Replaces `BX_CPU_C::handleAsyncEvent()`: a CPU that INIT has stopped executes no instruction.
#[export_name = "_ZN8BX_CPU_C16handleAsyncEventEv"]
extern "C-unwind" fn handle_events() -> bool {
    pt::before_events();
    core::core_handle_events() || layout::ACTIVITY.get::<u32>() != activity::ACTIVE
}
