// SPDX-License-Identifier: GPL-2.0
//! IA32_DEBUGCTL, as far as it concerns the PMU.
//!
//! It is not a PMU register: the operations on it are not counted, and the machine keeps the bits
//! that are about other things.

use super::status;
use super::Intel;

/// FREEZE_PERFMON_ON_PMI.
const FREEZE_PERFMON_ON_PMI: u64 = 1 << 12;

impl Intel {
    /// The bits of IA32_DEBUGCTL that this PMU defines.
    pub const DEBUGCTL_DEFINED: u64 = FREEZE_PERFMON_ON_PMI;

    /// Follows IA32_DEBUGCTL.
    pub fn set_debugctl(&mut self, value: u64) {
        self.debugctl = value & Intel::DEBUGCTL_DEFINED;
    }

    /// A PMI is being delivered: freeze if that is asked for.
    pub(super) fn freeze(&mut self) {
        if self.debugctl & FREEZE_PERFMON_ON_PMI == 0 {
            return;
        }
        if self.config.version >= 4 {
            self.global_status |= status::CTR_FRZ;
        } else {
            self.global_ctrl = 0;
        }
    }
}
