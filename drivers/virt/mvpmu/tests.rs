// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the context switch, on a fake register file that records every access in order.

use crate::{
    registers::RegisterFile,
    switch,
    vendor::Amd, //
};
use kernel::{
    kvm::mediated_pmu::OwnedPmu,
    prelude::*,
    x86::{
        msr::{
            Msr,
            Readable,
            Writable, //
        },
        pmu::{
            amd,
            Counter, //
        },
    },
};

/// One access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Rdmsr(u32),
    Wrmsr(u32, u64),
    Rdpmc(u32),
}
use Access::*;

/// Registers in memory, of which none has a function but the AMD global status.
struct Fake {
    msrs: KVec<(u32, u64)>,
    log: KVec<Access>,
}

impl Fake {
    fn new(msrs: &[(u32, u64)]) -> Result<Self> {
        let mut copy = KVec::new();

        copy.extend_from_slice(msrs, GFP_KERNEL)?;
        Ok(Self {
            msrs: copy,
            log: KVec::with_capacity(64, GFP_KERNEL)?,
        })
    }

    fn get(&self, index: u32) -> u64 {
        let found = self.msrs.iter().find(|(i, _)| *i == index);

        found.map_or(0, |(_, value)| *value)
    }

    fn set(&mut self, index: u32, value: u64) {
        match self.msrs.iter_mut().find(|(i, _)| *i == index) {
            Some(msr) => msr.1 = value,
            // A test that runs out of memory fails: its registers are incomplete.
            None => {
                let _ = self.msrs.push((index, value), GFP_KERNEL);
            }
        }
    }

    fn note(&mut self, access: Access) {
        // As above: the log is incomplete.
        let _ = self.log.push(access, GFP_KERNEL);
    }
}

impl RegisterFile for Fake {
    fn read<A: Readable>(&mut self, msr: Msr<A>) -> u64 {
        self.note(Rdmsr(msr.index()));
        self.get(msr.index())
    }

    fn write<A: Writable>(&mut self, msr: Msr<A>, value: u64) {
        let status = amd::GLOBAL_STATUS.index();

        self.note(Wrmsr(msr.index(), value));
        match msr.index() {
            i if i == amd::GLOBAL_STATUS_SET.index() => self.set(status, self.get(status) | value),
            i if i == amd::GLOBAL_STATUS_CLR.index() => self.set(status, self.get(status) & !value),
            i => self.set(i, value),
        }
    }

    fn read_counter(&mut self, counter: Counter) -> u64 {
        self.note(Rdpmc(counter.index()));
        self.get(ctr(counter.index()))
    }
}

const STATUS: u32 = amd::GLOBAL_STATUS.index();
const CTL: u32 = amd::GLOBAL_CTL.index();
const CLR: u32 = amd::GLOBAL_STATUS_CLR.index();
const SET: u32 = amd::GLOBAL_STATUS_SET.index();

/// An enabled selector: retired instructions, kernel and user, guest only.
const INSTRUCTIONS: u64 = 1 << 40 | 1 << 22 | 1 << 17 | 1 << 16 | 0xc0;

/// The number of counter `i`'s MSR.
fn ctr(i: u32) -> u32 {
    amd::PERF_CTR.get(i).map_or(0, Msr::index)
}

/// The number of selector `i`'s MSR.
fn sel(i: u32) -> u32 {
    amd::PERF_CTL.get(i).map_or(0, Msr::index)
}

#[kunit_tests(mvpmu_switch)]
mod cases {
    use super::*;

    /// Counters and selectors first, the status next; counting starts last.
    #[test]
    fn load_starts_counting_last() -> Result {
        let mut regs = Fake::new(&[(STATUS, 0b10)])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS), (0, 0)], 0b11, 0b01)?;

        switch::load_registers::<Amd, _>(&mut regs, &mut pmu.as_guest());
        assert_eq!(
            regs.log[..],
            [
                Rdpmc(0),
                Wrmsr(ctr(0), 5),
                Wrmsr(sel(0), INSTRUCTIONS),
                Rdpmc(1),
                Wrmsr(sel(1), 0),
                Rdmsr(STATUS),
                Wrmsr(CLR, 0b10),
                Wrmsr(SET, 0b01),
                Wrmsr(CTL, 0b11),
            ]
        );
        Ok(())
    }

    /// Nothing of the host's is left where the guest can read without an exit.
    #[test]
    fn load_overwrites_what_the_host_left() -> Result {
        let mut regs = Fake::new(&[(ctr(0), 7), (sel(0), 0xc2), (STATUS, 0b111)])?;
        let mut pmu = OwnedPmu::new(&[(0, 0)], 0, 0)?;

        switch::load_registers::<Amd, _>(&mut regs, &mut pmu.as_guest());
        assert_eq!(regs.get(ctr(0)), 0);
        assert_eq!(regs.get(sel(0)), 0);
        assert_eq!(regs.get(STATUS), 0);
        Ok(())
    }

    /// The counters stop before anything is read.
    #[test]
    fn put_stops_counting_first() -> Result {
        let mut regs = Fake::new(&[(ctr(0), 9), (sel(0), INSTRUCTIONS), (CTL, 1), (STATUS, 1)])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS)], 1, 0)?;

        switch::put_registers::<Amd, _>(&mut regs, &mut pmu.as_guest());
        assert_eq!(
            regs.log[..],
            [
                Wrmsr(CTL, 0),
                Rdmsr(STATUS),
                Wrmsr(CLR, 1),
                Rdpmc(0),
                Wrmsr(ctr(0), 0),
                Wrmsr(sel(0), 0),
            ]
        );
        Ok(())
    }

    /// Counter, selector and status of the guest are gone from hardware and kept in memory.
    #[test]
    fn put_clears_what_it_saves() -> Result {
        let mut regs = Fake::new(&[(ctr(1), 9), (sel(1), INSTRUCTIONS), (STATUS, 0b10)])?;
        let mut pmu = OwnedPmu::new(&[(0, 0), (5, INSTRUCTIONS)], 0b11, 0)?;

        switch::put_registers::<Amd, _>(&mut regs, &mut pmu.as_guest());

        let mut guest = pmu.as_guest();

        assert_eq!(guest.global_status(), 0b10);
        assert_eq!(guest.gp_counters().nth(1).map(|pmc| pmc.counter()), Some(9));
        assert!(regs.msrs.iter().all(|(_, value)| *value == 0));
        Ok(())
    }

    /// What the guest did not use costs no write.
    #[test]
    fn put_writes_only_what_is_in_use() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(0, 0); 6], 0x3f, 0)?;

        switch::put_registers::<Amd, _>(&mut regs, &mut pmu.as_guest());

        let writes = regs.log.iter().filter(|access| matches!(access, Wrmsr(..)));

        assert_eq!(writes.count(), 1);
        Ok(())
    }

    /// A put and the next load leave the guest's registers as they were.
    #[test]
    fn put_and_load_are_inverse() -> Result {
        let before = [
            (ctr(0), 3),
            (sel(0), INSTRUCTIONS),
            (ctr(1), 4),
            (STATUS, 0b11),
        ];
        let mut regs = Fake::new(&before)?;
        let mut pmu = OwnedPmu::new(&[(0, INSTRUCTIONS), (0, 0)], 0b1, 0)?;

        switch::put_registers::<Amd, _>(&mut regs, &mut pmu.as_guest());
        switch::load_registers::<Amd, _>(&mut regs, &mut pmu.as_guest());
        assert!(before
            .iter()
            .all(|(index, value)| regs.get(*index) == *value));
        assert_eq!(regs.get(CTL), 0b1);
        Ok(())
    }
}
