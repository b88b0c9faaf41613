// SPDX-License-Identifier: GPL-2.0
//! A CPU with Intel PT, and what perf does about guests that trace.

use pmu_model::intel::ExecMode;
use pmu_model::intel::Moment;
use pmu_model::intel::PhysicalMemory;
use pmu_model::intel::PtEvent;
use pmu_model::intel::PtRegister;
use pmu_model::intel::Unmapped;
use pmu_model::oracle::TraceFunctions;

pub use crate::cpu::*;

pub const CONTROL: Cell = Cell::Pt(PtRegister::Control);
pub const STATUS: Cell = Cell::Pt(PtRegister::Status);
pub const BASE: Cell = Cell::Pt(PtRegister::OutputBase);
pub const MASK: Cell = Cell::Pt(PtRegister::OutputMaskPtrs);
pub const ADDR0: Cell = Cell::Pt(PtRegister::AddrA(0));
/// IA32_RTIT_CTL: everything at CPL 0, to a single range.
pub const TRACES: u64 = 1 << 0 | 1 << 2 | 1 << 13;
/// The same where the first range says.
pub const FILTERS: u64 = TRACES | 1 << 32;
/// Where the output is, and that it is a page.
pub const GUEST_BASE: u64 = 0x10_0000;
pub const HOST_BASE: u64 = 0x20_0000;
pub const PAGE: u64 = 0xfff;

/// Where perf's functions are: one that loads, then one that saves.
pub const LOAD: u64 = KERNEL + 0x1000;
pub const SAVE: u64 = LOAD + 0x100;
pub const BEHIND: u64 = SAVE + 0x100;

/// It traces, and reads what changes with that.
pub const TRACING: Entry = Entry {
    trace: TraceEntry {
        control: Some(TRACES),
        reads: 0b1110,
    },
    ..NO_REACH
};
/// It could, and reads nothing.
pub const SILENT: Entry = Entry {
    trace: TraceEntry {
        control: Some(0),
        reads: 0,
    },
    ..NO_REACH
};
/// Another vCPU, of another VM.
pub const FOREIGN: Entry = Entry {
    guest: VMCB02,
    process: OTHER_PROCESS,
    stack: OTHER_STACK,
    ..TRACING
};
/// Its VM has no PT of its own.
pub const SYSTEM: Entry = NO_REACH;

/// Memory that is there, behind EPT or not.
struct Anything {
    translated: bool,
}

impl PhysicalMemory for Anything {
    fn read(&mut self, _address: u64) -> Result<u64, Unmapped> {
        Ok(0)
    }

    fn write(&mut self, _address: u64, _bytes: &[u8]) -> Result<(), Unmapped> {
        Ok(())
    }

    fn is_mapped(&self) -> bool {
        !self.translated
    }
}

const NOW: Moment = Moment {
    user: false,
    cr3: 0,
    mode: ExecMode::Bits64,
    non_root: false,
    vmcs: None,
    tsc: 0,
    cycles: 0,
    ratio: 20,
};

pub fn pt_cpu(number: u32, vcpus: &SharedVcpus) -> Cpu<Intel> {
    let mut cpu = Cpu::new(Intel::new(Config::SAPPHIRE_RAPIDS), vcpus);
    let functions = TraceFunctions {
        load: [0..1, LOAD..SAVE].into(),
        save: [0..1, LOAD..BEHIND].into(),
    };
    let oracle = Oracle::new(number, vcpus.clone());
    cpu.pmu.watch(oracle.with_trace_functions(functions));
    cpu.at(KERNEL);
    cpu
}

impl Cpu<Intel> {
    /// TraceEn may have changed.
    pub fn follow(&mut self, translated: bool) {
        let mut memory = Anything { translated };
        let _ = self.pmu.pt_follow((0x1000, 0x1002), &NOW, &mut memory);
    }

    /// A jump that is traced.
    pub fn jumps(&mut self, translated: bool) {
        let event = PtEvent::Indirect(0x5000);
        let mut memory = Anything { translated };
        let _ = self.pmu.pt_event(event, &NOW, &mut memory);
    }

    /// intel_pt_guest_enter() of a guest that traces.
    pub fn load_trace(&mut self, [status, base, mask]: [u64; 3]) {
        self.at(LOAD);
        self.write(msr::RTIT_STATUS, status);
        self.write(msr::RTIT_OUTPUT_BASE, base);
        self.write(msr::RTIT_OUTPUT_MASK_PTRS, mask);
        self.at(KERNEL);
    }

    /// intel_pt_guest_put().
    pub fn save_trace(&mut self) -> [u64; 3] {
        self.at(SAVE);
        let registers = [
            msr::RTIT_STATUS,
            msr::RTIT_OUTPUT_BASE,
            msr::RTIT_OUTPUT_MASK_PTRS,
        ];
        let saved = registers.map(|register| self.read_as(register, HOST));
        self.at(KERNEL);
        // What the CPU says of itself cannot be written.
        [saved[0] & !7, saved[1], saved[2]]
    }

    /// VM entry that loads the control.
    pub fn enter_tracing(&mut self, entry: Entry) {
        self.enter(entry);
        let control = entry.trace.control.expect("it loads it");
        self.pmu
            .map_mut()
            .set_pt_control(control)
            .expect("it can be");
        self.follow(true);
    }

    /// VM exit that clears it.
    pub fn leave_tracing(&mut self) {
        self.pmu.map_mut().set_pt_control(0).expect("it can be");
        self.follow(true);
        self.exit();
        self.at(KERNEL);
    }

    /// The guest is entered, traces and leaves.
    pub fn visit_tracing(&mut self, entry: Entry) {
        self.enter_tracing(entry);
        self.jumps(true);
        self.leave_tracing();
    }

    /// An event of the host begins.
    pub fn host_begins(&mut self, base: u64, control: u64) {
        self.write(msr::RTIT_STATUS, 0);
        self.write(msr::RTIT_OUTPUT_BASE, base);
        self.write(msr::RTIT_OUTPUT_MASK_PTRS, PAGE);
        self.host_starts(control);
    }

    pub fn host_starts(&mut self, control: u64) {
        self.write(msr::RTIT_CTL, control);
        self.follow(false);
    }

    pub fn host_stops(&mut self) {
        self.write(msr::RTIT_CTL, 0);
        self.follow(false);
    }
}

/// What a guest begins with.
pub const BEGINNING: [u64; 3] = [0, GUEST_BASE, PAGE];

/// A guest has traced and was left.
pub fn after_a_trace() -> Cpu<Intel> {
    let mut cpu = pt_cpu(0, &SharedVcpus::default());
    cpu.load_trace(BEGINNING);
    cpu.visit_tracing(TRACING);
    cpu.is_clean();
    cpu
}
