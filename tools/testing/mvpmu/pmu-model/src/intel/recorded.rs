// SPDX-License-Identifier: GPL-2.0
//! What a machine says of last branches and of Intel PT to a PMU, and with that to its oracle.

use crate::Fault;
use crate::Pmu;

use super::Intel;
use super::Moment;
use super::PhysicalMemory;
use super::PtEvent;
use super::PtOutcome;
use super::Transfer;

impl Pmu<Intel> {
    /// Control was transferred: a branch was taken, an interrupt or an exception.
    pub fn transferred(&mut self, transfer: Transfer) {
        let (map, counters, oracle) = self.parts();
        if let (Some(change), Some(oracle)) = (map.transferred(transfer), oracle) {
            oracle.recorded(map, counters, change);
        }
    }

    /// VM entry loads IA32_LBR_CTL, behind [`enter`](Pmu::enter). Its reserved bits are
    /// [a fault](Intel::set_lbr_control).
    pub fn load_lbr_control(&mut self, value: u64) -> Result<(), Fault> {
        let (map, _, oracle) = self.parts();
        map.set_lbr_control(value)?;
        if let Some(oracle) = oracle {
            oracle.loaded_branch_control();
        }
        Ok(())
    }

    /// The same as [`Intel::pt_event`].
    pub fn pt_event(
        &mut self,
        event: PtEvent,
        now: &Moment,
        memory: &mut impl PhysicalMemory,
    ) -> PtOutcome {
        self.with_trace(memory, |map, memory| map.pt_event(event, now, memory))
    }

    /// The same as [`Intel::pt_follow`].
    pub fn pt_follow(
        &mut self,
        places: (u64, u64),
        now: &Moment,
        memory: &mut impl PhysicalMemory,
    ) -> PtOutcome {
        self.with_trace(memory, |map, memory| map.pt_follow(places, now, memory))
    }

    fn with_trace<P: PhysicalMemory>(
        &mut self,
        memory: &mut P,
        happens: impl FnOnce(&mut Intel, &mut P) -> PtOutcome,
    ) -> PtOutcome {
        let (map, counters, oracle) = self.parts();
        let before = map.is_tracing_applied();
        let outcome = happens(map, memory);
        let traced = before || map.is_tracing_applied();
        if let Some(oracle) = oracle.filter(|_| traced) {
            oracle.traced(map, counters, outcome.written, !memory.is_mapped());
        }
        outcome
    }

    /// A VM entry that loads IA32_RTIT_CTL has failed, as TraceEn was set: for the oracle.
    pub fn entry_failed_of_trace(&mut self) {
        let (map, counters, oracle) = self.parts();
        if let Some(oracle) = oracle {
            oracle.entry_failed(map, counters);
        }
    }
}
