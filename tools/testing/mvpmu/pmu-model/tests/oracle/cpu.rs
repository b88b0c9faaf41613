// SPDX-License-Identifier: GPL-2.0
//! A CPU with a PMU that is watched.

pub use pmu_model::amd;
pub use pmu_model::amd::Amd;
pub use pmu_model::amd::Version;
pub use pmu_model::intel::msr;
pub use pmu_model::intel::Config;
pub use pmu_model::intel::Intel;
pub use pmu_model::options::PowerOn;
pub use pmu_model::oracle::BranchRegister;
pub use pmu_model::oracle::Entry;
pub use pmu_model::oracle::Finding;
pub use pmu_model::oracle::Invariant;
pub use pmu_model::oracle::Mark;
pub use pmu_model::oracle::Oracle;
pub use pmu_model::oracle::SharedVcpus;
pub use pmu_model::oracle::TraceEntry;
pub use pmu_model::Access;
pub use pmu_model::Cell;
pub use pmu_model::Class;
pub use pmu_model::Deltas;
pub use pmu_model::Owner;
pub use pmu_model::Pmu;
pub use pmu_model::Reset;
pub use pmu_model::Source;
pub use pmu_model::Watched;

pub const USR: u64 = 1 << 16;
pub const OS: u64 = 1 << 17;
pub const INT: u64 = 1 << 20;
pub const EN: u64 = 1 << 22;
pub const GUEST_ONLY: u64 = 1 << 40;
pub const HOST_ONLY: u64 = 1 << 41;
pub const INSTRUCTIONS: u64 = 0xc0;
pub const RUNS: u64 = INSTRUCTIONS | USR | OS | EN;
pub const GUEST_RUNS: u64 = RUNS | GUEST_ONLY;

pub const NMI: u32 = 0x400;
pub const GUEST_VECTOR: u32 = 0xf5;
pub const STACK: u64 = 0xffff_c900_0001_3e00;
pub const OTHER_STACK: u64 = 0xffff_c900_0002_3e00;
pub const PROCESS: u64 = 0x10_0000;
pub const OTHER_PROCESS: u64 = 0x20_0000;
/// Where modules are, and where the kernel is.
pub const MODULE: u64 = 0xffff_ffff_a000_1000;
pub const KERNEL: u64 = 0xffff_ffff_8100_1000;
pub const VMCB: u64 = 0x1000;
pub const VMCB02: u64 = 0x2000;

pub const HOST: Access = Access {
    owner: Owner::Host,
    cpl: 0,
};
pub const USER: Access = Access {
    owner: Owner::Host,
    cpl: 3,
};
pub const GUEST: Access = Access {
    owner: Owner::Guest(VMCB),
    cpl: 0,
};

/// Everything within reach.
pub const REACH: Entry = Entry {
    guest: VMCB,
    process: PROCESS,
    fresh: false,
    initial: false,
    stack: STACK,
    counters: u64::MAX,
    status: true,
    rdpmc: true,
    branches: u128::MAX,
    trace: NO_TRACE,
};
/// The guest has nothing to do with Intel PT.
pub const NO_TRACE: TraceEntry = TraceEntry {
    control: None,
    reads: 0,
};
/// Nothing within reach.
pub const NO_REACH: Entry = Entry {
    counters: 0,
    status: false,
    rdpmc: false,
    branches: 0,
    ..REACH
};

pub struct Cpu<M: Watched> {
    pub pmu: Pmu<M>,
    guest: bool,
}

impl<M: Watched> Cpu<M> {
    pub fn new(map: M, vcpus: &SharedVcpus) -> Self {
        let mut pmu = Pmu::new(map);
        let mut oracle = Oracle::new(0, vcpus.clone());
        oracle.at(MODULE, 0);
        pmu.watch(oracle);
        Cpu { pmu, guest: false }
    }

    pub fn write_as(&mut self, msr: u32, value: u64, access: Access) {
        let register = self.pmu.register(msr).expect("the register exists");
        self.pmu.write(register, value, access).expect("it can be");
    }

    pub fn write(&mut self, msr: u32, value: u64) {
        self.write_as(msr, value, HOST);
    }

    pub fn read_as(&mut self, msr: u32, access: Access) -> u64 {
        let register = self.pmu.register(msr).expect("the register exists");
        self.pmu.read(register, access).expect("it can be")
    }

    pub fn run(&mut self, instructions: u64) {
        let mut deltas = Deltas::default();
        let class = Class::new(self.guest, false);
        deltas.add(Source::Instructions, class, instructions);
        let _ = self.pmu.fold(&deltas);
    }

    pub fn enter(&mut self, entry: Entry) {
        self.guest = true;
        self.pmu.enter(entry);
    }

    pub fn exit(&mut self) {
        self.guest = false;
        self.pmu.exit();
    }

    /// The thread goes to user mode and comes back.
    pub fn goes_to_user_mode(&mut self) {
        self.pmu.user();
        self.pmu.oracle_mut().unwrap().has_run_user();
    }

    /// From now on an instruction at this address does it.
    pub fn at(&mut self, rip: u64) {
        self.pmu.oracle_mut().unwrap().at(rip, 0);
    }

    pub fn lvtpc(&mut self, value: u32) {
        self.pmu.lvtpc(value, Owner::Host);
    }

    pub fn finding(&mut self) -> Option<Finding> {
        self.pmu.oracle_mut().unwrap().take_finding().map(|f| *f)
    }

    pub fn is_clean(&mut self) {
        if let Some(finding) = self.finding() {
            panic!("{finding}");
        }
    }

    pub fn violates(&mut self, invariant: Invariant, cell: Cell) -> Finding {
        let finding = self.finding().expect("a violation is reported");
        assert_eq!((finding.invariant, finding.cell), (invariant, cell));
        finding
    }
}

pub const fn ctl(n: u32) -> u32 {
    amd::MSR_PERF_CTL0 + 2 * n
}

pub const fn ctr(n: u32) -> u32 {
    amd::MSR_PERF_CTR0 + 2 * n
}

pub fn amd_cpu(vcpus: &SharedVcpus) -> Cpu<Amd> {
    let mut cpu = Cpu::new(Amd::new(Version::PerfMonV2), vcpus);
    cpu.pmu.map_mut().set_svme(true);
    cpu
}

/// With a last branch record stack.
pub fn lbr_cpu(vcpus: &SharedVcpus) -> Cpu<Amd> {
    let mut cpu = Cpu::new(Amd::new(Version::PerfMonV2).with_lbr(true), vcpus);
    cpu.pmu.map_mut().set_svme(true);
    cpu
}

impl Cpu<Amd> {
    pub fn load(&mut self, counter: u64, selector: u64) {
        self.write(amd::MSR_GLOBAL_CTL, 0);
        self.lvtpc(GUEST_VECTOR);
        self.write(ctr(0), counter);
        self.write(ctl(0), selector);
        self.write(amd::MSR_GLOBAL_CTL, 0x3f);
    }

    pub fn put(&mut self) {
        self.write(amd::MSR_GLOBAL_CTL, 0);
        self.write(amd::MSR_GLOBAL_STATUS_CLR, 0x3f);
        self.write(ctr(0), 0);
        self.write(ctl(0), 0);
        self.lvtpc(NMI);
        self.write(amd::MSR_GLOBAL_CTL, 0x3f);
    }

    /// A guest has counted and was left.
    pub fn after_a_run() -> Cpu<Amd> {
        let mut cpu = amd_cpu(&SharedVcpus::default());
        cpu.load(100, GUEST_RUNS);
        cpu.enter(REACH);
        cpu.run(50);
        cpu.exit();
        cpu.run(5);
        cpu.is_clean();
        cpu
    }
}

pub fn intel_cpu() -> Cpu<Intel> {
    Cpu::new(Intel::new(Config::SAPPHIRE_RAPIDS), &SharedVcpus::default())
}

impl Cpu<Intel> {
    pub fn global(&mut self, value: u64) {
        self.pmu.map_mut().set_global_ctrl(value).unwrap();
    }

    pub fn load(&mut self) {
        self.write(msr::GLOBAL_CTRL, 0);
        self.lvtpc(GUEST_VECTOR);
        self.write(msr::A_PMC0, 100);
        self.write(msr::PERFEVTSEL0, RUNS);
        self.write(msr::FIXED_CTR_CTRL, 0b0011);
    }

    pub fn after_a_run() -> Cpu<Intel> {
        let mut cpu = intel_cpu();
        cpu.load();
        cpu.global(1 << 32 | 1);
        cpu.enter(REACH);
        cpu.run(50);
        cpu.global(0);
        cpu.exit();
        cpu.run(5);
        cpu.is_clean();
        cpu
    }
}
