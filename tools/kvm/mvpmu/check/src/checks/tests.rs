// SPDX-License-Identifier: GPL-2.0

//! Each host has one thing that differs from one that is ready.

use mvpmu_host::fixture::Host;

use super::*;
use crate::cpu::tests::Made;
use crate::cpu::Cpu;
use crate::finding::worst;
use crate::finding::Severity;

const CONFIG: &str = "CONFIG_RUST=y\nCONFIG_PERF_EVENTS=y\nCONFIG_DEBUG_FS=y\nCONFIG_MVPMU=m\n\
    CONFIG_KVM_AMD=m\nCONFIG_KVM_INTEL=m\nCONFIG_HARDLOCKUP_DETECTOR_BUDDY=y\n";

const SYMBOLS: &str = "0 T perf_load_guest_pmu\n0 t watchdog_buddy_check_hardlockup\n";

/// A host that lacks nothing.
fn ready(name: &str) -> Host {
    let host = Host::new(name);
    host.file("/proc/version", "Linux version 7.2.12 (x) #1\n");
    host.file("/proc/cpuinfo", "processor : 0\nflags\t\t: fpu svm vmx\n");
    host.file("/proc/kallsyms", SYMBOLS);
    host.file("/boot/config-7.2.12", CONFIG);
    host.file("/proc/sys/kernel/nmi_watchdog", "1\n");
    for module in ["kvm_amd", "kvm_intel"] {
        host.file(&format!("/sys/module/{module}/parameters/nested"), "Y\n");
        host.file(
            &format!("/sys/module/{module}/parameters/enable_mediated_pmu"),
            "N\n",
        );
        host.file(&format!("/sys/module/{module}/refcnt"), "0\n");
    }
    host.file("/sys/module/kvm/parameters/enable_pmu", "Y\n");
    host.empty("/sys/kernel/debug/kvm");
    host.file(
        "/lib/modules/7.2.12/modules.dep",
        "kernel/drivers/virt/mvpmu/mvpmu.ko: kernel/arch/x86/kvm/kvm.ko\n",
    );
    host
}

fn check(host: &Host, cpu: &dyn Cpu) -> Vec<Finding> {
    all(&host.root(), &Identity::of(cpu))
}

/// The findings that are not as they should be, which all have to be of this severity.
fn problems(host: &Host, cpu: &dyn Cpu, severity: Severity) -> String {
    let findings = check(host, cpu);
    let text: Vec<_> = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Ok)
        .map(|finding| {
            assert_eq!(finding.severity, severity, "{}", finding.text);
            let command = finding.command.as_deref().unwrap_or("-");
            assert!(!finding.text.contains('\n') && !command.contains('\n'));
            format!("{}: {} $ {command}", finding.about, finding.text)
        })
        .collect();
    assert_eq!(worst(&findings), severity);
    assert_eq!(text.len(), 1, "{text:?}");
    text.concat()
}

fn todo(host: &Host, cpu: &dyn Cpu) -> String {
    problems(host, cpu, Severity::Todo)
}

fn never(host: &Host, cpu: &dyn Cpu) -> String {
    problems(host, cpu, Severity::Never)
}

fn advice(host: &Host, cpu: &dyn Cpu) -> String {
    problems(host, cpu, Severity::Advice)
}

/// The findings with problems of any kind.
fn texts(host: &Host, cpu: &dyn Cpu) -> String {
    let findings = check(host, cpu);
    let texts = findings.iter().map(|finding| finding.text.as_str());
    texts.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_host_that_lacks_nothing_is_ready() {
    let host = ready("ready");
    for cpu in [Made::zen4(), Made::sapphire_rapids()] {
        let findings = check(&host, &cpu);
        for finding in &findings {
            assert_eq!(finding.severity, Severity::Ok, "{}", finding.text);
        }
        assert_eq!(worst(&findings).status(), 0);
        let about: BTreeSet<_> = findings.iter().map(|finding| finding.about).collect();
        let expected = [
            "CPU",
            "PMU",
            "hypervisor",
            "kernel",
            "options",
            "KVM",
            "watchdog",
            "events",
            "debugfs",
            "module",
        ];
        assert_eq!(about, BTreeSet::from(expected));
    }
}

#[test]
fn a_cpu_that_cannot_is_never_ready() {
    let host = ready("never");
    assert!(never(&host, &Made::zen3()).contains("version 1; PerfMonV2"));
    assert!(never(&host, &Made::zen4().without_pmu()).contains("there is none"));
    assert!(never(&host, &Made::sapphire_rapids().hybrid()).contains("core types"));
    assert!(never(&host, &Made::zen4().without_virtualization()).contains("cannot run KVM"));
    let old = Made::sapphire_rapids().without_load_at_exit();
    assert!(never(&host, &old).contains("PERF_GLOBAL_CTRL"));
    let unknown = texts(&host, &Made::unknown());
    assert!(unknown.contains("neither AMD's nor Intel's"));
    assert_eq!(worst(&check(&host, &Made::unknown())).status(), 2);
}

#[test]
fn what_firmware_has_switched_off_is_switched_on_there() {
    let host = ready("firmware");
    host.file("/proc/cpuinfo", "flags\t\t: fpu\n");
    let text = todo(&host, &Made::zen4());
    assert!(
        text.contains("the firmware has switched SVM off $ systemctl reboot"),
        "{text}"
    );
}

#[test]
fn a_hypervisor_below_may_give_what_is_missing() {
    let host = ready("below");
    let kvm = "KVMKVMKVM\0\0\0";
    assert!(advice(&host, &Made::zen4().below(kvm)).contains("KVMKVMKVM below"));
    let find = |cpu: Made, about: &str| {
        let findings = check(&host, &cpu);
        let mut found = findings.into_iter().filter(|one| one.about == about);
        found.next().expect("it is looked at")
    };
    let cpu = find(Made::zen4().without_virtualization().below(kvm), "CPU");
    assert_eq!(cpu.severity, Severity::Todo);
    assert!(cpu
        .command
        .is_some_and(|command| command.contains("kvm_amd nested=1")));
    let pmu = find(Made::zen4().without_pmu().below(kvm), "PMU");
    assert_eq!(pmu.severity, Severity::Todo);
    assert!(pmu
        .command
        .is_some_and(|command| command.contains("pmu=on")));
    let pmu = find(Made::sapphire_rapids().without_pmu().below(kvm), "PMU");
    assert_eq!(pmu.severity, Severity::Never);
    let pmu = find(Made::zen4().without_pmu().below("Microsoft Hv"), "PMU");
    assert!(pmu.text.contains("Microsoft Hv below"));
}

#[test]
fn registers_of_intel_are_for_root() {
    let host = ready("registers");
    let text = advice(&host, &Made::sapphire_rapids().without_msrs());
    assert!(text.contains("$ modprobe msr && mvpmu-check"), "{text}");
}

#[test]
fn a_kernel_of_another_version_or_without_the_series_has_to_be_built() {
    let host = ready("kernel");
    host.file("/proc/kallsyms", "0 T something\n");
    assert!(todo(&host, &Made::zen4()).contains("Linux 7.2.12 without the series"));
    host.file("/proc/kallsyms", SYMBOLS);
    host.file(
        "/proc/version",
        "Linux version 6.12.48+deb13-amd64 (x) #1\n",
    );
    host.file("/boot/config-6.12.48+deb13-amd64", CONFIG);
    host.file(
        "/lib/modules/6.12.48+deb13-amd64/modules.dep",
        "mvpmu/mvpmu.ko:\n",
    );
    assert!(todo(&host, &Made::zen4())
        .contains("Linux 6.12.48+deb13-amd64 runs; the series is for 7.2 and 7.3"));
}

#[test]
fn options_that_are_missing_are_set_by_one_command() {
    let host = ready("options");
    let config = CONFIG
        .replace("CONFIG_RUST=y\n", "")
        .replace("KVM_AMD=m", "KVM_AMD=y");
    host.file("/boot/config-7.2.12", config);
    let text = todo(&host, &Made::zen4());
    assert!(
        text.contains("lacks CONFIG_RUST=y, CONFIG_KVM_AMD=m"),
        "{text}"
    );
    assert!(
        text.contains("scripts/config -e RUST -m KVM_AMD && make olddefconfig"),
        "{text}"
    );
    host.remove("/boot");
    assert!(advice(&host, &Made::zen4()).contains("modprobe configs"));
}

#[test]
fn kvm_has_to_be_loaded_with_its_pmu_and_without_machines() {
    let host = ready("kvm");
    host.file("/sys/module/kvm/parameters/enable_pmu", "N\n");
    let text = todo(&host, &Made::zen4());
    assert!(
        text.contains("modprobe kvm enable_pmu=1 && modprobe kvm_amd"),
        "{text}"
    );
    host.file("/sys/module/kvm/parameters/enable_pmu", "Y\n");

    host.empty("/sys/kernel/debug/kvm/1234-11");
    assert!(todo(&host, &Made::zen4()).contains("in use (1)"));
    host.remove("/sys/kernel/debug/kvm");
    host.empty("/sys/kernel/debug/x");
    host.file("/sys/module/kvm_amd/refcnt", "2\n");
    assert!(todo(&host, &Made::zen4()).contains("in use (2)"));
    // Those that have started with mvpmu are no obstacle.
    host.file("/sys/module/mvpmu/parameters/enable_passthrough_pmu", "Y\n");
    assert_eq!(worst(&check(&host, &Made::zen4())), Severity::Ok);

    host.remove("/sys/module/kvm_amd");
    assert!(todo(&host, &Made::zen4()).contains("$ modprobe kvm_amd"));
}

#[test]
fn kvms_own_mediated_pmu_gives_way() {
    let host = ready("mediated");
    host.file("/sys/module/kvm_amd/parameters/enable_mediated_pmu", "Y\n");
    assert!(advice(&host, &Made::zen4()).contains("takes its place"));
}

#[test]
fn a_watchdog_of_perf_is_worth_switching_off() {
    let host = ready("watchdog");
    host.file(
        "/proc/kallsyms",
        "0 T perf_load_guest_pmu\n0 t hardlockup_detector_perf_restart\n",
    );
    assert!(advice(&host, &Made::zen4()).contains("$ sysctl kernel.nmi_watchdog=0"));
    host.file("/proc/sys/kernel/nmi_watchdog", "0\n");
    assert_eq!(worst(&check(&host, &Made::zen4())), Severity::Ok);
}

#[test]
fn events_of_perf_are_named_with_their_owners() {
    let host = ready("events");
    host.link("/proc/77/fd/5", "anon_inode:[perf_event]");
    host.file("/proc/77/comm", "perf\n");
    let text = advice(&host, &Made::zen4());
    assert!(
        text.contains("perf (77)") && text.contains("host_events=share"),
        "{text}"
    );
}

#[test]
fn debugfs_that_is_not_mounted_is_mounted_by_a_command() {
    let host = ready("debugfs");
    host.remove("/sys/kernel/debug/kvm");
    let text = advice(&host, &Made::zen4());
    assert!(
        text.contains("mount -t debugfs debugfs /sys/kernel/debug"),
        "{text}"
    );
}

#[test]
fn a_locked_kernel_wants_signatures() {
    let host = ready("locked");
    host.file(
        "/sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n",
    );
    assert!(advice(&host, &Made::zen4()).contains("sign-file"));
    host.file(
        "/sys/kernel/security/lockdown",
        "[none] integrity confidentiality\n",
    );
    assert_eq!(worst(&check(&host, &Made::zen4())), Severity::Ok);
}

#[test]
fn a_module_that_is_off_or_missing_says_why() {
    let host = ready("module");
    host.file("/sys/module/mvpmu/parameters/enable_passthrough_pmu", "N\n");
    let text = todo(&host, &Made::zen4());
    assert!(
        text.contains("off: enable_passthrough_pmu=0 $ rmmod mvpmu"),
        "{text}"
    );
    host.remove("/sys/module/mvpmu");
    host.remove("/lib/modules");
    assert!(todo(&host, &Made::zen4()).contains("$ make modules_install"));
    host.file(
        "/dev/kmsg",
        "3,2,20,-;mvpmu: not enabled: the host has no PMU\n",
    );
    assert!(todo(&host, &Made::zen4()).contains("the log says \"mvpmu: not enabled"));
}
