// SPDX-License-Identifier: GPL-2.0

//! One reading of everything. VMs may come and go while it is taken: what is gone is left out.

use mvpmu_host::key_value;
use mvpmu_host::module;
use mvpmu_host::module::Capability;
use mvpmu_host::module::Problem;
use mvpmu_host::module::DIRECTORY;
use mvpmu_host::perf_events;
use mvpmu_host::perf_events::Owners;
use mvpmu_host::process;
use mvpmu_host::Root;
use serde::Serialize;

use crate::counts::Counts;
use crate::kvm;

/// Where the PMU state of a vCPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The time of no state has passed, which the files tell it by.
    Unknown,
    /// The guest does not use the hardware.
    Dormant,
    /// It does; the state is in memory.
    Memory,
    /// It is in hardware, while the guest runs or over VM exits.
    Hardware,
    /// The guest wants to use the hardware, and events of the host that count in guests keep it away.
    Waiting,
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Dormant => "dormant",
            State::Memory => "memory",
            State::Hardware => "hardware",
            State::Waiting => "waiting",
        }
    }

    /// That of the later of two readings: the time goes on in the state that the vCPU is in.
    fn between(earlier: &Counts, later: &Counts) -> Self {
        if later.waiting > 0 {
            State::Waiting
        } else if later.loads > later.puts {
            State::Hardware
        } else if later.time_active_us > earlier.time_active_us {
            State::Memory
        } else if later.time_dormant_us > earlier.time_dormant_us {
            State::Dormant
        } else {
            State::Unknown
        }
    }
}

/// A vCPU.
#[derive(Clone, Debug)]
pub struct Vcpu {
    /// The number that userspace gave it.
    pub id: u32,
    /// Its thread, if KVM says so.
    pub thread: Option<u32>,
    /// The CPU that the thread runs on, or ran on last.
    pub cpu: Option<u32>,
    /// Where its PMU state is.
    pub state: State,
    /// Its counts since its creation.
    pub counts: Counts,
}

/// A VM.
#[derive(Clone, Debug)]
pub struct Vm {
    /// The process that created it.
    pub pid: u32,
    /// The number that the module gave it.
    pub number: u64,
    /// What QEMU calls it, or the name of the process.
    pub name: String,
    /// KVM's statistics.
    pub kvm: Option<kvm::Stats>,
    /// Its vCPUs, by number.
    pub vcpus: Vec<Vcpu>,
}

/// The sums over all vCPUs since the module was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// VMs that exist.
    pub vms: u64,
    /// vCPUs that exist.
    pub vcpus: u64,
    /// The sums.
    #[serde(flatten)]
    pub counts: Counts,
}

/// A reading.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What the module says of the host.
    pub capability: Capability,
    /// The sums.
    pub totals: Totals,
    /// The VMs, by process and number.
    pub vms: Vec<Vm>,
}

impl Sample {
    /// Reads everything, each vCPU twice: its state shows between the two.
    pub fn read(root: &Root) -> Result<Self, Problem> {
        let capability = module::capability(root)?;
        let totals = read_totals(root)?;
        let names = root
            .names(DIRECTORY)
            .map_err(|error| module::why_not(root, DIRECTORY, error))?;
        let mut vms = Vec::new();
        for name in names {
            vms.extend(read_vm(root, &name)?);
        }
        vms.sort_by_key(|vm| (vm.pid, vm.number));
        Ok(Sample {
            capability,
            totals,
            vms,
        })
    }

    /// The counts of a vCPU in this reading.
    pub fn counts_of(&self, pid: u32, number: u64, id: u32) -> Option<&Counts> {
        let vm = self
            .vms
            .iter()
            .find(|vm| (vm.pid, vm.number) == (pid, number))?;
        let vcpu = vm.vcpus.iter().find(|vcpu| vcpu.id == id)?;
        Some(&vcpu.counts)
    }

    /// Who has events of perf, if the host has been in a guest's way since `earlier`. It takes a
    /// look at all processes.
    pub fn suspects(&self, root: &Root, earlier: Option<&Sample>) -> Option<Owners> {
        let nothing = Counts::default();
        let before = earlier.map_or(&nothing, |earlier| &earlier.totals.counts);
        let recent = self.totals.counts.since(before);
        let waiting = self.totals.counts.waiting > 0;
        (waiting || recent.has_contention()).then(|| perf_events::owners(root))
    }
}

fn read_totals(root: &Root) -> Result<Totals, Problem> {
    let path = format!("{DIRECTORY}/stats");
    let text = root
        .read(&path)
        .map_err(|error| module::why_not(root, &path, error))?;
    let number = |key| key_value::value(&text, key)?.parse().ok();
    let totals = || {
        Some(Totals {
            vms: number("vms")?,
            vcpus: number("vcpus")?,
            counts: Counts::parse(&text)?,
        })
    };
    totals().ok_or(Problem::Unknown(path))
}

/// The VM of a directory with this name, `<pid>-<n>`, unless it is none, or is gone.
fn read_vm(root: &Root, name: &str) -> Result<Option<Vm>, Problem> {
    let numbers = || {
        let (pid, number) = name.split_once('-')?;
        Some((pid.parse().ok()?, number.parse().ok()?))
    };
    let Some((pid, number)) = numbers() else {
        return Ok(None);
    };
    let directory = format!("{DIRECTORY}/{name}");
    let Ok(files) = root.names(&directory) else {
        return Ok(None);
    };
    let kvm = kvm::Stats::read(root, pid);
    let mut vcpus = Vec::new();
    for file in files {
        let Some(id) = file.strip_prefix("vcpu").and_then(|id| id.parse().ok()) else {
            continue;
        };
        let path = format!("{directory}/{file}");
        let Some((state, counts)) = read_vcpu(root, &path)? else {
            continue;
        };
        let thread = kvm.as_ref().and_then(|kvm| kvm.threads.get(&id).copied());
        vcpus.push(Vcpu {
            id,
            thread,
            cpu: thread.and_then(|thread| process::cpu(root, pid, thread)),
            state,
            counts,
        });
    }
    vcpus.sort_by_key(|vcpu| vcpu.id);
    let vm = Vm {
        pid,
        number,
        name: process::guest_name(root, pid)
            .or_else(|| process::command(root, pid))
            .unwrap_or_default(),
        kvm,
        vcpus,
    };
    Ok((!vm.vcpus.is_empty()).then_some(vm))
}

fn read_vcpu(root: &Root, path: &str) -> Result<Option<(State, Counts)>, Problem> {
    let read = || match root.read(path) {
        Ok(text) => Counts::parse(&text)
            .map(Some)
            .ok_or_else(|| Problem::Unknown(path.to_owned())),
        // It went, or is about to.
        Err(_) => Ok(None),
    };
    let Some(earlier) = read()? else {
        return Ok(None);
    };
    Ok(read()?.map(|later| (State::between(&earlier, &later), later)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;

    fn state(change: impl Fn(&mut Counts)) -> State {
        let earlier = Counts {
            loads: 5,
            puts: 5,
            time_dormant_us: 10,
            time_active_us: 10,
            ..Counts::default()
        };
        let mut later = earlier;
        change(&mut later);
        State::between(&earlier, &later)
    }

    #[test]
    fn the_state_is_that_whose_time_passes() {
        assert_eq!(state(|later| later.time_dormant_us += 1), State::Dormant);
        assert_eq!(state(|later| later.time_active_us += 1), State::Memory);
        assert_eq!(state(|later| later.loads += 1), State::Hardware);
        assert_eq!(state(|later| later.waiting = 1), State::Waiting);
        assert_eq!(state(|_| ()), State::Unknown);
    }

    // 50 has one VM, so KVM's thread is that of its vCPU; 51 has two, which could be mixed up.
    #[test]
    fn a_recording_is_read_whole() {
        let (first, second) = recorded::samples();
        assert_eq!(first.capability.gp_counters, 8);
        assert_eq!((first.totals.vms, first.totals.vcpus), (3, 3));
        let [one, two, three] = &second.vms[..] else {
            panic!("there are three VMs");
        };
        assert_eq!((one.pid, one.number, one.name.as_str()), (50, 1, "bench"));
        assert_eq!(one.vcpus[0].thread, Some(50));
        assert_eq!(one.vcpus[0].cpu, Some(0));
        assert_eq!(one.vcpus[0].counts.loads, 9643);
        assert_eq!(one.vcpus[0].counts.contended(), 9643);
        assert_eq!((two.pid, two.number), (51, 2));
        assert_eq!((three.pid, three.number), (51, 3));
        assert_eq!(two.vcpus[0].thread, None);
        assert_eq!(two.vcpus[0].counts.contended(), 0);
        let kvm = one.kvm.as_ref().expect("KVM's files are there");
        assert_eq!((kvm.vms, kvm.counts["exits"]), (1, 9977));
        let kvm = two.kvm.as_ref().expect("KVM's files are there");
        assert_eq!((kvm.vms, kvm.counts["exits"]), (2, 2421 + 2454));
    }

    #[test]
    fn a_vm_that_goes_while_it_is_read_is_left_out() {
        let host = recorded::host("going", recorded::FIRST);
        let root = host.root();
        host.remove("/sys/kernel/debug/mvpmu/50-1/vcpu0");
        host.empty("/sys/kernel/debug/mvpmu/52-4");
        // The files of a VM whose end has begun cannot be read.
        host.remove("/sys/kernel/debug/mvpmu/51-2/vcpu0");
        host.empty("/sys/kernel/debug/mvpmu/51-2/vcpu0");
        host.remove("/sys/kernel/debug/kvm");
        let sample = Sample::read(&root).expect("one is left");
        let left: Vec<_> = sample.vms.iter().map(|vm| vm.number).collect();
        assert_eq!(left, [3]);
        assert_eq!(sample.vms[0].kvm, None);
    }

    #[test]
    fn processes_are_looked_at_only_if_the_host_was_in_the_way() {
        let host = recorded::host("suspects", recorded::SECOND);
        let sample = Sample::read(&host.root()).expect("the recording is whole");
        assert!(sample.suspects(&host.root(), None).is_some());
        assert!(sample.suspects(&host.root(), Some(&sample)).is_none());
    }
}
