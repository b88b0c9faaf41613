// SPDX-License-Identifier: GPL-2.0
//! IA32_DEBUGCTL, as far as it concerns the PMU.
//!
//! It is not a PMU register: the operations on it are not counted, and the machine says which other
//! bits there are.
//!
//! What freezes last branch records is there also where no branch is recorded, with its status bit: a PMU
//! of version 2 has both whatever it records (SDM volume 4, IA32_DEBUGCTL and IA32_PERF_GLOBAL_STATUS:
//! the condition is CPUID.0AH).
//!
//! LBR, which enables those that are not architectural, stays 0 on a CPU that has architectural ones
//! only (SDM volume 3, "Last Branch Records").

use super::status;
use super::Intel;

/// LBR.
const LBR: u64 = 1 << 0;
/// FREEZE_LBRS_ON_PMI.
const FREEZE_LBRS_ON_PMI: u64 = 1 << 11;
/// FREEZE_PERFMON_ON_PMI.
const FREEZE_PERFMON_ON_PMI: u64 = 1 << 12;

impl Intel {
    /// The bits of IA32_DEBUGCTL that this PMU defines.
    pub const DEBUGCTL_DEFINED: u64 = FREEZE_LBRS_ON_PMI | FREEZE_PERFMON_ON_PMI;

    /// IA32_DEBUGCTL.
    pub fn debugctl(&self) -> u64 {
        self.debugctl
    }

    /// Writes IA32_DEBUGCTL.
    pub fn set_debugctl(&mut self, value: u64) {
        let absent = if self.config.lbr { LBR } else { 0 };
        self.debugctl = value & !absent;
    }

    /// A PMI is being delivered: freeze what is asked for.
    pub(super) fn freeze(&mut self) {
        let streamlined = self.config.version >= 4;
        if self.debugctl & FREEZE_PERFMON_ON_PMI != 0 {
            match streamlined {
                true => self.global_status |= status::CTR_FRZ,
                false => self.global_ctrl = 0,
            }
        }
        if self.debugctl & FREEZE_LBRS_ON_PMI != 0 {
            match streamlined {
                true => self.global_status |= status::LBR_FRZ,
                false => self.debugctl &= !LBR,
            }
        }
    }
}
