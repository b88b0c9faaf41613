// SPDX-License-Identifier: GPL-2.0
//! What Intel PT traces, packet by packet, and where that goes. The rules and where they come from stand in
//! `intel/pt/`.
//!
//! The comment above a test names a change to the model that makes the test fail.

use std::collections::BTreeMap;

use pmu_model::intel::msr::*;
use pmu_model::intel::*;
use pmu_model::Access;
use pmu_model::Owner;
use pmu_model::Pmu;

const HOST: Access = Access {
    owner: Owner::Host,
    cpl: 0,
};
const TRACE_EN: u64 = 1 << 0;
const CYC_EN: u64 = 1 << 1;
const OS: u64 = 1 << 2;
const USER: u64 = 1 << 3;
const CR3_FILTER: u64 = 1 << 7;
const TOPA: u64 = 1 << 8;
const TSC_EN: u64 = 1 << 10;
const BRANCH_EN: u64 = 1 << 13;
const FILTER0: u64 = 1 << 32;
const STOP1: u64 = 2 << 36;
const ON: u64 = TRACE_EN | OS | USER | BRANCH_EN;

const ERROR: u64 = 1 << 4;
const STOPPED: u64 = 1 << 5;
const ENABLES: u64 = 0b111;
const TRACE_TOPA_PMI: u64 = 1 << 55;

/// Where the table and the regions are.
const TABLE: u64 = 0x10_0000;
const OUTPUT: u64 = 0x20_0000;
const END: u64 = 1 << 0;
const INT: u64 = 1 << 2;
const STOP: u64 = 1 << 4;

/// IPs with the same high bytes.
const HERE: u64 = 0xffff_8000_1234_1000;
const THERE: u64 = 0xffff_8000_1234_2000;

/// Memory, of which some may be unmapped.
#[derive(Default)]
struct Memory {
    bytes: BTreeMap<u64, u8>,
    /// No page from here on is mapped.
    end: Option<u64>,
}

impl Memory {
    fn check(&self, address: u64) -> Result<(), Unmapped> {
        match self.end {
            Some(end) if address >= end => Err(Unmapped(address)),
            _ => Ok(()),
        }
    }

    fn byte(&self, address: u64) -> u8 {
        self.bytes.get(&address).copied().unwrap_or(0)
    }

    fn set_word(&mut self, address: u64, value: u64) {
        let bytes = (address..).zip(value.to_le_bytes());
        self.bytes.extend(bytes);
    }
}

impl PhysicalMemory for Memory {
    fn read(&mut self, address: u64) -> Result<u64, Unmapped> {
        self.check(address)?;
        let bytes = std::array::from_fn(|n| self.byte(address + n as u64));
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Unmapped> {
        self.check(address)?;
        self.bytes.extend((address..).zip(bytes.iter().copied()));
        Ok(())
    }

    fn is_mapped(&self) -> bool {
        self.end.is_none()
    }
}

struct Cpu {
    pmu: Pmu<Intel>,
    memory: Memory,
    now: Moment,
    /// What has been looked at of the trace.
    seen: u64,
    pmis: u32,
    unmapped: Option<Unmapped>,
}

impl Cpu {
    fn new() -> Cpu {
        let now = Moment {
            user: false,
            cr3: 0x5000,
            mode: ExecMode::Bits64,
            non_root: false,
            vmcs: None,
            tsc: 0x1122_3344_5566_7788,
            cycles: 0,
            ratio: 2,
        };
        let mut cpu = Cpu {
            pmu: Pmu::new(Intel::new(Config::ICELAKE)),
            memory: Memory::default(),
            now,
            seen: OUTPUT,
            pmis: 0,
            unmapped: None,
        };
        cpu.write(RTIT_OUTPUT_BASE, OUTPUT);
        cpu.write(RTIT_OUTPUT_MASK_PTRS, 0xffff);
        cpu
    }

    /// One that traces from [`HERE`] on; the packets of that are taken.
    fn tracing(control: u64) -> Cpu {
        let mut cpu = Cpu::new();
        cpu.control(control, HERE);
        cpu.packets();
        cpu
    }

    /// The same with a table.
    fn with_table(entries: &[u64]) -> Cpu {
        let mut cpu = Cpu::new();
        for (n, entry) in (0..).zip(entries) {
            cpu.memory.set_word(TABLE + 8 * n, *entry);
        }
        cpu.write(RTIT_OUTPUT_BASE, TABLE);
        cpu.write(RTIT_OUTPUT_MASK_PTRS, 0);
        cpu.control(ON | TOPA, HERE);
        cpu
    }

    fn write(&mut self, msr: u32, value: u64) {
        let register = self.pmu.register(msr).expect("the register exists");
        let written = self.pmu.write(register, value, HOST);
        written.expect("it can be written");
    }

    fn read(&mut self, msr: u32) -> u64 {
        let register = self.pmu.register(msr).expect("the register exists");
        self.pmu.read(register, HOST).expect("it can be read")
    }

    fn came(&mut self, outcome: PtOutcome) {
        self.pmis += u32::from(outcome.pmi);
        self.unmapped = outcome.unmapped;
    }

    /// The instruction before `next` writes the control.
    fn control(&mut self, value: u64, next: u64) {
        self.write(RTIT_CTL, value);
        let map = self.pmu.map_mut();
        let outcome = map.pt_follow((next - 2, next), &self.now, &mut self.memory);
        self.came(outcome);
    }

    fn event(&mut self, event: PtEvent) -> &mut Cpu {
        let map = self.pmu.map_mut();
        let outcome = map.pt_event(event, &self.now, &mut self.memory);
        self.came(outcome);
        self
    }

    /// What is new in the trace, in the one region.
    fn packets(&mut self) -> Vec<u8> {
        let end = OUTPUT + (self.read(RTIT_OUTPUT_MASK_PTRS) >> 32);
        let found = (self.seen..end).map(|at| self.memory.byte(at)).collect();
        self.seen = end;
        found
    }

    /// Fills so many bytes: a packet of 4 branches has one.
    fn fill(&mut self, bytes: usize) {
        for _ in 0..bytes * 6 {
            self.event(PtEvent::NotTaken);
        }
    }
}

const PSB: [u8; 16] = [
    2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82, 2, 0x82,
];
const CBR: [u8; 4] = [2, 3, 2, 0];
const PSBEND: [u8; 2] = [2, 0x23];
const MODE_64: [u8; 2] = [0x99, 1];
const NO_PGD: [u8; 1] = [0x01];
/// PIP of the CR3.
const PIP: [u8; 8] = [2, 0x43, 0, 5, 0, 0, 0, 0];

/// An IP packet of 6 bytes.
fn full(kind: u8, ip: u64) -> Vec<u8> {
    [&[kind | 3 << 5], &ip.to_le_bytes()[..6]].concat()
}

/// One of 2 bytes.
fn short(kind: u8, ip: u64) -> Vec<u8> {
    [&[kind | 1 << 5], &ip.to_le_bytes()[..2]].concat()
}

const PGD: u8 = 0x01;
const TIP: u8 = 0x0d;
const PGE: u8 = 0x11;
const FUP: u8 = 0x1d;

// Break: start() has no PSB, put_psb() forgets one of what belongs to it, or MODE.Exec is left out.
#[test]
fn a_trace_begins_with_the_state() {
    let mut cpu = Cpu::new();
    cpu.now.vmcs = Some(0x12_3456_7000);
    cpu.control(ON | TSC_EN, HERE);
    let tsc = [0x19, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22];
    let vmcs = [2, 0xc8, 0x67, 0x45, 0x23, 0x01, 0];
    let state = [&PSB[..], &tsc, &PIP, &vmcs, &CBR, &PSBEND].concat();
    let begin = [&state[..], &MODE_64, &full(PGE, HERE)].concat();
    assert_eq!(cpu.packets(), begin);
    assert_eq!(cpu.read(RTIT_STATUS), (begin.len() as u64) << 32 | ENABLES);
}

// Break: start() asks for no PacketByteCnt, or compresses the first IP.
#[test]
fn a_trace_that_goes_on_has_no_psb() {
    let mut cpu = Cpu::tracing(ON | TSC_EN);
    cpu.control(0, THERE);
    cpu.packets();
    cpu.control(ON | TSC_EN, THERE);
    let found = cpu.packets();
    assert_eq!(found[0], 0x19);
    assert_eq!(found[8..], [&CBR[..], &MODE_64, &full(PGE, THERE)].concat());
}

// Break: stop() loses branches, has another IP or none; or the enables stay set.
#[test]
fn clearing_trace_en_ends_with_where_that_was() {
    let mut cpu = Cpu::tracing(ON);
    cpu.event(PtEvent::Taken(THERE)).event(PtEvent::NotTaken);
    assert_eq!(cpu.packets(), []);
    cpu.control(OS, THERE);
    assert_eq!(
        cpu.packets(),
        [&[0b1100], &short(FUP, THERE - 2)[..], &NO_PGD].concat()
    );
    assert_eq!(cpu.read(RTIT_STATUS) & ENABLES, 0);
    cpu.event(PtEvent::Indirect(HERE));
    assert_eq!(cpu.packets(), []);
}

// Break: branch() waits for another number, or has the last one first.
#[test]
fn six_branches_are_a_packet() {
    let mut cpu = Cpu::tracing(ON);
    for taken in [true, false, false, true, true] {
        cpu.event(if taken {
            PtEvent::Taken(THERE)
        } else {
            PtEvent::NotTaken
        });
        assert_eq!(cpu.packets(), []);
    }
    cpu.event(PtEvent::NotTaken);
    assert_eq!(cpu.packets(), [0b1100_1100]);
}

// Break: ip() compresses with other bytes, or less; or last_ip stays.
#[test]
fn an_ip_has_the_bytes_that_differ() {
    let mut cpu = Cpu::tracing(ON);
    cpu.event(PtEvent::Indirect(THERE));
    assert_eq!(cpu.packets(), short(TIP, THERE));
    let far = THERE ^ 1 << 31;
    cpu.event(PtEvent::Indirect(far));
    assert_eq!(
        cpu.packets(),
        [&[TIP | 2 << 5], &far.to_le_bytes()[..4]].concat()
    );
    cpu.event(PtEvent::Indirect(0x40_0000));
    assert_eq!(cpu.packets(), full(TIP, 0x40_0000));
}

// Break: Direct has a packet, Indirect none, or branches come behind it.
#[test]
fn only_a_target_that_is_not_in_the_code_is_in_the_trace() {
    let mut cpu = Cpu::tracing(ON);
    cpu.event(PtEvent::Direct(THERE));
    assert_eq!(cpu.packets(), []);
    cpu.event(PtEvent::NotTaken).event(PtEvent::Far(THERE));
    assert_eq!(cpu.packets(), [&[0b100], &short(TIP, THERE)[..]].concat());
}

// Break: Asynchronous has no FUP, or a wrong one.
#[test]
fn what_comes_in_between_says_where() {
    let mut cpu = Cpu::tracing(ON);
    cpu.event(PtEvent::Asynchronous(HERE + 5, THERE));
    assert_eq!(
        cpu.packets(),
        [short(FUP, HERE + 5), short(TIP, THERE)].concat()
    );
}

// Break: put_mode() is not called before TIP, or always puts it.
#[test]
fn another_mode_comes_before_the_target() {
    let mut cpu = Cpu::tracing(ON);
    cpu.now.mode = ExecMode::Bits32;
    cpu.event(PtEvent::Far(THERE));
    assert_eq!(cpu.packets(), [&[0x99, 2], &short(TIP, THERE)[..]].concat());
    cpu.now.mode = ExecMode::Bits16;
    cpu.event(PtEvent::Far(HERE)).event(PtEvent::Far(THERE));
    let expected = [&[0x99, 0], &short(TIP, HERE)[..], &short(TIP, THERE)].concat();
    assert_eq!(cpu.packets(), expected);
}

// Break: follow_context() takes the other level, or shows the address at the level that is not traced.
#[test]
fn a_level_that_is_not_traced_shows_no_address() {
    let mut cpu = Cpu::new();
    cpu.now.user = true;
    cpu.control(TRACE_EN | USER | BRANCH_EN, HERE);
    cpu.packets();
    cpu.now.user = false;
    cpu.event(PtEvent::Far(THERE));
    assert_eq!(cpu.packets(), NO_PGD);
    cpu.event(PtEvent::Indirect(HERE))
        .event(PtEvent::NotTaken)
        .event(PtEvent::Cr3(HERE));
    cpu.event(PtEvent::Asynchronous(HERE, THERE))
        .event(PtEvent::Vmptrld(0));
    assert_eq!(cpu.packets(), []);
    cpu.now.user = true;
    cpu.event(PtEvent::Far(HERE + 1));
    assert_eq!(cpu.packets(), short(PGE, HERE + 1));
    cpu.now.user = false;
    cpu.event(PtEvent::Asynchronous(HERE + 2, THERE));
    assert_eq!(cpu.packets(), [&short(FUP, HERE + 2)[..], &NO_PGD].concat());
}

// Break: Cr3 has no PIP, has it with USR only, or does not follow the filter.
#[test]
fn cr3_is_in_the_trace_and_filters() {
    let mut cpu = Cpu::tracing(ON);
    cpu.event(PtEvent::NotTaken).event(PtEvent::Cr3(THERE));
    assert_eq!(cpu.packets(), [&[0b100], &PIP[..]].concat());
    cpu.control(0, THERE);
    cpu.write(RTIT_CR3_MATCH, 0x5000);
    cpu.control(ON | CR3_FILTER, THERE);
    cpu.packets();
    cpu.now.cr3 = 0x6000;
    cpu.event(PtEvent::Cr3(THERE)).event(PtEvent::Far(HERE));
    assert_eq!(cpu.packets(), NO_PGD);
    cpu.now.cr3 = 0x5018;
    cpu.event(PtEvent::Cr3(THERE));
    assert_eq!(cpu.packets(), [&PIP[..], &short(PGE, THERE)].concat());
}

// Break: in_range() leaves the last byte out, or a filter is asked for where there is none.
#[test]
fn what_is_outside_of_a_range_is_not_traced() {
    let mut cpu = Cpu::new();
    cpu.write(RTIT_ADDR0_A, THERE);
    cpu.write(RTIT_ADDR0_A + 1, THERE + 0xf);
    cpu.control(ON | FILTER0, HERE);
    assert_eq!(cpu.packets(), [&PSB[..], &PIP, &CBR, &PSBEND].concat());
    assert_eq!(cpu.read(RTIT_STATUS) & ENABLES, 0b110);
    cpu.event(PtEvent::Indirect(THERE - 1))
        .event(PtEvent::NotTaken);
    assert_eq!(cpu.packets(), []);
    cpu.event(PtEvent::Direct(THERE + 0xf));
    assert_eq!(
        cpu.packets(),
        [&MODE_64[..], &full(PGE, THERE + 0xf)].concat()
    );
    cpu.event(PtEvent::Direct(THERE + 0x10));
    assert_eq!(cpu.packets(), short(PGD, THERE + 0x10));
    cpu.event(PtEvent::Taken(THERE));
    assert_eq!(cpu.packets(), short(PGE, THERE));
    // Where a conditional branch leads to is in the code.
    cpu.event(PtEvent::Taken(HERE));
    assert_eq!(cpu.packets(), NO_PGD);
}

// Break: a stop range filters, stops at once, or sets no Stopped.
#[test]
fn a_range_stops_tracing() {
    let mut cpu = Cpu::new();
    cpu.write(RTIT_ADDR0_A + 2, THERE);
    cpu.write(RTIT_ADDR0_A + 3, THERE + 0xf);
    cpu.control(ON | STOP1, HERE);
    cpu.packets();
    cpu.event(PtEvent::Indirect(HERE + 1));
    assert_eq!(cpu.packets(), short(TIP, HERE + 1));
    cpu.event(PtEvent::Indirect(THERE));
    assert_eq!(cpu.packets(), [&short(PGD, THERE)[..], &[2, 0x83]].concat());
    assert_eq!(cpu.read(RTIT_STATUS) & (STOPPED | ENABLES), STOPPED | 0b010);
    cpu.event(PtEvent::Indirect(HERE));
    cpu.control(0, HERE);
    cpu.control(ON, HERE);
    assert_eq!(cpu.packets(), []);
}

// Break: VmEntry has no PIP, one that is concealed has, or VmExit no FUP.
#[test]
fn entry_and_exit_show_in_pip_unless_concealed() {
    let mut cpu = Cpu::tracing(ON);
    let mut inside = PIP;
    inside[2] |= 1;
    cpu.now.non_root = true;
    cpu.event(PtEvent::VmEntry(THERE, false));
    assert_eq!(cpu.packets(), [&inside[..], &short(TIP, THERE)].concat());
    cpu.now.non_root = false;
    cpu.event(PtEvent::VmExit(THERE + 1, HERE, false));
    let exit = [&short(FUP, THERE + 1)[..], &PIP, &short(TIP, HERE)].concat();
    assert_eq!(cpu.packets(), exit);
    cpu.event(PtEvent::VmEntry(THERE, true));
    cpu.event(PtEvent::VmExit(THERE + 1, HERE, true));
    let concealed = [(TIP, THERE), (FUP, THERE + 1), (TIP, HERE)];
    assert_eq!(
        cpu.packets(),
        concealed.map(|(kind, ip)| short(kind, ip)).concat()
    );
}

// Break: Vmptrld is in the trace of one that is not in VMX operation, or shows other bits.
#[test]
fn vmptrld_is_in_the_trace_where_vmx_shows() {
    let mut cpu = Cpu::tracing(ON);
    cpu.event(PtEvent::Vmptrld(0x1000));
    assert_eq!(cpu.packets(), []);
    cpu.now.vmcs = Some(u64::MAX);
    cpu.event(PtEvent::Vmptrld(0x12_3456_7000));
    assert_eq!(cpu.packets(), [2, 0xc8, 0x67, 0x45, 0x23, 0x01, 0]);
}

// Break: BRANCH_EN is not part of PacketEn.
#[test]
fn without_branches_what_else_there_is_is_traced() {
    let mut cpu = Cpu::tracing(ON & !BRANCH_EN);
    cpu.event(PtEvent::Indirect(THERE))
        .event(PtEvent::Asynchronous(HERE, THERE));
    assert_eq!(cpu.packets(), []);
    cpu.event(PtEvent::Cr3(THERE));
    assert_eq!(cpu.packets(), PIP);
}

// Break: psb_period() is another, PSB comes inside of an event, or last_ip is not forgotten.
#[test]
fn psb_comes_again() {
    let mut cpu = Cpu::tracing(ON | 1 << 24);
    let sent = cpu.read(RTIT_STATUS) >> 32;
    cpu.fill(4096 - sent as usize - 1);
    cpu.event(PtEvent::Direct(THERE));
    cpu.packets();
    cpu.event(PtEvent::Asynchronous(HERE, THERE));
    let event = [short(FUP, HERE), short(TIP, THERE)].concat();
    let state = [&PSB[..], &PIP, &CBR, &MODE_64, &full(FUP, THERE), &PSBEND].concat();
    assert_eq!(cpu.packets(), [event, state].concat());
    cpu.event(PtEvent::Indirect(HERE));
    assert_eq!(cpu.packets(), short(TIP, HERE));
}

// Break: put_timed() puts CYC where no cycle has passed, or with other bits.
#[test]
fn cycles_come_before_packets() {
    let mut cpu = Cpu::tracing(ON | CYC_EN);
    cpu.event(PtEvent::Indirect(THERE));
    assert_eq!(cpu.packets(), short(TIP, THERE));
    cpu.now.cycles = 5;
    cpu.event(PtEvent::Indirect(HERE));
    assert_eq!(
        cpu.packets(),
        [&[5 << 3 | 3], &short(TIP, HERE)[..]].concat()
    );
    cpu.now.cycles += 1 << 5 | 3;
    cpu.event(PtEvent::Indirect(HERE));
    assert_eq!(cpu.packets()[..2], [3 << 3 | 0b111, 1 << 1]);
    cpu.now.cycles += 1 << 12;
    cpu.event(PtEvent::Indirect(HERE));
    assert_eq!(cpu.packets()[..3], [0b111, 1, 1 << 1]);
}

// Break: filled() keeps the offset of a single range, or sets a bit.
#[test]
fn a_single_range_is_a_ring() {
    let mut cpu = Cpu::new();
    cpu.write(RTIT_OUTPUT_MASK_PTRS, 0x7f);
    cpu.control(ON, HERE);
    let sent = cpu.read(RTIT_OUTPUT_MASK_PTRS) >> 32;
    cpu.fill(128 - sent as usize);
    assert_eq!(cpu.read(RTIT_OUTPUT_MASK_PTRS), 0x7f);
    cpu.fill(2);
    assert_eq!(cpu.read(RTIT_OUTPUT_MASK_PTRS), 2 << 32 | 0x7f);
    assert_eq!(
        (cpu.memory.byte(OUTPUT + 1), cpu.memory.byte(OUTPUT + 128)),
        (0x80, 0)
    );
    assert_eq!((cpu.pmis, cpu.read(GLOBAL_STATUS)), (0, 0));
}

// Break: region() takes a base that overlaps the mask, or an offset beyond it.
#[test]
fn a_range_that_cannot_be_is_an_error() {
    for (base, mask) in [
        (OUTPUT | 0x80, 0xff),
        (OUTPUT, 0x80 << 32 | 0x7f),
        (OUTPUT, 0x17f),
    ] {
        let mut cpu = Cpu::new();
        cpu.write(RTIT_OUTPUT_BASE, base);
        cpu.write(RTIT_OUTPUT_MASK_PTRS, mask);
        cpu.control(ON, HERE);
        assert_eq!(
            cpu.read(RTIT_STATUS) & (ERROR | 0b100),
            ERROR,
            "{base:#x} {mask:#x}"
        );
        assert_eq!(cpu.memory.bytes, BTreeMap::new());
    }
}

// Break: filled() goes on in the same region, takes END for a region, or has INT of the next entry.
#[test]
fn tables_lead_from_region_to_region() {
    let next = TABLE + 0x1000;
    let mut cpu = Cpu::with_table(&[OUTPUT, (OUTPUT + 0x8000) | 1 << 6 | INT, next | END]);
    cpu.memory.set_word(next, OUTPUT + 0x4000);
    let sent = cpu.read(RTIT_OUTPUT_MASK_PTRS) >> 32;
    cpu.fill(4096 - sent as usize - 1);
    assert_eq!(cpu.read(RTIT_OUTPUT_MASK_PTRS), 4095 << 32 | 0x7f);
    // PSB comes in between: what is behind it is looked at by places only.
    while cpu.read(RTIT_OUTPUT_MASK_PTRS) >> 7 & 1 == 0 {
        cpu.fill(1);
    }
    assert_eq!((cpu.pmis, cpu.read(GLOBAL_STATUS)), (0, 0));
    while cpu.read(RTIT_OUTPUT_BASE) == TABLE {
        assert_eq!(cpu.pmis, 0);
        cpu.fill(1);
    }
    assert_eq!(cpu.read(RTIT_OUTPUT_BASE), next);
    assert_eq!(cpu.read(RTIT_OUTPUT_MASK_PTRS) & 0xffff_ffff, 0x7f);
    assert_eq!((cpu.pmis, cpu.read(GLOBAL_STATUS)), (1, TRACE_TOPA_PMI));
    assert_ne!(cpu.memory.byte(OUTPUT + 0x9fff), 0);
    assert_eq!(cpu.memory.byte(OUTPUT + 0x1000), 0);
}

// Break: STOP has the registers go on, or INT is lost with it; PMIs freeze nothing.
#[test]
fn a_table_stops_where_it_says() {
    const FREEZE_PERFMON_ON_PMI: u64 = 1 << 12;
    const CTR_FRZ: u64 = 1 << 59;
    let mut cpu = Cpu::with_table(&[OUTPUT | STOP | INT, OUTPUT + 0x1000]);
    cpu.pmu.map_mut().set_debugctl(FREEZE_PERFMON_ON_PMI);
    cpu.fill(5000);
    assert_eq!(cpu.read(RTIT_STATUS) & (STOPPED | ERROR | 0b100), STOPPED);
    assert_eq!(cpu.read(RTIT_OUTPUT_BASE), TABLE);
    assert_eq!(cpu.read(RTIT_OUTPUT_MASK_PTRS), 0x1000 << 32 | 0x7f);
    assert_eq!(cpu.memory.byte(OUTPUT + 0x1000), 0);
    assert_eq!(
        (cpu.pmis, cpu.read(GLOBAL_STATUS)),
        (1, TRACE_TOPA_PMI | CTR_FRZ)
    );
    assert!(!cpu.pmu.map().follows_branches());
}

// Break: entry() asks for no reserved bits, region() for no alignment, or filled() takes any END.
#[test]
fn a_table_that_cannot_be_is_an_error() {
    let bad = [
        OUTPUT | 1 << 1,
        OUTPUT | 1 << 10,
        OUTPUT | 1 << 40,
        (OUTPUT + 0x1000) | 1 << 6,
        TABLE | END,
    ];
    for entry in bad {
        let mut cpu = Cpu::with_table(&[entry]);
        assert_eq!(cpu.read(RTIT_STATUS) & (ERROR | 0b100), ERROR, "{entry:#x}");
    }
    let mut cpu = Cpu::with_table(&[OUTPUT, TABLE | END | STOP]);
    assert_eq!(cpu.read(RTIT_STATUS) & ERROR, 0);
    cpu.fill(5000);
    assert_eq!(cpu.read(RTIT_STATUS) & (ERROR | 0b100), ERROR);
    let mut cpu = Cpu::new();
    cpu.write(RTIT_OUTPUT_BASE, TABLE + 0x80);
    cpu.control(ON | TOPA, HERE);
    assert_eq!(cpu.read(RTIT_STATUS) & ERROR, ERROR);
}

// Break: start() or flush() does not translate ahead; or something is traced before that is mapped.
#[test]
fn what_is_not_mapped_is_asked_for_ahead() {
    let mut cpu = Cpu::new();
    cpu.memory.end = Some(OUTPUT);
    cpu.control(ON, HERE);
    assert_eq!(cpu.unmapped, Some(Unmapped(OUTPUT)));
    assert_eq!(cpu.memory.bytes, BTreeMap::new());
    assert!(!cpu.pmu.map().follows_branches());
    cpu.control(0, HERE);
    cpu.memory.end = Some(OUTPUT + 0x1000);
    cpu.control(ON, HERE);
    assert_eq!(cpu.unmapped, None);
    let mut filled = cpu.packets().len();
    while cpu.unmapped.is_none() {
        cpu.fill(1);
        filled += cpu.packets().len();
    }
    assert_eq!(cpu.unmapped, Some(Unmapped(OUTPUT + 0x1000)));
    assert!((3584..3600).contains(&filled), "{filled}");
}

// Break: what was lost is not said, or the packets behind it lean on it.
#[test]
fn what_finds_no_place_is_lost_with_a_packet_that_says_so() {
    let mut cpu = Cpu::new();
    cpu.memory.end = Some(OUTPUT + 0x1000);
    cpu.control(ON | 5 << 24, HERE);
    cpu.fill(4096 + 300);
    cpu.memory.end = Some(u64::MAX);
    cpu.packets();
    cpu.event(PtEvent::Resumed(THERE));
    let found = cpu.packets();
    let end = [&[2, 0xf3], &full(FUP, THERE)[..]].concat();
    assert_eq!(found[found.len() - end.len()..], end);
    cpu.event(PtEvent::Indirect(HERE));
    assert_eq!(cpu.packets(), short(TIP, HERE));
}
