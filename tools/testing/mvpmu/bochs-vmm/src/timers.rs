// SPDX-License-Identifier: GPL-2.0

//! Time: the core counts ticks (one per instruction, ten per turn while halted)
//! and asks here for what is due. Host time plays no part.

use std::ffi::c_char;
use std::ffi::c_void;

use crate::core;
use crate::layout;
use crate::single::SingleCell;
use crate::single::SingleThread;

/// What a timer calls.
pub type Callback = unsafe extern "C-unwind" fn(*mut c_void);

/// Frequency of the TSC in MHz, unless told otherwise: one tick per instruction, so many to a
/// microsecond of the guest.
pub const TSC_MHZ: u32 = 200;

/// Ticks between two looks at the timers when none is due.
const IDLE_PERIOD: u64 = 1_000_000;

#[derive(Clone, Copy)]
struct Timer {
    /// Whose it is: the callback and its argument are those of its copy of the core.
    cpu: usize,
    callback: Callback,
    argument: *mut c_void,
    period: u64,
    due: u64,
    active: bool,
    periodic: bool,
}

struct Timers(Vec<Timer>);

static TIMERS: SingleThread<Timers> = SingleThread::new(Timers(Vec::new()));

impl Timers {
    fn add(&mut self, timer: Timer) -> usize {
        self.0.push(timer);
        self.0.len() - 1
    }

    fn start(&mut self, number: usize, now: u64, ticks: u64, periodic: bool) {
        if let Some(timer) = self.0.get_mut(number) {
            timer.period = ticks.max(1);
            timer.due = now + timer.period;
            timer.periodic = periodic;
            timer.active = true;
        }
    }

    fn stop(&mut self, number: usize) {
        if let Some(timer) = self.0.get_mut(number) {
            timer.active = false;
        }
    }

    /// Takes one timer that is due at `now`, the first from `from` on.
    fn take_due(&mut self, from: usize, now: u64) -> Option<(usize, Timer)> {
        let (number, timer) = self
            .0
            .iter_mut()
            .enumerate()
            .skip(from)
            .find(|(_, timer)| timer.active && timer.due <= now)?;
        if timer.periodic {
            timer.due = now + timer.period;
        } else {
            timer.active = false;
        }
        Some((number, *timer))
    }

    /// When the next one is due.
    fn next_due(&self) -> Option<u64> {
        let active = self.0.iter().filter(|timer| timer.active);
        active.map(|timer| timer.due).min()
    }

    /// Ticks from `now` until the next look, which is not after `end`.
    fn next(&self, now: u64, end: u64) -> u32 {
        let due = self.next_due().unwrap_or(u64::MAX);
        let next = due.min(end).min(now + IDLE_PERIOD);
        next.saturating_sub(now).max(1) as u32
    }
}

/// When the turn of the CPU ends.
static TURN_ENDS: SingleCell<u64> = SingleCell::new(u64::MAX);

/// Ticks since the start of the machine.
pub fn now() -> u64 {
    let passed = layout::PERIOD
        .get::<u32>()
        .wrapping_sub(layout::COUNTDOWN.get());
    layout::TOTAL.get::<u64>() + u64::from(passed)
}

/// Starts the clock; before the CPU is made.
pub fn begin() {
    layout::TOTAL.set(0u64);
    restart_countdown(0, IDLE_PERIOD as u32);
}

fn restart_countdown(now: u64, ticks: u32) {
    layout::TOTAL.set(now);
    layout::PERIOD.set(ticks);
    layout::COUNTDOWN.set(ticks);
}

fn reschedule() {
    let now = now();
    go_on_at(now);
}

/// Sets the clock, of a CPU that has the turn from now on.
pub fn go_on_at(now: u64) {
    let end = TURN_ENDS.get();
    restart_countdown(now, TIMERS.with(|timers| timers.next(now, end)));
}

/// Ends the turn in so many ticks.
pub fn end_turn_in(ticks: u64) {
    TURN_ENDS.set(now() + ticks);
    reschedule();
}

/// All CPUs wait: lets time pass until a timer is due. False when there is none.
pub fn wait() -> bool {
    let Some(due) = TIMERS.with(|timers| timers.next_due()) else {
        return false;
    };
    restart_countdown(due.max(now()), 1);
    look();
    true
}

/// Adds a timer of the machine that calls `callback` every `ticks`.
pub fn every(ticks: u64, callback: Callback) {
    let due = now() + ticks;
    TIMERS.with(|timers| {
        timers.add(Timer {
            cpu: core::selected(),
            callback,
            argument: std::ptr::null_mut(),
            period: ticks,
            due,
            active: true,
            periodic: true,
        })
    });
    reschedule();
}

/// Replaces `bx_pc_system_c::register_timer_ticks`.
///
/// The core's constructors call it while the core is being loaded, for timers
/// that do not run: there is no time yet.
#[export_name = "_ZN14bx_pc_system_c20register_timer_ticksEPvPFvS0_EmbbPKc"]
extern "C-unwind" fn register(
    _this: *mut c_void,
    argument: *mut c_void,
    callback: Callback,
    ticks: u64,
    periodic: bool,
    active: bool,
    _name: *const c_char,
) -> i32 {
    let due = if active { now() + ticks } else { 0 };
    TIMERS.with(|timers| {
        timers.add(Timer {
            cpu: core::selected(),
            callback,
            argument,
            period: ticks,
            due,
            active,
            periodic,
        })
    }) as i32
}

/// Replaces `bx_pc_system_c::activate_timer_ticks`.
#[export_name = "_ZN14bx_pc_system_c20activate_timer_ticksEjmb"]
extern "C-unwind" fn activate(_this: *mut c_void, number: u32, ticks: u64, periodic: bool) {
    let now = now();
    TIMERS.with(|timers| timers.start(number as usize, now, ticks, periodic));
    reschedule();
}

/// Replaces `bx_pc_system_c::deactivate_timer`.
#[export_name = "_ZN14bx_pc_system_c16deactivate_timerEj"]
extern "C-unwind" fn deactivate(_this: *mut c_void, number: u32) {
    TIMERS.with(|timers| timers.stop(number as usize));
}

/// Replaces `bx_pc_system_c::countdownEvent`: the countdown reached 0.
#[export_name = "_ZN14bx_pc_system_c14countdownEventEv"]
extern "C-unwind" fn countdown_event(_this: *mut c_void) {
    look();
    if now() >= TURN_ENDS.get() {
        core::cpu_set_killbit(0);
    }
}

/// Calls what is due.
fn look() {
    let now = now();
    restart_countdown(now, IDLE_PERIOD as u32);
    let mut from = 0;
    while let Some((number, timer)) = TIMERS.with(|timers| timers.take_due(from, now)) {
        from = number + 1;
        core::on(timer.cpu, || {
            // The clock of a CPU stands still while it is not its turn.
            restart_countdown(now, IDLE_PERIOD as u32);
            // SAFETY: Registered together by this copy of the core, or by `every`; such callbacks
            // return.
            unsafe { (timer.callback)(timer.argument) };
        });
    }
    reschedule();
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C-unwind" fn nothing(_argument: *mut c_void) {}

    fn timer(period: u64, due: u64, active: bool, periodic: bool) -> Timer {
        Timer {
            cpu: 0,
            callback: nothing,
            argument: std::ptr::null_mut(),
            period,
            due,
            active,
            periodic,
        }
    }

    #[test]
    fn the_next_look_is_at_the_earliest_active_timer() {
        let timers = Timers(vec![
            timer(0, 50, false, false),
            timer(0, 170, true, false),
            timer(0, 160, true, false),
        ]);
        assert_eq!(timers.next(100, u64::MAX), 60);
        assert_eq!(timers.next_due(), Some(160));
    }

    // Has to fail when a turn ends only with a timer.
    #[test]
    fn the_end_of_a_turn_is_looked_at() {
        let timers = Timers(vec![timer(0, 170, true, false)]);
        assert_eq!(timers.next(100, 130), 30);
        assert_eq!(timers.next(140, 130), 1);
    }

    #[test]
    fn a_timer_in_the_past_is_looked_at_after_one_tick() {
        let timers = Timers(vec![timer(0, 5, true, false)]);
        assert_eq!(timers.next(100, u64::MAX), 1);
    }

    #[test]
    fn without_timers_the_look_is_a_period_away() {
        assert_eq!(Timers(Vec::new()).next(7, u64::MAX), IDLE_PERIOD as u32);
        assert_eq!(Timers(Vec::new()).next_due(), None);
    }

    #[test]
    fn a_one_shot_is_due_once_and_a_periodic_one_again() {
        let mut timers = Timers(vec![timer(10, 10, true, false), timer(10, 10, true, true)]);
        let mut due = |from, now| timers.take_due(from, now).map(|(number, _)| number);
        assert_eq!(due(0, 9), None);
        assert_eq!(due(0, 10), Some(0));
        assert_eq!(due(1, 10), Some(1));
        assert_eq!(due(2, 10), None);
        assert_eq!(due(0, 20), Some(1));
    }

    #[test]
    fn starting_with_0_ticks_means_the_next_tick() {
        let mut timers = Timers(vec![timer(0, 0, false, false)]);
        timers.start(0, 100, 0, false);
        assert!(timers.take_due(0, 100).is_none());
        assert!(timers.take_due(0, 101).is_some());
    }

    #[test]
    fn a_stopped_timer_is_never_due() {
        let mut timers = Timers(vec![timer(0, 5, true, false)]);
        timers.stop(0);
        assert!(timers.take_due(0, 200).is_none());
    }
}
