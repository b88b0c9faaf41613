// SPDX-License-Identifier: GPL-2.0

//! What the tools read of a host. Nothing here writes, and nothing here decides.

pub mod fixture;
pub mod key_value;
pub mod module;
pub mod perf_events;
pub mod process;
mod root;
mod text;

pub use root::Root;
pub use text::printable;

/// Where debugfs belongs.
pub const DEBUGFS: &str = "/sys/kernel/debug";
