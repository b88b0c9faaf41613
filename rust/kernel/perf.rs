// SPDX-License-Identifier: GPL-2.0

//! Performance events.
//!
//! C header: [`include/linux/perf_event.h`](srctree/include/linux/perf_event.h)

#[cfg(CONFIG_PERF_GUEST_MEDIATED_PMU)]
pub mod guest;
