// SPDX-License-Identifier: GPL-2.0

//! The differential test: random programs over all PMU registers give the same
//! values on the machine and in a guest that has the machine's PMU.
//!
//! | file | job |
//! |---|---|
//! | `op` | what a program is made of, as bytes and as text |
//! | `pmu` | the registers there are |
//! | `generate`, `prng` | programs out of a seed |
//! | `outcome` | what a program has read, and where two of them differ |
//! | `shrink` | the smallest program that still fails |
//! | `calls` | another kind of programs: what userspace does to KVM's PMU and to perf |
//!
//! How programs are run is the caller's.

pub mod calls;
mod generate;
mod op;
mod outcome;
mod pmu;
mod prng;
mod shrink;

pub use generate::generate;
pub use generate::Known;
pub use op::image;
pub use op::Op;
pub use op::Program;
pub use outcome::outcomes;
pub use outcome::Difference;
pub use outcome::Outcome;
pub use outcome::Pair;
pub use pmu::Pmu;
pub use shrink::shrink;
pub use shrink::Operation;
