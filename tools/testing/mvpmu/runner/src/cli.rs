// SPDX-License-Identifier: GPL-2.0

//! What the runner can be asked for on its command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

use crate::calls;
use crate::differential;
use crate::machine;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Given;
use crate::machine::Machine;
use crate::machine::Pmu;
use crate::oracle::Oracle;
use crate::paths::Kernel;
use crate::sweep;
use crate::sweep::Company;

/// The command line.
#[derive(Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Task,
}

/// What can be asked for.
#[derive(Subcommand)]
pub enum Task {
    /// Runs one job in L1
    Boot {
        #[command(flatten)]
        options: Options,
        /// Script: a name in initramfs/jobs, or a path
        #[arg(long)]
        job: String,
        /// Argument of the script, may be repeated
        #[arg(long = "arg")]
        arguments: Vec<String>,
        /// The job needs QEMU and a Linux guest
        #[arg(long)]
        linux_guest: bool,
        /// The job needs perf, here and in the guest
        #[arg(long)]
        perf: bool,
        /// The job needs mvpmu-top and mvpmu-check
        #[arg(long)]
        host_tools: bool,
        /// The job needs libvirt, and the recipes of the page of hypervisors
        #[arg(long)]
        libvirt: bool,
        /// Time limit in seconds
        #[arg(long, default_value_t = 120)]
        timeout: u64,
        /// Directory for the console and the files of the job
        #[arg(long, default_value = "build/boot")]
        out: PathBuf,
    },
    /// Loads mvpmu, lets guests count, writes build/demo/report.json
    Demo {
        #[command(flatten)]
        options: Options,
    },
    /// The file that a real machine boots, build/image/mvpmu.efi
    Image {
        /// The configuration of its kernel
        #[arg(long, default_value = "small")]
        config: String,
    },
    /// All tests
    Test {
        #[command(flatten)]
        machines: Machines,
        /// The oracle of the machines; other than on: for measuring
        #[arg(long, value_enum, default_value_t)]
        oracle: Oracle,
        /// Also what takes hours: sweeps of all that switches the PMU, all selftests with late PMIs and
        /// with what firmware may leave
        #[arg(long)]
        long: bool,
        /// Print the names of the groups, and run none
        #[arg(long)]
        list: bool,
        /// Only the groups whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Prints the commands of the documentation that a test runs in a fresh checkout
    Shown {
        /// Also those that take long
        #[arg(long)]
        long: bool,
    },
    /// What a VM exit and sampling cost with each provider; writes build/bench/switch.json, .md and
    /// .svg, and sampling.json
    Bench {
        #[command(flatten)]
        machines: Machines,
        /// Only make tables and picture once more, of the numbers that are there
        #[arg(long)]
        draw: bool,
        /// Only one of the two
        #[arg(long, value_enum)]
        only: Option<Cost>,
    },
    /// Whose instructions a VM exit takes, with KVM's C code and with mvpmu
    Listing {
        /// The test machine
        #[arg(long, value_enum, default_value_t = Machine::Amd)]
        machine: Machine,
        /// The scenario of the bench
        scenario: String,
        /// Counters that the guest has enabled; 100 are all
        #[arg(long, default_value = "100")]
        counters: String,
        /// What is on the host: none or event
        #[arg(long, default_value = "none")]
        host: String,
    },
    /// Random programs, to the first that reads other values in a guest than on the machine
    Fuzz {
        /// The test machine
        #[arg(long, value_enum, default_value_t = Machine::Amd)]
        machine: Machine,
        /// Who moves the PMU state of guests: mvpmu, also with a parameter (mvpmu,NAME=VALUE), or c
        #[arg(long, default_value = "mvpmu")]
        provider: String,
        /// Which programs
        #[arg(long, default_value_t = differential::SEED)]
        seed: u64,
        /// How many of them
        #[arg(long, default_value_t = differential::PROGRAMS)]
        programs: u64,
        /// Also what is known to differ
        #[arg(long)]
        known: bool,
        /// Only the program in this file
        #[arg(long)]
        replay: Option<PathBuf>,
    },
    /// Random calls to KVM's PMU and to perf, to the first program after which something is wrong
    Calls {
        /// The test machine
        #[arg(long, value_enum, default_value_t = Machine::Amd)]
        machine: Machine,
        /// Who moves the PMU state of guests: mvpmu, also with parameters (mvpmu,NAME=VALUE), or c
        #[arg(long, default_value = "mvpmu")]
        provider: String,
        /// Which programs
        #[arg(long, default_value_t = calls::SEED)]
        seed: u64,
        /// How many of them
        #[arg(long, default_value_t = calls::PROGRAMS)]
        programs: u64,
        /// Only the program in this file
        #[arg(long)]
        replay: Option<PathBuf>,
    },
    /// An event at each instruction of the kernel in a run of a guest that counts
    Sweep {
        /// On this machine
        #[arg(long, value_enum, default_value = "intel")]
        machine: Machine,
        /// Who moves the PMU state of guests: mvpmu, also with a parameter (mvpmu,NAME=VALUE), or c
        #[arg(long, default_value = "mvpmu")]
        provider: String,
        /// What else there is; without it: each, one after the other
        #[arg(long, value_enum)]
        with: Option<Company>,
        /// The kinds of events
        #[arg(long, default_value = sweep::KINDS)]
        kinds: String,
        /// Only in this function, or in those of this module, [MODULE]; may be repeated. Without it:
        /// everywhere, on the AMD machine in what switches the PMU, the first time
        #[arg(long = "in", value_name = "NAME")]
        places: Vec<String>,
        /// Only at every N-th instruction
        #[arg(long, value_name = "N", default_value_t = 1)]
        every: u64,
        /// Only the first N times that an instruction is executed
        #[arg(long, value_name = "N")]
        times: Option<u64>,
        /// Time limit in seconds, for each
        #[arg(long, default_value_t = 7200)]
        timeout: u64,
    },
    /// A root shell in L1, on this terminal, or a command there
    Shell {
        #[command(flatten)]
        options: Options,
        /// Run this command, to its end
        #[arg(long, conflicts_with = "initrd")]
        command: Option<String>,
        /// Time limit of the command in seconds
        #[arg(long, default_value_t = 3600)]
        timeout: u64,
    },
}

/// What `bench` measures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cost {
    /// That of a VM exit
    Switch,
    /// That of sampling in a guest
    Sampling,
}

/// The machines that are tested or measured.
#[derive(Args)]
pub struct Machines {
    /// The test machines: one of them, or all
    #[arg(long, default_value = "all")]
    machine: String,
    /// The machine that can be this CPU, as that CPU; see --cpu of boot
    #[arg(long, value_parser = machine::cpu)]
    pub cpu: Option<Cpu>,
}

impl Machines {
    /// The CPUs that they are.
    pub fn cpus(&self) -> Result<Vec<Cpu>> {
        let machines = match self.machine.as_str() {
            "all" => Machine::value_variants().to_vec(),
            name => match Machine::from_str(name, false) {
                Ok(machine) => vec![machine],
                Err(_) => {
                    let names = Machine::value_variants().iter().map(|one| one.name());
                    let names: Vec<_> = names.chain(["all"]).collect();
                    anyhow::bail!("no machine '{name}': there are {}", names.join(", "))
                }
            },
        };
        match self.cpu {
            None => Ok(machines.into_iter().map(Machine::cpu).collect()),
            Some(cpu) if machines.contains(&Machine::of(cpu)) => Ok(vec![cpu]),
            Some(cpu) => anyhow::bail!("the {} machine cannot be {}", self.machine, cpu.name),
        }
    }
}

/// What a machine is like that is booted once.
#[derive(Args)]
pub struct Options {
    /// The test machine: amd, intel; if neither it nor the CPU is given, amd
    #[arg(long, value_enum)]
    machine: Option<Machine>,
    /// Which CPU it is: skylake, icelake, sapphire-rapids, zen4, zen5
    #[arg(long, value_parser = machine::cpu)]
    cpu: Option<Cpu>,
    /// The PMU of the machine
    #[arg(long, value_enum, default_value_t)]
    pmu: Pmu,
    /// The oracle of the machine [default: on, and off for a given kernel]
    #[arg(long, value_enum)]
    oracle: Option<Oracle>,
    /// Number of CPUs
    #[arg(long)]
    smp: Option<u32>,
    /// Time: a nanosecond is an instruction, on one CPU
    #[arg(long)]
    instruction_clock: bool,
    /// Option of the machine's PMU, may be repeated: pmi-delay=N, power-on=random:SEED,
    /// weights=CYCLES:REFERENCE, lbr=off, pt=off, on the AMD machine counters=N
    #[arg(long, value_name = "NAME=VALUE")]
    model: Vec<String>,
    /// Further words on the kernel command line
    #[arg(long, default_value = "")]
    append: String,
    /// The kernel with lockdep and assertions
    #[arg(long, conflicts_with = "kernel_image")]
    debug_kernel: bool,
    /// Boot this bzImage
    #[arg(long, value_name = "FILE")]
    kernel_image: Option<PathBuf>,
    /// Directory with modules for that, which come to /modules
    #[arg(long, value_name = "DIRECTORY", requires = "kernel_image")]
    modules: Option<PathBuf>,
    /// Boot with this initial root file system; it has to end the machine
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
}

impl Options {
    /// The machine that they describe.
    pub fn boot(self) -> Result<Boot> {
        let boot = match (self.machine, self.cpu) {
            (None, None) => Boot::new(Machine::Amd),
            (Some(machine), None) => Boot::new(machine),
            (None, Some(cpu)) => Boot::of_cpu(cpu),
            (Some(machine), Some(cpu)) if machine == Machine::of(cpu) => Boot::of_cpu(cpu),
            (Some(machine), Some(cpu)) => {
                anyhow::bail!("the {} machine cannot be {}", machine.name(), cpu.name)
            }
        };
        let boot = match self.instruction_clock {
            true => boot.with_instruction_clock(),
            false => boot,
        };
        let oracle = match self.kernel_image {
            Some(_) => Oracle::Off,
            None => Oracle::On,
        };
        Ok(Boot {
            pmu: self.pmu,
            oracle: self.oracle.unwrap_or(oracle),
            kernel: match self.debug_kernel {
                true => Kernel::Debug,
                false => Kernel::Main,
            },
            given: Given {
                kernel: self.kernel_image,
                modules: self.modules,
                initrd: self.initrd,
                ..Given::default()
            },
            cpus: self.smp.unwrap_or(boot.cpus),
            model: self.model,
            append: self.append,
            ..boot
        })
    }
}
