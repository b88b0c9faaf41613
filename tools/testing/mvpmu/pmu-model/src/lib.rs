// SPDX-License-Identifier: GPL-2.0
//! The performance monitoring unit (PMU) of an emulated x86 CPU.
//!
//! A test machine executes instructions; this crate says what a PMU would make of them. It
//! knows no emulator and is the same for every machine and both vendors:
//!
//! * [`Pmu`] holds the counters of one logical CPU, counts, wraps, and tells when a performance
//!   monitoring interrupt (PMI) is due.
//! * [`RegisterMap`] is what a vendor adds: the MSRs, what their bits mean, which of them say that
//!   a counter runs. [`amd`] is the PerfMonV2 map,
//!   [`intel`] that of architectural performance monitoring.
//! * [`Stats`] counts the PMU register operations, split into host and guest mode.
//! * [`profile`] is the table of the CPUs that a machine can be.
//! * [`oracle`] follows whose value each register holds, and says when it must not be there.
//!
//! # How a machine uses it
//!
//! Counting one event at a time would be slow. The machine keeps its own accumulators, one per
//! [`Source`] and [`Class`] (host or guest, kernel or user), and folds what they gathered into the
//! counters with [`Pmu::fold`] whenever somebody could notice: before any PMU register is read or
//! written, before anything changes that decides what counts (`EFER.SVME`), and when
//! [`Pmu::budget`] of some accumulator is used up, because then a counter may have wrapped.
//!
//! ```
//! use pmu_model::amd::{self, Amd, Version};
//! use pmu_model::{Access, Class, Deltas, Owner, Pmu, Source};
//!
//! let mut pmu = Pmu::new(Amd::new(Version::PerfMonV2));
//! let kernel = Access { owner: Owner::Host, cpl: 0 };
//!
//! // PERF_CTL0: retired instructions, USR | OS, enabled. PERF_CTR0: 5 below the wrap.
//! let ctl = pmu.register(amd::MSR_PERF_CTL0).unwrap();
//! let ctr = pmu.register(amd::MSR_PERF_CTR0).unwrap();
//! pmu.write(ctl, 0xc0 | 0b11 << 16 | 1 << 20 | 1 << 22, kernel).unwrap();
//! pmu.write(ctr, (1 << 48) - 5, kernel).unwrap();
//!
//! let mut events = Deltas::default();
//! events.add(Source::Instructions, Class::HostKernel, 4);
//! assert!(!pmu.fold(&events).pmi);
//! events = Deltas::default();
//! events.add(Source::Instructions, Class::HostKernel, 1);
//! assert!(pmu.fold(&events).pmi);
//! assert_eq!(pmu.rdpmc(0, kernel), Ok(0));
//! ```

mod access;
pub mod amd;
mod class;
mod counter;
mod cycle;
mod event;
pub mod intel;
pub mod listing;
pub mod mark;
pub mod options;
pub mod oracle;
mod pmu;
pub mod profile;
pub mod stats;
pub mod sweep;

pub use access::Access;
pub use access::Fault;
pub use access::Owner;
pub use class::Class;
pub use class::ClassSet;
pub use counter::Counters;
pub use counter::MAX_COUNTERS;
pub use cycle::CycleRule;
pub use event::Budget;
pub use event::Deltas;
pub use event::Event;
pub use event::Source;
pub use event::SourceSet;
pub use oracle::Cell;
pub use oracle::Watched;
pub use pmu::Counting;
pub use pmu::Overflow;
pub use pmu::Pmu;
pub use pmu::RegisterMap;
pub use pmu::Reset;
pub use stats::Operations;
pub use stats::Stats;
