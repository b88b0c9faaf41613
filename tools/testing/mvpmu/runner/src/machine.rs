// SPDX-License-Identifier: GPL-2.0

//! The test machines: which command boots L1.
//!
//! All keep the same contract with L1: the console is the first serial port
//! (here stdin and stdout), bytes written to I/O port 0xe9 go to a file, and
//! writing 0 to port 0xf4 ends the machine with exit status 1.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use clap::ValueEnum;
use pmu_model::profile;
use pmu_model::profile::Profile;
use serde::Serialize;

use crate::oracle::Oracle;
use crate::paths;
use crate::paths::Kernel;

/// A test machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// QEMU with an emulated PerfMonV2: SVM.
    Amd,
    /// Our VMM around the Bochs CPU core: VMX and the architectural PMU.
    Intel,
}

/// What CPU a machine is.
pub type Cpu = &'static Profile;

/// The CPU of this name, of either machine.
pub fn cpu(name: &str) -> Result<Cpu, String> {
    Profile::named(name, |_| true)
}

/// The PMU of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pmu {
    /// As it should be.
    #[default]
    On,
    /// A version that mvpmu does not support.
    Old,
    /// None.
    Off,
}

/// What time is on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// What is best for it: on the AMD machine the host's time.
    #[default]
    Own,
    /// A nanosecond is an instruction, on the only CPU. Two boots are the same then.
    Instructions,
}

/// What somebody has given to be booted, in place of what is built here.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// A kernel: a bzImage.
    pub kernel: Option<PathBuf>,
    /// The modules for it.
    pub modules: Option<PathBuf>,
    /// The initial root file system.
    pub initrd: Option<PathBuf>,
    /// The firmware starts what is on the disk. (The Intel machine has none.)
    pub on_disk: bool,
}

impl Given {
    /// Whether what is booted is somebody's own.
    pub fn is_any(&self) -> bool {
        self.kernel.is_some() || self.initrd.is_some() || self.on_disk
    }
}

/// One boot of a machine.
#[derive(Clone, Debug)]
pub struct Boot {
    /// On which machine.
    pub machine: Machine,
    /// Which CPU it is.
    pub cpu: Cpu,
    /// With which PMU.
    pub pmu: Pmu,
    /// What its oracle does.
    pub oracle: Oracle,
    /// Whether the machine can run KVM.
    pub virtualisation: bool,
    /// How many CPUs it has.
    pub cpus: u32,
    /// What time it has.
    pub clock: Clock,
    /// Which kernel.
    pub kernel: Kernel,
    /// What is booted in place of that, or of our initial root file system.
    pub given: Given,
    /// A disk that it has. (The Intel machine has none.)
    pub disk: Option<PathBuf>,
    /// Further options of the program that is the machine.
    pub options: &'static [&'static str],
    /// Options of the PMU, NAME=VALUE: those that all machines have are in pmu-model/src/options.rs.
    pub model: Vec<String>,
    /// A work-around for a bug of the emulator, which is left out.
    pub without: Option<String>,
    /// A warning of the kernel ends the run.
    pub panics_on_warning: bool,
    /// Further words on the kernel command line.
    pub append: String,
}

impl Boot {
    /// A machine with everything on.
    pub fn new(machine: Machine) -> Self {
        Boot {
            machine,
            cpu: machine.cpu(),
            pmu: Pmu::On,
            oracle: Oracle::On,
            virtualisation: true,
            cpus: machine.usual_cpus(),
            clock: Clock::Own,
            kernel: Kernel::Main,
            given: Given::default(),
            disk: None,
            options: &[],
            model: Vec::new(),
            without: None,
            panics_on_warning: true,
            append: String::new(),
        }
    }

    /// The machine that can be this CPU.
    pub fn of_cpu(cpu: Cpu) -> Self {
        Boot {
            cpu,
            ..Boot::new(Machine::of(cpu))
        }
    }

    /// The same with two CPUs, if it has fewer.
    pub fn with_two_cpus(self) -> Self {
        Boot {
            cpus: self.cpus.max(2),
            ..self
        }
    }

    /// The same with one CPU, whose instructions are the time.
    pub fn with_instruction_clock(self) -> Self {
        Boot {
            cpus: 1,
            clock: Clock::Instructions,
            ..self
        }
    }

    /// The machine for people, with the CPU if it is not the one that the machine is else.
    pub fn name(&self) -> String {
        name(self.cpu)
    }
}

/// The files of a boot.
pub struct Files {
    /// What to boot; without it, what the machine's firmware finds.
    pub kernel: Option<PathBuf>,
    /// The initial root file system.
    pub initrd: Option<PathBuf>,
    /// Where the bytes of the data port go.
    pub data: PathBuf,
    /// Where the machine writes its statistics.
    pub stats: PathBuf,
}

/// The machine that is this CPU, for people; with the CPU if the machine is another one else.
pub fn name(cpu: Cpu) -> String {
    let machine = Machine::of(cpu);
    if cpu == machine.cpu() {
        machine.name().to_owned()
    } else {
        format!("{} {}", machine.name(), cpu.name)
    }
}

/// The exit status of a machine that L1 has ended.
pub const CLEAN_END: i32 = 1;

/// That of the Intel machine, when a kernel has reset or halted it.
pub const RESET: i32 = 3;

impl Machine {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Machine::Amd => "amd",
            Machine::Intel => "intel",
        }
    }

    /// The CPU that it is, unless it is to be another one.
    pub fn cpu(self) -> Cpu {
        match self {
            Machine::Amd => &profile::ZEN4,
            Machine::Intel => &profile::SAPPHIRE_RAPIDS,
        }
    }

    /// The one that can be this CPU.
    pub fn of(cpu: Cpu) -> Machine {
        match cpu.is_amd() {
            true => Machine::Amd,
            false => Machine::Intel,
        }
    }

    /// The module of KVM for CPUs of the other vendor.
    pub fn foreign_module(self) -> &'static str {
        match self {
            Machine::Amd => "kvm_intel",
            Machine::Intel => "kvm_amd",
        }
    }

    /// How many CPUs it has unless more are asked for. Those of the Intel machine take turns.
    fn usual_cpus(self) -> u32 {
        match self {
            Machine::Amd => 2,
            Machine::Intel => 1,
        }
    }

    /// What must be built for it.
    pub fn needs(self) -> Vec<PathBuf> {
        match self {
            Machine::Amd => vec![paths::tool("libqemu_pmu.so")],
            Machine::Intel => vec![paths::tool("bochs-vmm"), paths::BOCHS.into()],
        }
    }

    /// What to type for the machine to tell where its CPUs are, and to end.
    pub fn questions(self) -> Option<&'static str> {
        match self {
            // Ctrl-A C: from the console to the monitor.
            Machine::Amd => Some("\x01cinfo registers -a\ninfo lapic 0\ninfo lapic 1\nquit\n"),
            Machine::Intel => None,
        }
    }

    /// The form of the kernel that it boots.
    pub fn kernel(self) -> &'static str {
        match self {
            Machine::Amd => "bzImage",
            Machine::Intel => "vmlinux",
        }
    }

    /// The command that boots it.
    pub fn command(self, boot: &Boot, files: &Files) -> Command {
        match self {
            Machine::Amd => qemu(boot, files),
            Machine::Intel => bochs(boot, files),
        }
    }
}

/// OVMF, which starts from disks, and its variables, of which nothing is kept.
const FIRMWARE: [(&str, &str); 2] = [
    ("readonly=on", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
    ("snapshot=on", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
];

/// The bug of QEMU that this command works round.
pub const ONE_THREAD: &str = "one-thread";

/// Whether guests can have a branch stack there: AMD's LbrExtV2, or Intel's architectural one.
pub fn has_branch_stack(cpu: Cpu) -> bool {
    match cpu.pmu {
        profile::Pmu::Intel { config, .. } => config.lbr,
        profile::Pmu::Amd(_) => true,
    }
}

/// The microcode that Linux wants, where that of QEMU's CPU is not it: with an older one RDSEED of Zen 5
/// is broken (arch/x86/kernel/cpu/amd.c, `zen5_rdseed_microcode`).
fn microcode(cpu: Cpu) -> &'static str {
    match cpu == &profile::ZEN5 {
        true => ",ucode-rev=0x0b00215a",
        false => "",
    }
}

/// Stock QEMU, emulating everything, with our plugin as the PMU. One host
/// thread for each CPU: with a single thread for all, QEMU gives the plugin
/// the wrong CPU.
fn qemu(boot: &Boot, files: &Files) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    let plugin = absolute(&paths::tool("libqemu_pmu.so"));
    let pmu = match boot.pmu {
        Pmu::On => "on",
        Pmu::Old => "old",
        Pmu::Off => "off",
    };
    let svm = if boot.virtualisation { "" } else { ",-svm" };
    let cpu = &boot.cpu.signature;
    let signature = format!(
        "family={},model={},stepping={},model-id={}{}",
        cpu.family,
        cpu.model,
        cpu.stepping,
        cpu.brand,
        microcode(boot.cpu)
    );
    let without = match &boot.without {
        Some(quirk) => format!(",without={quirk}"),
        None => String::new(),
    };
    let threads = match (boot.without.as_deref(), boot.clock) {
        (Some(ONE_THREAD), _) | (_, Clock::Instructions) => "single",
        _ => "multi",
    };
    let model: String = boot.model.iter().map(|o| format!(",{o}")).collect();
    let data = files.data.display();
    let stats = files.stats.display();
    command
        .args(["-accel", &format!("tcg,thread={threads}")])
        .args(["-machine", "q35", "-m", "2G", "-nodefaults"])
        .args([
            "-cpu",
            &format!("EPYC-Genoa,-avx512f,+x2apic{svm},{signature}"),
        ])
        .args(["-smp", &boot.cpus.to_string()])
        .args(["-display", "none", "-no-reboot"])
        .args(["-serial", "mon:stdio"])
        .args(["-chardev", &format!("file,id=data,path={data}")])
        .args(["-device", "isa-debugcon,iobase=0xe9,chardev=data"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .arg("-plugin")
        .arg(format!(
            "{},cpu={},pmu={pmu},oracle={},stats={stats}{without}{model}",
            plugin.display(),
            boot.cpu.name,
            boot.oracle.name()
        ));
    if let Some(kernel) = &files.kernel {
        command.arg("-kernel").arg(kernel);
    } else {
        for (options, file) in FIRMWARE {
            let drive = format!("if=pflash,format=raw,{options},file={file}");
            command.args(["-drive", &drive]);
        }
    }
    if let Some(disk) = &boot.disk {
        let disk = disk.display();
        let drive = format!("if=virtio,format=raw,cache=unsafe,file={disk}");
        command.args(["-drive", &drive]);
    }
    if boot.clock == Clock::Instructions {
        command
            .args(["-icount", "shift=0,sleep=off", "-seed", "1"])
            .args(["-rtc", "clock=vm,base=2026-01-01"]);
    }
    command.args(boot.options);
    if let Some(initrd) = &files.initrd {
        command.arg("-initrd").arg(initrd);
        command.args(["-append", &command_line(boot)]);
    }
    command
}

/// Our VMM.
fn bochs(boot: &Boot, files: &Files) -> Command {
    let mut command = Command::new(paths::tool("bochs-vmm"));
    let pmu = match boot.pmu {
        Pmu::On => "on",
        Pmu::Old => "old",
        Pmu::Off => "off",
    };
    command
        .args(["--bochs", paths::BOCHS, "--mem", "2048"])
        .args(["--cpu", boot.cpu.name, "--pmu", pmu])
        .args(["--cpus", &boot.cpus.to_string()])
        .args(["--oracle", boot.oracle.name()])
        .arg("--stream")
        .arg(&files.data)
        .arg("--stats")
        .arg(&files.stats);
    if let Some(kernel) = &files.kernel {
        command.arg("--kernel").arg(kernel);
    }
    if !boot.virtualisation {
        command.args(["--vmx", "off"]);
    }
    if let Some(quirk) = &boot.without {
        command.args(["--without-quirk", quirk]);
    }
    if boot.clock == Clock::Instructions {
        command.args(["--mhz", "1000"]);
    }
    command.args(boot.options);
    command.args(boot.model.iter().map(|option| format!("--{option}")));
    if let Some(initrd) = &files.initrd {
        command.arg("--initrd").arg(initrd);
        command.args(["--append", &command_line(boot)]);
    }
    command
}

fn command_line(boot: &Boot) -> String {
    let mut line = String::from("console=ttyS0 panic=-1");
    // Its timer interrupts come by the host's time. Linux waits for some at boot, and panics when a
    // busy host lets too few through.
    // Its TSCs are one. Linux would have its CPUs compare them now and then: one that does, with
    // interrupts off, and one that is stopping the machine for a new clock wait for each other for
    // ever, as the time that is to end it stands still meanwhile (watchdog_check_skew()).
    if boot.machine == Machine::Amd {
        line.push_str(" no_timer_check tsc=reliable");
    }
    // The oracle knows KVM's code by where modules are, which may be the kernel's own place else. The Intel
    // machine says so by itself.
    if boot.machine == Machine::Amd && boot.oracle != Oracle::Off {
        line.push_str(" nokaslr");
    }
    if !boot.given.is_any() {
        line.push_str(" quiet");
    }
    if boot.panics_on_warning && !boot.given.is_any() {
        line.push_str(" panic_on_warn=1");
    }
    if !boot.append.is_empty() {
        line.push(' ');
        line.push_str(&boot.append);
    }
    line
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
