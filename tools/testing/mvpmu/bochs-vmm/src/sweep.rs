// SPDX-License-Identifier: GPL-2.0

//! The sweep: an event injected at each instruction of a part of the run.
//!
//! The run is deterministic, so a process that is forked goes on exactly as this one would. L1 says
//! by CPUID of the machine's own leaf where the part begins and where it ends, and what its results
//! are. Where it begins, a child runs to the end as it is: what it shows is what must be shown.
//! Before each instruction of the kernel of L1 in between (every so many, if so asked) there is a
//! child for each kind of event: it gets the event, runs to the end, and has to show the same: the
//! results, the console, and what the oracle says. This process itself goes on as if nothing were.
//!
//! An event is noticed when the instruction has been executed.
//!
//! L1 may name places in its code. Then only what runs from an entry of one of them to its return
//! is swept, with all that it calls.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::FromRawFd;

use clap::ValueEnum;
use pmu_model::sweep::Places;
use pmu_model::sweep::BEGIN;
use pmu_model::sweep::END;
use pmu_model::sweep::PLACE;
use pmu_model::sweep::RESULT;

use crate::console;
use crate::core;
use crate::ioapic;
use crate::layout;
use crate::layout::gpr;
use crate::lvtpc;
use crate::single::SingleCell;
use crate::single::SingleThread;
use crate::stop;
use crate::watch;

/// A child that takes so many instructions longer than the one without an event hangs.
const PATIENCE: u64 = 20_000_000;

/// What is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// An NMI for no reason
    Nmi,
    /// A PMI as LVTPC has it, without an overflow: one that comes late
    Pmi,
    /// The local APIC's timer
    Timer,
    /// A byte at the serial port: somebody may wait for it
    Byte,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Nmi => "nmi",
            Kind::Pmi => "pmi",
            Kind::Timer => "timer",
            Kind::Byte => "byte",
        }
    }

    fn inject(self) {
        /// The local APIC's entry for its timer.
        const LVT_TIMER: u64 = 0xfee0_0320;
        const MASKED: u32 = 1 << 16;
        const MODE_NMI: u8 = 4;
        let lapic = layout::lapic();
        match self {
            Kind::Nmi => {
                core::lapic_deliver(lapic, 0, MODE_NMI, 0);
            }
            Kind::Pmi => {
                lvtpc::deliver();
            }
            Kind::Timer => {
                let entry = core::lapic_read(lapic, LVT_TIMER);
                if entry & MASKED == 0 {
                    core::lapic_deliver(lapic, entry as u8, 0, 0);
                }
            }
            Kind::Byte => {
                console::type_bytes(b"x");
                ioapic::pulse(console::IRQ);
            }
        }
    }

    /// What the kernel may say of it: it asks every NMI for its reason.
    fn explains(self, line: &str) -> bool {
        let unknown = ["NMI received for unknown reason", "Dazed and confused"];
        matches!(self, Kind::Nmi | Kind::Pmi) && unknown.iter().any(|text| line.contains(text))
    }
}

/// What to sweep.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The kinds of events; none: no sweep.
    pub kinds: Vec<Kind>,
    /// Only after each so many-th instruction.
    pub every: u64,
    /// Only from this one on.
    pub from: u64,
    /// Only to this one.
    pub to: u64,
    /// Only the first so many times that one is executed.
    pub times: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Waits,
    Sweeps,
    Child,
}

/// What a child has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    status: i32,
    text: String,
}

impl Shown {
    /// The first line that is not in `expected`.
    fn first_other_than(&self, expected: &Shown) -> String {
        let mut expected = expected.text.lines();
        let mut lines = self.text.lines();
        lines
            .find(|line| expected.next() != Some(line))
            .unwrap_or_default()
            .to_owned()
    }
}

/// Where something else was shown than should be.
#[derive(Clone, Copy, Debug)]
struct At {
    instruction: u64,
    rip: u64,
}

struct Failure {
    at: At,
    shown: Shown,
    times: u64,
}

#[derive(Default)]
struct Sweep {
    plan: Plan,
    /// What must be shown.
    expected: Shown,
    /// Where it is to be; none: everywhere.
    places: Places,
    /// Instructions of the part so far.
    instructions: u64,
    /// How often each was executed.
    times: HashMap<u64, u64>,
    cases: u64,
    /// By the first line that differs: what else was shown, where first, and how often.
    failed: BTreeMap<(Kind, String), Failure>,
}

impl Sweep {
    /// An instruction is about to be executed: whether events are to come after it.
    fn is_due(&mut self, rip: u64) -> bool {
        if !self.places.is_empty() && !self.is_inside(rip) {
            return false;
        }
        self.instructions += 1;
        let times = self.times.entry(rip).or_default();
        *times += 1;
        let plan = &self.plan;
        *times <= plan.times
            && (plan.from..=plan.to).contains(&self.instructions)
            && self.instructions.is_multiple_of(plan.every)
    }

    fn is_inside(&mut self, rip: u64) -> bool {
        let rsp = layout::GPR.element(gpr::RSP).get();
        self.places.is_inside(rip, rsp)
    }
}

static STATE: SingleCell<State> = SingleCell::new(State::Off);
static SWEEP: SingleThread<Option<Sweep>> = SingleThread::new(None);
/// Where a child ends at the latest.
static LIMIT: SingleCell<u64> = SingleCell::new(u64::MAX);

fn set_state(state: State) {
    STATE.set(state);
    watch::set_on_all(watch::by::SWEEP, state == State::Sweeps);
}

/// Prepares a sweep.
pub fn create(plan: Plan) {
    if !plan.kinds.is_empty() {
        set_state(State::Waits);
        let sweep = Sweep {
            plan,
            ..Sweep::default()
        };
        SWEEP.with(|slot| *slot = Some(sweep));
    }
}

/// Whether this is a child: all that is left of it is what it has shown.
pub fn is_child() -> bool {
    STATE.get() == State::Child
}

/// Where this process ends at the latest.
pub fn limit() -> u64 {
    LIMIT.get()
}

/// L1 has executed CPUID of the machine's leaf, with this in ECX.
pub fn mark(number: u32) {
    match (number, STATE.get()) {
        (PLACE, State::Waits) => name_place(),
        (BEGIN, State::Waits) => begin(),
        // Results that were told are not told again by a child.
        (RESULT | END, State::Sweeps) => set_state(State::Waits),
        (END, State::Child) => stop::now(stop::Reason::Swept),
        (RESULT, State::Child) => {
            println!("result: {}", layout::GPR.element(gpr::RBX).get::<u64>());
        }
        _ => {}
    }
}

fn name_place() {
    let [from, to] = [gpr::RBX, gpr::RDX].map(|register| layout::GPR.element(register).get());
    SWEEP.with(|sweep| {
        if let Some(sweep) = sweep {
            sweep.places.add(from..to);
        }
    });
}

fn begin() {
    let from: u64 = layout::ICOUNT.get();
    if let Some(shown) = run(None) {
        SWEEP.with(|sweep| {
            if let Some(sweep) = sweep {
                sweep.expected = shown;
            }
        });
        set_state(State::Sweeps);
    } else {
        LIMIT.set(from + PATIENCE);
    }
}

/// An instruction is about to be executed, and interrupted.
pub fn step() {
    if layout::IN_VMX_GUEST.get::<u8>() != 0 || layout::CPL.get::<u8>() != 0 {
        return;
    }
    let rip = layout::PREV_RIP.get();
    let due = SWEEP.with(|sweep| {
        let sweep = sweep.as_mut()?;
        let due = sweep.is_due(rip);
        due.then(|| (sweep.instructions, sweep.plan.kinds.clone()))
    });
    let Some((instruction, kinds)) = due else {
        return;
    };
    let from: u64 = layout::ICOUNT.get();
    for kind in kinds {
        match run(Some(kind)) {
            Some(shown) => judge(kind, shown, At { instruction, rip }),
            None => {
                LIMIT.set(from + PATIENCE);
                break;
            }
        }
    }
}

/// Has a child run to the end; the result is what it has shown. `None` in the child.
fn run(kind: Option<Kind>) -> Option<Shown> {
    // What is buffered would be written twice.
    let _ = std::io::stdout().flush();
    let mut ends = [0; 2];
    // SAFETY: `ends` takes the two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        cannot("pipe");
    }
    // SAFETY: The one thread of this program: the child has all of it.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => cannot("fork"),
        0 => {
            // SAFETY: Descriptors of this process, and one system call without memory.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::dup2(ends[1], libc::STDOUT_FILENO);
                libc::dup2(ends[1], libc::STDERR_FILENO);
                libc::close(ends[0]);
                libc::close(ends[1]);
            }
            set_state(State::Child);
            if let Some(kind) = kind {
                kind.inject();
            }
            None
        }
        _ => {
            // SAFETY: A descriptor of this process, which nobody else closes.
            unsafe { libc::close(ends[1]) };
            // SAFETY: As above; the file owns it from here on.
            let mut from = unsafe { File::from_raw_fd(ends[0]) };
            let mut bytes = Vec::new();
            if from.read_to_end(&mut bytes).is_err() {
                cannot("read");
            }
            let mut status = 0;
            // SAFETY: `status` takes the status of a child of this process.
            if unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
                cannot("waitpid");
            }
            let text = String::from_utf8_lossy(&bytes);
            let lines = text.lines().map(str::trim_end);
            let lines = lines.filter(|line| !kind.is_some_and(|kind| kind.explains(line)));
            Some(Shown {
                status,
                text: lines.collect::<Vec<_>>().join("\n"),
            })
        }
    }
}

fn cannot(what: &str) -> ! {
    let error = std::io::Error::last_os_error();
    eprintln!("bochs-vmm: sweep: {what}: {error}");
    std::process::abort()
}

fn judge(kind: Kind, shown: Shown, at: At) {
    SWEEP.with(|sweep| {
        let Some(sweep) = sweep else { return };
        sweep.cases += 1;
        if shown == sweep.expected {
            return;
        }
        let line = shown.first_other_than(&sweep.expected);
        let failure = sweep.failed.entry((kind, line)).or_insert(Failure {
            at,
            shown,
            times: 0,
        });
        failure.times += 1;
    });
}

/// What a sweep has found, as lines that begin with "sweep:". Addresses of code have 16 digits, so
/// that they can be given names.
pub struct Report(());

/// What the sweep has found, if there was to be one.
pub fn report() -> Option<Report> {
    SWEEP.with(|sweep| sweep.is_some()).then_some(Report(()))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SWEEP.with(|sweep| match sweep {
            Some(sweep) => sweep.fmt(f),
            None => Ok(()),
        })
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: u64 = self.failed.values().map(|failure| failure.times).sum();
        let failed = failed + self.places.not_entered().count() as u64;
        let (instructions, cases) = (self.instructions, self.cases);
        writeln!(
            f,
            "sweep: {instructions} instructions, {cases} cases, {failed} failed"
        )?;
        for line in self.expected.text.lines() {
            writeln!(f, "sweep: expected: {line}")?;
        }
        for begin in self.places.not_entered() {
            writeln!(f, "sweep: failed: nothing has run at {begin:#018x}")?;
        }
        for ((kind, _), failure) in &self.failed {
            let Failure {
                at: At { instruction, rip },
                shown: Shown { status, text },
                times,
            } = failure;
            let kind = kind.name();
            writeln!(
                f,
                "sweep: failed: {kind} after instruction {instruction}, at {rip:#018x}, and {} more: status {status:#x}",
                times - 1
            )?;
            for line in text.lines() {
                writeln!(f, "sweep:   {line}")?;
            }
        }
        Ok(())
    }
}
