// SPDX-License-Identifier: GPL-2.0

//! The time-stamp counter (TSC).

/// Reads the TSC of the local CPU (RDTSC), without ordering it against anything.
#[inline(always)]
pub fn read() -> u64 {
    // SAFETY: The kernel runs at CPL 0, where RDTSC does not fault on any CPU with 64-bit mode.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Microseconds for a number of ticks; 0 if the kernel does not know the frequency.
pub fn to_micros(ticks: u64) -> u64 {
    // SAFETY: The kernel writes the variable while it boots, and later only if it finds the
    // frequency to be another; it is an aligned integer.
    let khz = u64::from(unsafe { (&raw const bindings::tsc_khz).read_volatile() });
    // In two steps: the product of all ticks and 1000 may not fit.
    let millis = ticks.checked_div(khz).unwrap_or(0);
    let rest = ticks.checked_rem(khz).unwrap_or(0);

    millis * 1000 + (rest * 1000).checked_div(khz).unwrap_or(0)
}
