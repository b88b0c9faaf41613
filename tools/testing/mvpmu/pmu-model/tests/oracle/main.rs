// SPDX-License-Identifier: GPL-2.0
//! The oracle: each check passes what a right host does and reports what a wrong one does.
//!
//! The argument for the rules stands in `src/oracle.rs`. The comment above a test names a change to
//! the oracle that makes the test fail.

mod branches;
mod cpu;
mod keeps;
mod kept_branches;
mod leak_in;
mod leak_out;
mod lent;
mod moved_branches;
mod report;
mod stray;
mod traced;
mod traces;
mod vcpus;
