// SPDX-License-Identifier: GPL-2.0

//! The groups about the module as such: its unit tests, loading it, refusing to, another kernel after it.

use std::time::Duration;

use super::group::Group;
use super::group::Length;
use super::group::Work;
use crate::job::Job;
use crate::machine::name;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::oracle::Oracle;
use crate::paths::Kernel;

/// A kernel that another one has started with a guest's state in hardware. For the oracle that is the
/// guest's still where a CPU starts and takes its stack, before the kernel clears it.
pub fn after_kexec(cpu: Cpu) -> Group {
    let boot = Boot {
        kernel: Kernel::Debug,
        oracle: Oracle::Off,
        append: "retain_initrd".to_owned(),
        ..Boot::of_cpu(cpu)
    };
    let tests = ["count_test", "host_rdpmc_test"];
    Group {
        name: format!("{} kexec", name(cpu)),
        work: Work::Boot {
            job: Job {
                image: Some(boot.kernel.product(boot.machine.kernel())),
                arguments: tests.map(|test| format!("mvpmu/{test}")).to_vec(),
                ..Job::new("kexec")
            },
            boot,
            tests: tests.map(str::to_owned).to_vec(),
            limit: Duration::from_secs(900),
        },
    }
}

/// The module must refuse to work on `boot`, and say `reason`.
pub fn refusal(name: &str, boot: Boot, reason: &str) -> Group {
    Group {
        name: format!("{} refusal: {name}", boot.name()),
        work: Work::Boot {
            boot,
            job: Job {
                arguments: vec![reason.to_owned()],
                ..Job::new("refusal")
            },
            tests: vec!["refusal".to_owned()],
            limit: Duration::from_secs(60),
        },
    }
}

/// What a group's name says of the kernel.
fn of_kernel(kernel: Kernel) -> String {
    match kernel {
        Kernel::Main => String::new(),
        other => format!(" ({} kernel)", other.variant()),
    }
}

pub fn lifecycle(cpu: Cpu, kernel: Kernel) -> Group {
    Group {
        name: format!("{} life cycle{}", name(cpu), of_kernel(kernel)),
        work: Work::Boot {
            boot: Boot {
                kernel,
                ..Boot::of_cpu(cpu)
            },
            job: Job {
                second_provider: Some(Machine::of(cpu).foreign_module()),
                ..Job::new("lifecycle")
            },
            tests: vec!["lifecycle".to_owned()],
            limit: Duration::from_secs(300),
        },
    }
}

/// The module, and VMs, many times.
pub fn cycles(cpu: Cpu, length: Length) -> Group {
    let numbers = match length {
        Length::Usual => ["5", "20"],
        Length::Long => ["100", "1000"],
    };
    Group {
        name: format!("{} cycles", name(cpu)),
        work: Work::Boot {
            boot: Boot::of_cpu(cpu),
            job: Job {
                arguments: numbers.map(str::to_owned).to_vec(),
                ..Job::new("cycles")
            },
            tests: vec!["cycles".to_owned()],
            limit: Duration::from_secs(1200),
        },
    }
}

const SEED: &str = "28";
/// With it five steps have a guest that is killed and one that is frozen, a CPU that goes, a suspended machine,
/// and short memory: no smaller seed has.
const SEED_OF_FIVE: &str = "2176";

/// Guests that are killed, stopped and moved, CPUs that go and come, and short memory. On the debug kernel
/// guests are frozen and the machine is suspended, too.
pub fn hard_times(cpu: Cpu, kernel: Kernel, length: Length) -> Group {
    let (cpus, arguments, limit) = match (Machine::of(cpu), length) {
        (Machine::Amd, Length::Usual) => (4, [SEED_OF_FIVE, "5"], 600),
        (Machine::Amd, Length::Long) => (8, [SEED, "100"], 7200),
        // Only make test-long runs it. Lockdep takes most of the time, and CPUs take turns.
        (Machine::Intel, _) => match kernel {
            Kernel::Debug => (4, [SEED, "20"], 7200),
            _ => (4, [SEED, "40"], 7200),
        },
    };
    hard_times_of(cpu, kernel, cpus, &arguments, limit)
}

/// The same where data races are looked for: nowhere else do so many guests run at the same time. Of so many
/// accesses one is watched, not of 4000, which had found none; memory that is short takes many minutes then.
pub fn hard_times_with_kcsan(cpu: Cpu) -> Group {
    const WHAT: &str = "killed stopped continued moved moved gone back back";
    let mut group = hard_times_of(cpu, Kernel::Kcsan, 4, &[SEED, "30", WHAT], 7200);
    if let Work::Boot { boot, .. } = &mut group.work {
        boot.append = "kcsan.skip_watch=100".to_owned();
        // Not all reports are of ours.
        boot.panics_on_warning = false;
    }
    group
}

fn hard_times_of(cpu: Cpu, kernel: Kernel, cpus: u32, arguments: &[&str], limit: u64) -> Group {
    Group {
        name: format!("{} hard times{}", name(cpu), of_kernel(kernel)),
        work: Work::Boot {
            boot: Boot {
                kernel,
                cpus,
                ..Boot::of_cpu(cpu)
            },
            job: Job {
                arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
                perf: true,
                ..Job::new("hard-times")
            },
            tests: vec!["hard-times".to_owned()],
            limit: Duration::from_secs(limit),
        },
    }
}

pub fn kunit(cpu: Cpu) -> Group {
    Group {
        name: format!("{} KUnit", name(cpu)),
        work: Work::Boot {
            boot: Boot {
                kernel: Kernel::Debug,
                ..Boot::of_cpu(cpu)
            },
            job: Job::new("kunit"),
            tests: vec!["kunit".to_owned()],
            limit: Duration::from_secs(400),
        },
    }
}
