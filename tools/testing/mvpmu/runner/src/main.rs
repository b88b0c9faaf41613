// SPDX-License-Identifier: GPL-2.0

//! Boots the host kernel (L1) on a test machine, runs jobs in it and writes reports.

fn main() {}
