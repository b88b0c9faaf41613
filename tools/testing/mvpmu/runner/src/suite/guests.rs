// SPDX-License-Identifier: GPL-2.0

//! Linux guests, as people run them.

use std::time::Duration;

use pmu_model::profile;

use super::group::Group;
use super::group::Provider;
use super::group::Work;
use crate::job::Job;
use crate::machine::name;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::paths::Kernel;

/// The recipes of the page of hypervisors.
pub fn hypervisors(cpu: Cpu) -> Group {
    Group {
        name: format!("{} hypervisors", name(cpu)),
        work: Work::Boot {
            boot: Boot::of_cpu(cpu),
            job: Job {
                linux_guest: true,
                libvirt: true,
                ..Job::new("hypervisors")
            },
            tests: vec!["hypervisors".to_owned()],
            limit: Duration::from_secs(1800),
        },
    }
}

/// Debian's perf in a Linux guest of so many vCPUs, and in L1, which has to give the same.
pub fn linux_guests(cpu: Cpu, provider: Provider, vcpus: u32) -> Group {
    let number = match vcpus {
        1 => ", 1 vCPU".to_owned(),
        2 => String::new(),
        _ => format!(", {vcpus} vCPUs"),
    };
    Group {
        name: format!("{} linux guests {}{number}", name(cpu), provider.name()),
        work: Work::Boot {
            boot: with_cpus_for(cpu, vcpus),
            job: Job {
                arguments: vec![provider.name().to_owned(), vcpus.to_string()],
                linux_guest: true,
                perf: true,
                ..Job::new("linux-guests")
            },
            tests: ["perf", "guest/perf"].map(str::to_owned).to_vec(),
            limit: Duration::from_secs(1500),
        },
    }
}

/// A machine with two CPUs for guests that have more than one.
fn with_cpus_for(cpu: Cpu, vcpus: u32) -> Boot {
    let boot = Boot::of_cpu(cpu);
    match vcpus {
        1 => boot,
        _ => boot.with_two_cpus(),
    }
}

/// Some of it in a guest of two vCPUs.
pub fn some_in_linux_guest(cpu: Cpu) -> Group {
    some(cpu, "", Job::default(), &[])
}

/// The same where the guest has an NMI watchdog of its own: the debug kernel has one.
pub fn watchdog_in_linux_guest(cpu: Cpu) -> Group {
    let with_kernel = Job {
        files: vec![Kernel::Debug.product("bzImage")],
        ..Job::default()
    };
    some(cpu, ", watchdog", with_kernel, &["nmi_watchdog=1"])
}

/// `what` it is, what more the job has, and which words the guest's command line.
fn some(cpu: Cpu, what: &str, more: Job, words: &[&str]) -> Group {
    let arguments = ["mvpmu", "2", "some"].iter().chain(words);
    Group {
        name: format!("{} linux guests{what}", name(cpu)),
        work: Work::Boot {
            boot: with_cpus_for(cpu, 2),
            job: Job {
                script: "linux-guests".to_owned(),
                arguments: arguments.map(|&word| word.to_owned()).collect(),
                linux_guest: true,
                perf: true,
                ..more
            },
            tests: vec!["guest/perf".to_owned()],
            limit: Duration::from_secs(1800),
        },
    }
}

/// A guest that counts and is moved so often, from mvpmu to KVM's C code and back.
pub fn migration(cpu: Cpu, moves: u32) -> Group {
    Group {
        name: format!("{} migration", name(cpu)),
        work: Work::Boot {
            boot: Boot::of_cpu(cpu),
            job: Job {
                arguments: vec![moves.to_string()],
                ..Job::new("migrate")
            },
            tests: vec!["migrate".to_owned()],
            limit: Duration::from_secs(900),
        },
    }
}

/// Guests that are moved to a CPU with fewer counters.
pub fn migration_to_fewer_counters(machine: Machine) -> Group {
    let from = match machine {
        Machine::Amd => Boot::new(machine),
        // The C code gives guests three fixed counters.
        Machine::Intel => Boot::of_cpu(&profile::SKYLAKE),
    };
    let mut to = from.clone();
    match machine {
        Machine::Amd => to.model.push("counters=4".to_owned()),
        Machine::Intel => to.options = &["--pmu", "on,gp=4"],
    }
    Group {
        name: format!("{} migration to fewer counters", from.name()),
        work: Work::Carried { from, to },
    }
}

/// The same by QEMU, of a Linux guest that counts and samples.
pub fn migration_by_qemu(cpu: Cpu, moves: u32) -> Group {
    Group {
        name: format!("{} migration by QEMU", name(cpu)),
        work: Work::Boot {
            boot: Boot::of_cpu(cpu),
            job: Job {
                arguments: vec![moves.to_string()],
                linux_guest: true,
                ..Job::new("qemu-migrate")
            },
            tests: vec!["qemu-migrate".to_owned()],
            limit: Duration::from_secs(5400),
        },
    }
}

/// What Debian's perf says of mvpmu's tracepoints.
pub fn tracepoints(cpu: Cpu) -> Group {
    Group {
        name: format!("{} perf and tracepoints", name(cpu)),
        work: Work::Boot {
            boot: Boot::of_cpu(cpu),
            job: Job {
                perf: true,
                ..Job::new("trace")
            },
            tests: vec!["trace".to_owned()],
            limit: Duration::from_secs(600),
        },
    }
}

/// What Debian's perf on the host says of guests, and while there are some, with this value of the
/// parameter `host_events`.
pub fn host_perf(cpu: Cpu, host_events: &str) -> Group {
    Group {
        name: format!("{} perf on the host, {host_events}", name(cpu)),
        work: Work::Boot {
            boot: Boot::of_cpu(cpu),
            job: Job {
                arguments: vec![host_events.to_owned()],
                perf: true,
                ..Job::new("host-perf")
            },
            tests: vec!["host-perf".to_owned()],
            limit: Duration::from_secs(900),
        },
    }
}
