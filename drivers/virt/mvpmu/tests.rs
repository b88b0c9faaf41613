// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the context switch, on a fake register file that records every access in order.

use crate::{
    registers::RegisterFile,
    switch::{
        Left,
        Resident, //
    },
    vendor::{
        Amd,
        Intel,
        Vendor, //
    }, //
};
use kernel::{
    kvm::mediated_pmu::{
        MsrAccess,
        OwnedPmu, //
    },
    perf::guest::{
        GuestLbrs,
        GuestLvtpc, //
    },
    prelude::*,
    x86::{
        msr::{
            Readable,
            Writable, //
        },
        pmu::{
            amd,
            Counter,
            CounterSet,
            PerfMetrics,
            Register,
            EVENTSEL_ENABLE, //
        },
    },
};

/// One access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Rdmsr(u32),
    Wrmsr(u32, u64),
    Rdpmc(u32),
    /// Last branch records are to be there.
    Lbrs,
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
    fn read<A: Readable>(&mut self, register: Register<A>) -> u64 {
        self.note(Rdmsr(register.index()));
        self.get(register.index())
    }

    fn write<A: Writable>(&mut self, register: Register<A>, value: u64) {
        let status = amd::GLOBAL_STATUS.index();

        self.note(Wrmsr(register.index(), value));
        match register.index() {
            i if i == amd::GLOBAL_STATUS_SET.index() => self.set(status, self.get(status) | value),
            i if i == amd::GLOBAL_STATUS_CLR.index() => self.set(status, self.get(status) & !value),
            i => self.set(i, value),
        }
    }

    fn read_counter(&mut self, counter: Counter) -> u64 {
        self.note(Rdpmc(counter.index()));
        self.get(ctr(counter.index()))
    }

    fn read_metrics(&mut self, _metrics: PerfMetrics) -> u64 {
        // AMD's PMU has none.
        0
    }

    fn load_lbrs(&mut self, _lbrs: GuestLbrs<'_>) {
        self.note(Lbrs);
    }
}

const STATUS: u32 = amd::GLOBAL_STATUS.index();
const CTL: u32 = amd::GLOBAL_CTL.index();
const CLR: u32 = amd::GLOBAL_STATUS_CLR.index();
const SET: u32 = amd::GLOBAL_STATUS_SET.index();

/// What a guest accesses directly: the branch stack.
const BRANCHES: u64 = 1 << 62;

/// An enabled selector: retired instructions, kernel and user, guest only.
const INSTRUCTIONS: u64 = 1 << 40 | 1 << 22 | 1 << 17 | 1 << 16 | 0xc0;

/// The number of counter `i`'s MSR.
fn ctr(i: u32) -> u32 {
    amd::PERF_CTR.get(i).map_or(0, Register::index)
}

/// The number of selector `i`'s MSR.
fn sel(i: u32) -> u32 {
    amd::PERF_CTL.get(i).map_or(0, Register::index)
}

/// Loads AMD registers of a guest, over what the host left in the counters of `dirty`.
fn load(regs: &mut Fake, pmu: &mut OwnedPmu, dirty: CounterSet) -> Resident<Amd> {
    let mut resident = Resident::new(GuestLvtpc::new(0));

    resident.load(regs, &mut pmu.as_guest(), dirty);
    resident
}

/// Puts them. Perf has no events: it clears all that is left.
fn put(regs: &mut Fake, pmu: &mut OwnedPmu, mut resident: Resident<Amd>) -> Left {
    let left = resident.put(regs, &mut pmu.as_guest());

    for i in 0..amd::PERF_CTR.len() {
        if left.counters.intersects(CounterSet::gp(i)) {
            regs.set(ctr(i), 0);
        }
        if left.selectors.intersects(CounterSet::gp(i)) {
            regs.set(sel(i), 0);
        }
    }
    left
}

#[kunit_tests(mvpmu_switch)]
mod cases {
    use super::*;

    /// Counters and selectors first, the status next; counting starts last. What the guest has at
    /// zero is not written.
    #[test]
    fn load_starts_counting_last() -> Result {
        let mut regs = Fake::new(&[(STATUS, 0b10)])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS), (0, 0)], 0b11, 0b01)?;

        load(&mut regs, &mut pmu, CounterSet::EMPTY);
        assert_eq!(
            regs.log[..],
            [
                Wrmsr(ctr(0), 5),
                Wrmsr(sel(0), INSTRUCTIONS),
                Rdmsr(STATUS),
                Wrmsr(CLR, 0b10),
                Wrmsr(SET, 0b01),
                Wrmsr(CTL, 0b11),
            ]
        );
        Ok(())
    }

    /// Nothing of the host's is left where the guest can read without an exit, nor where it is about
    /// to count.
    #[test]
    fn load_clears_what_the_host_left() -> Result {
        let mut regs = Fake::new(&[(ctr(0), 7), (ctr(1), 8), (STATUS, 0b111)])?;
        let mut pmu = OwnedPmu::new(&[(0, INSTRUCTIONS)], 0, 0)?;

        load(&mut regs, &mut pmu, CounterSet::from_bits(0b11));
        assert_eq!(regs.get(ctr(0)), 0);
        assert_eq!(regs.get(ctr(1)), 0);
        assert_eq!(regs.get(STATUS), 0);
        Ok(())
    }

    /// The counters stop before anything is read but the control that stops them.
    #[test]
    fn put_stops_counting_first() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS)], 1, 0)?;
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

        regs.set(ctr(0), 9);
        regs.set(STATUS, 1);
        regs.log.clear();
        resident.put(&mut regs, &mut pmu.as_guest());
        assert_eq!(
            regs.log[..],
            [
                Rdmsr(CTL),
                Wrmsr(CTL, 0),
                Rdmsr(STATUS),
                Wrmsr(CLR, 1),
                Rdpmc(0),
            ]
        );
        Ok(())
    }

    /// Counter, selector, control and status of the guest are gone from hardware and kept in
    /// memory, what the guest wrote itself included.
    #[test]
    fn put_clears_what_it_saves() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(0, 0), (5, INSTRUCTIONS)], 0b11, 0)?;
        let resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

        regs.set(ctr(0), 4);
        regs.set(ctr(1), 9);
        regs.set(STATUS, 0b10);
        regs.set(CTL, 0b01);
        put(&mut regs, &mut pmu, resident);

        let mut guest = pmu.as_guest();

        assert_eq!(guest.global_status(), 0b10);
        assert_eq!(guest.global_ctrl(), 0b01);
        assert!(guest
            .gp_counters(CounterSet::ALL)
            .map(|pmc| pmc.counter())
            .eq([4, 9]));
        assert!(regs.msrs.iter().all(|(i, value)| *value == 0 || *i == CLR));
        Ok(())
    }

    /// What holds nothing is not left for perf to clear.
    #[test]
    fn put_leaves_what_is_not_zero() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(0, INSTRUCTIONS), (6, 0), (7, INSTRUCTIONS)], 0b111, 0)?;
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);
        let left = resident.put(&mut regs, &mut pmu.as_guest());

        assert_eq!(left.counters, CounterSet::from_bits(0b110));
        assert_eq!(left.selectors, CounterSet::from_bits(0b101));
        Ok(())
    }

    /// A put that reads the global control says whether the guest has changed it.
    #[test]
    fn put_tells_whether_the_control_is_the_same() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS)], 1, 0)?;
        let mut put = |written: Option<u64>| {
            let resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

            if let Some(control) = written {
                regs.set(CTL, control);
            }
            put(&mut regs, &mut pmu, resident).same
        };

        assert_eq!(put(None), Some(true));
        assert_eq!(put(Some(0)), Some(false));
        assert_eq!(put(None), Some(true));
        Ok(())
    }

    /// Operations of a put and a load grow with the counters in use, not with those there are. The
    /// global control is read if the guest's writes pass through.
    #[test]
    fn a_switch_is_proportional() -> Result {
        for (used, direct) in (0..=4).flat_map(|used| [(used, 0), (used, 1)]) {
            let mut regs = Fake::new(&[])?;
            let state = core::array::from_fn::<_, 6, _>(|i| match i {
                i if i < used => (5, INSTRUCTIONS),
                _ => (0, 0),
            });
            let passthrough = ((1 << used) - 1) | ((direct as u64) << 63);
            let mut pmu = OwnedPmu::new(&state, 0x3f, 0)?.with_passthrough(passthrough);
            let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

            resident.put(&mut regs, &mut pmu.as_guest());
            // Load: counter, selector, and two for all; put: one for each, and two for all.
            assert_eq!(regs.log.len(), 3 * used + 4 + direct);
        }
        Ok(())
    }

    /// Only what has changed is written to a PMU that holds the guest's state.
    #[test]
    fn select_writes_what_has_changed() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS), (6, INSTRUCTIONS)], 0b11, 0)?;
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

        regs.log.clear();
        resident.reload(&mut regs, &mut pmu.as_guest());
        assert!(regs.log.is_empty());
        pmu.select(1, INSTRUCTIONS & !EVENTSEL_ENABLE)?;
        resident.reload(&mut regs, &mut pmu.as_guest());
        assert_eq!(regs.log[..], [Wrmsr(sel(1), 0)]);
        Ok(())
    }

    /// A global control whose writes are intercepted gets to hardware once it has changed, and once it
    /// passes through no more: what the guest wrote must stay.
    #[test]
    fn reload_writes_a_global_control_that_is_in_memory() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS)], 0, 0)?.with_passthrough(1);
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

        regs.log.clear();
        resident.reload(&mut regs, &mut pmu.as_guest());
        assert!(regs.log.is_empty());
        pmu.as_guest().set_global_ctrl(1);
        pmu = pmu.with_passthrough(1 << 63 | 1);
        resident.reload(&mut regs, &mut pmu.as_guest());
        assert_eq!(regs.log[..], [Wrmsr(amd::GLOBAL_CTL.index(), 1)]);
        regs.log.clear();
        pmu.as_guest().set_global_ctrl(0);
        resident.reload(&mut regs, &mut pmu.as_guest());
        assert!(regs.log.is_empty());
        Ok(())
    }

    /// Records that stay in hardware are asked for at each entry, as KVM may have brought them to memory.
    #[test]
    fn records_that_stay_are_loaded_each_time() -> Result {
        fn reload<V: Vendor>(pmu: &mut OwnedPmu) -> Result<KVec<Access>> {
            let mut regs = Fake::new(&[])?;
            let mut resident = Resident::<V>::new(GuestLvtpc::new(0));

            resident.reload(&mut regs, &mut pmu.as_guest());
            resident.reload(&mut regs, &mut pmu.as_guest());
            Ok(regs.log)
        }

        let mut pmu = OwnedPmu::new(&[], 0, 0)?
            .with_lbrs()?
            .with_passthrough(BRANCHES);

        assert_eq!(reload::<Intel>(&mut pmu)?[..], [Lbrs, Lbrs]);
        assert!(reload::<Amd>(&mut pmu)?.is_empty());
        pmu = pmu.with_passthrough(!BRANCHES);
        assert!(reload::<Intel>(&mut pmu)?.is_empty());
        pmu = OwnedPmu::new(&[], 0, 0)?.with_passthrough(BRANCHES);
        assert!(reload::<Intel>(&mut pmu)?.is_empty());
        Ok(())
    }

    /// An access to the status moves that alone.
    #[test]
    fn the_status_is_accessed_alone() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS)], 1, 0b11)?;
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);
        let (read, clear) = (STATUS, amd::GLOBAL_STATUS_CLR.index());

        pmu.as_guest().set_global_status(0);
        regs.log.clear();
        assert!(resident.sync(&mut regs, &mut pmu.as_guest(), read, MsrAccess::Read));
        assert_eq!(pmu.as_guest().global_status(), 0b11);
        resident.reload(&mut regs, &mut pmu.as_guest());
        assert_eq!(regs.log[..], [Rdmsr(read)]);

        assert!(resident.sync(&mut regs, &mut pmu.as_guest(), clear, MsrAccess::Write));
        pmu.as_guest().set_global_status(0b10);
        resident.reload(&mut regs, &mut pmu.as_guest());
        assert_eq!(regs.get(STATUS), 0b10);
        Ok(())
    }

    /// A change of the status that has not got to hardware is not undone by a put: the vCPU's thread may
    /// leave the CPU when KVM has emulated the guest's write. Nor does the next access undo it.
    #[test]
    fn a_change_of_the_status_outlives_a_put() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS)], 1, 0b11)?;
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

        assert!(resident.sync(&mut regs, &mut pmu.as_guest(), CLR, MsrAccess::Write));
        pmu.as_guest().set_global_status(0b10);
        assert!(resident.sync(&mut regs, &mut pmu.as_guest(), STATUS, MsrAccess::Read));
        assert_eq!(pmu.as_guest().global_status(), 0b10);
        put(&mut regs, &mut pmu, resident);
        assert_eq!(pmu.as_guest().global_status(), 0b10);
        assert_eq!(regs.get(STATUS), 0);
        Ok(())
    }

    /// Nor does such a change undo an overflow that comes after it: by the very instruction that KVM
    /// emulates.
    #[test]
    fn an_overflow_outlives_a_change_of_the_status() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[((1 << 48) - 1, INSTRUCTIONS), (5, 0)], 1, 0b10)?;
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

        assert!(resident.sync(&mut regs, &mut pmu.as_guest(), CLR, MsrAccess::Write));
        pmu.as_guest().set_global_status(0);
        resident.increment(&mut regs, &mut pmu.as_guest(), CounterSet::gp(0));
        resident.reload(&mut regs, &mut pmu.as_guest());
        assert_eq!(regs.get(STATUS), 0b01);
        put(&mut regs, &mut pmu, resident);
        assert_eq!(pmu.as_guest().global_status(), 0b01);
        Ok(())
    }

    /// Of the status the guest keeps what it has: hardware has more, which KVM would refuse to set
    /// after a migration. None of it stays in hardware.
    #[test]
    fn the_guest_gets_its_bits_of_the_status() -> Result {
        // A counter of the guest's and one that it has not got, Intel PT and frozen LBRs.
        const THERE: u64 = 1 << 58 | 1 << 55 | 0b11;
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(5, INSTRUCTIONS)], 1, 0)?.with_status_bits(0b01);
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

        regs.set(STATUS, THERE);
        assert!(resident.sync(&mut regs, &mut pmu.as_guest(), STATUS, MsrAccess::Read));
        assert_eq!(pmu.as_guest().global_status(), 0b01);
        pmu.as_guest().set_global_status(0);
        put(&mut regs, &mut pmu, resident);
        assert_eq!(pmu.as_guest().global_status(), 0b01);
        assert_eq!(regs.get(STATUS), 0);
        Ok(())
    }

    /// An emulated instruction is read and written back, once each; an overflow shows.
    #[test]
    fn increment_counts_in_hardware() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[((1 << 48) - 2, INSTRUCTIONS)], 1, 0)?;
        let mut resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);

        regs.log.clear();
        let counters = CounterSet::gp(0);
        let moved = resident.increment(&mut regs, &mut pmu.as_guest(), counters);
        assert!(moved.is_empty());
        assert_eq!(regs.log[..], [Rdpmc(0), Wrmsr(ctr(0), (1 << 48) - 1)]);
        let moved = resident.increment(&mut regs, &mut pmu.as_guest(), counters);
        assert_eq!(moved.bits(), counters.bits());
        assert_eq!(regs.get(ctr(0)), 0);
        assert_eq!(regs.get(STATUS), 1);
        Ok(())
    }

    /// A put and the next load leave the guest's registers as they were.
    #[test]
    fn put_and_load_are_inverse() -> Result {
        let mut regs = Fake::new(&[])?;
        let mut pmu = OwnedPmu::new(&[(3, INSTRUCTIONS), (4, 0)], 0b1, 0b11)?;
        let resident = load(&mut regs, &mut pmu, CounterSet::EMPTY);
        let before = [ctr(0), ctr(1), sel(0), sel(1), STATUS, CTL].map(|i| (i, regs.get(i)));

        put(&mut regs, &mut pmu, resident);
        load(&mut regs, &mut pmu, CounterSet::EMPTY);
        assert!(before
            .iter()
            .all(|(index, value)| regs.get(*index) == *value));
        Ok(())
    }
}
