// SPDX-License-Identifier: GPL-2.0

//! What has to be so for mvpmu to work, one function for each thing that is looked at.

use std::collections::BTreeSet;

use mvpmu_host::module;
use mvpmu_host::module::LOAD;
use mvpmu_host::perf_events;
use mvpmu_host::Root;
use mvpmu_host::DEBUGFS;

use crate::cpu::Identity;
use crate::cpu::Vendor;
use crate::finding::Finding;
use crate::kernel::Config;
use crate::kernel::Kernel;
use crate::kernel::Watchdog;
use crate::kernel::VERSIONS;

/// How a kernel with the series and the module is made, in the checkout of mvpmu.
const BUILD: &str = "less README.md # \"On real hardware\": series, overlay, options";

const FIRMWARE: &str = "systemctl reboot --firmware-setup";

/// KVM's name for itself, CPUID 0x40000000.
const KVM: &str = "KVMKVMKVM";

/// Everything.
pub fn all(root: &Root, identity: &Identity) -> Vec<Finding> {
    let kernel = Kernel::read(root);
    let mut findings = cpu(identity, flags(root).as_ref());
    findings.extend(pmu(identity));
    findings.push(hypervisor(identity));
    findings.extend(series(&kernel));
    findings.push(options(&kernel, identity.vendor));
    findings.extend(kvm(root, identity.vendor));
    findings.push(watchdog(root, &kernel));
    findings.push(events(root));
    findings.push(debugfs(root));
    findings.extend(signatures(root));
    findings.push(installed(root, &kernel));
    findings
}

/// The features that the kernel uses: those of CPUID but for what firmware has switched off.
fn flags(root: &Root) -> Option<BTreeSet<String>> {
    let text = root.read("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("flags"))?;
    let (_, flags) = line.split_once(':')?;
    Some(flags.split_whitespace().map(str::to_owned).collect())
}

fn vendor_module(vendor: Vendor) -> Option<&'static str> {
    match vendor {
        Vendor::Amd => Some("kvm_amd"),
        Vendor::Intel => Some("kvm_intel"),
        Vendor::Other => None,
    }
}

fn cpu(identity: &Identity, flags: Option<&BTreeSet<String>>) -> Vec<Finding> {
    let (name, feature, flag) = match identity.vendor {
        Vendor::Amd => ("AMD", "SVM", "svm"),
        Vendor::Intel => ("Intel", "VMX", "vmx"),
        Vendor::Other => {
            let text = "it is neither AMD's nor Intel's: its PMU is not supported";
            return vec![Finding::never("CPU", text)];
        }
    };
    let mut findings = Vec::new();
    if identity.hybrid {
        let text = "it mixes core types, whose PMUs differ";
        findings.push(Finding::never("CPU", text));
    }
    findings.push(match (identity.virtualization, &identity.hypervisor) {
        (true, _) if flags.is_some_and(|flags| !flags.contains(flag)) => {
            let text = format!("{name}, but the firmware has switched {feature} off");
            Finding::todo("CPU", text).by(FIRMWARE)
        }
        (true, _) => Finding::ok("CPU", format!("{name}, with {feature}")),
        (false, Some(below)) if below == KVM => {
            let text = format!("{name}, without {feature}: KVM below does not give it to this machine");
            let module = vendor_module(identity.vendor).unwrap_or("kvm");
            Finding::todo("CPU", text).by(format!(
                "modprobe -r {module} && modprobe {module} nested=1 # on the host below, and QEMU -cpu host"
            ))
        }
        (false, Some(below)) => {
            let text = format!("{name}, without {feature}: nested virtualization is for {below} below to give");
            Finding::todo("CPU", text)
        }
        (false, None) => Finding::never("CPU", format!("{name}, without {feature}: it cannot run KVM")),
    });
    findings
}

fn pmu(identity: &Identity) -> Vec<Finding> {
    let (least, of) = match identity.vendor {
        Vendor::Amd => (2, "PerfMonV2 (Zen 4 or later)"),
        Vendor::Intel => (4, "architectural PMU version 4 (Skylake or later)"),
        Vendor::Other => return Vec::new(),
    };
    let version = identity.pmu_version;
    let below = identity.hypervisor.as_deref();
    if version < least {
        let found = match version {
            0 => "there is none".to_owned(),
            n => format!("version {n}"),
        };
        let text = format!("{found}; {of} is needed");
        return vec![match (below, identity.vendor) {
            // arch/x86/kvm/pmu.c: the version that KVM offers is 2 at most.
            (Some(KVM), Vendor::Intel) => Finding::never(
                "PMU",
                format!("{text}, and KVM below gives guests version 2 at most"),
            ),
            (Some(KVM), _) => Finding::todo("PMU", text)
                .by("qemu-system-x86_64 -cpu host,pmu=on ... # on the host below"),
            (Some(below), _) => Finding::todo(
                "PMU",
                format!("{text}: {below} below has to give it to this machine"),
            ),
            (None, _) => Finding::never("PMU", text),
        }];
    }
    let fixed = match identity.fixed_counters {
        0 => String::new(),
        n => format!(", {n} fixed"),
    };
    let counters = identity.gp_counters;
    let mut findings = vec![Finding::ok(
        "PMU",
        format!("version {version}, {counters} counters{fixed}"),
    )];
    if identity.vendor == Vendor::Intel {
        findings.push(intel_registers(identity));
    }
    findings
}

/// What the module reads of Intel's registers when it is loaded.
fn intel_registers(identity: &Identity) -> Finding {
    match (identity.full_width_writes, identity.loads_global_ctrl) {
        (Some(false), _) => Finding::never("PMU", "its counters cannot be written at full width"),
        (_, Some(false)) => Finding::never("PMU", "VM entry and exit cannot load PERF_GLOBAL_CTRL"),
        (Some(true), Some(true)) => Finding::ok(
            "PMU",
            "full-width writes, and PERF_GLOBAL_CTRL at VM entry and exit",
        ),
        _ => {
            let text =
                "full-width writes and VMX controls are seen by root with the msr driver only";
            Finding::advice("PMU", text).by("modprobe msr && mvpmu-check")
        }
    }
}

fn hypervisor(identity: &Identity) -> Finding {
    match identity.hypervisor.as_deref() {
        None => Finding::ok("hypervisor", "none below"),
        Some(below) => {
            let below = if below.is_empty() { "one" } else { below };
            let text =
                format!("{below} below: counters are what it makes of them, and VM exits dear");
            Finding::advice("hypervisor", text)
        }
    }
}

fn series(kernel: &Kernel) -> Vec<Finding> {
    let versions: Vec<_> = VERSIONS
        .iter()
        .map(|(major, minor)| format!("{major}.{minor}"))
        .collect();
    let versions = versions.join(" and ");
    let release = mvpmu_host::printable(&kernel.release);
    match (kernel.version, kernel.lends_pmu) {
        (Some(version), _) if !VERSIONS.contains(&version) => {
            let text = format!("Linux {release} runs; the series is for {versions}");
            vec![Finding::todo("kernel", text).by(BUILD)]
        }
        (None, _) => vec![Finding::advice("kernel", "its version is not known")],
        (_, Some(true)) => vec![Finding::ok(
            "kernel",
            format!("Linux {release} with the series"),
        )],
        (_, Some(false)) => {
            let text = format!("Linux {release} without the series");
            vec![Finding::todo("kernel", text).by(BUILD)]
        }
        (_, None) => {
            let text = format!("Linux {release}; whether with the series, its symbols do not say");
            vec![Finding::advice("kernel", text)]
        }
    }
}

/// What has to be in the configuration, and as what. The rest follows by Kconfig.
fn needed(vendor: Vendor) -> Vec<(&'static str, &'static str)> {
    let mut needed = vec![
        ("RUST", "y"),
        ("PERF_EVENTS", "y"),
        ("DEBUG_FS", "y"),
        ("MVPMU", "m"),
    ];
    match vendor {
        Vendor::Amd => needed.push(("KVM_AMD", "m")),
        Vendor::Intel => needed.push(("KVM_INTEL", "m")),
        Vendor::Other => {}
    }
    needed
}

fn options(kernel: &Kernel, vendor: Vendor) -> Finding {
    let Some((path, config)) = &kernel.config else {
        let text = "the kernel's configuration is neither in /proc/config.gz nor in /boot";
        return Finding::advice("options", text).by("modprobe configs && mvpmu-check");
    };
    let missing: Vec<_> = needed(vendor)
        .into_iter()
        .filter(|(option, value)| config.value(option) != Some(value))
        .collect();
    if missing.is_empty() {
        return Finding::ok("options", format!("all that is needed, says {path}"));
    }
    let names: Vec<_> = missing
        .iter()
        .map(|(option, value)| format!("CONFIG_{option}={value}"))
        .collect();
    let set: Vec<_> = missing
        .iter()
        .map(|(option, value)| match *value {
            "m" => format!("-m {option}"),
            _ => format!("-e {option}"),
        })
        .collect();
    let text = format!("{path} lacks {}", names.join(", "));
    Finding::todo("options", text).by(format!(
        "scripts/config {} && make olddefconfig # in the kernel's tree",
        set.join(" ")
    ))
}

fn kvm(root: &Root, vendor: Vendor) -> Vec<Finding> {
    let Some(module) = vendor_module(vendor) else {
        return Vec::new();
    };
    let parameter = |module: &str, name: &str| {
        let value = root.value(&format!("/sys/module/{module}/parameters/{name}"))?;
        Some(matches!(value.as_str(), "Y" | "y" | "1"))
    };
    let mut findings = Vec::new();
    if !root.exists(&format!("/sys/module/{module}")) {
        let text = format!("{module} is not loaded");
        findings.push(Finding::todo("KVM", text).by(format!("modprobe {module}")));
    } else {
        let nested = match parameter(module, "nested") {
            Some(true) => ", guests may run guests",
            _ => "",
        };
        findings.push(Finding::ok("KVM", format!("{module} is loaded{nested}")));
    }
    if parameter("kvm", "enable_pmu") == Some(false) {
        findings.push(
            Finding::todo("KVM", "its PMU is off (enable_pmu=0)").by(format!(
                "modprobe -r {module} kvm && modprobe kvm enable_pmu=1 && modprobe {module}"
            )),
        );
    }
    // While the provider is registered, the parameter says Y.
    if is_on(root) {
        return findings;
    }
    if parameter(module, "enable_mediated_pmu") == Some(true) {
        let text = "its own mediated PMU is on: mvpmu takes its place while it is loaded";
        findings.push(Finding::advice("KVM", text));
    }
    findings.extend(machines(root, module));
    findings
}

/// The VMs that exist: the module has to be loaded before them.
fn machines(root: &Root, module: &str) -> Option<Finding> {
    let is_vm = |name: &&String| {
        let numbers = name.split_once('-');
        numbers.is_some_and(|(pid, fd)| pid.parse::<u32>().is_ok() && fd.parse::<u32>().is_ok())
    };
    let vms = match root.names(&format!("{DEBUGFS}/kvm")) {
        Ok(names) => names.iter().filter(is_vm).count() as u64,
        Err(_) => root
            .number(&format!("/sys/module/{module}/refcnt"))
            .unwrap_or(0),
    };
    (vms > 0).then(|| {
        let text = format!("it is in use ({vms}): mvpmu has to be loaded before VMs are started");
        Finding::todo("KVM", text).by("fuser -v /dev/kvm # whose VMs to shut down")
    })
}

fn watchdog(root: &Root, kernel: &Kernel) -> Finding {
    let is_on = root.number("/proc/sys/kernel/nmi_watchdog") == Some(1);
    match (is_on, kernel.watchdog) {
        (false, _) => Finding::ok("watchdog", "off, or there is none"),
        (true, Some(Watchdog::Buddy)) => Finding::ok("watchdog", "CPUs watch each other"),
        (true, Some(Watchdog::Perf)) => {
            let text = "an event of perf on each CPU; it gives way to guests, at some cost. \
                With CONFIG_HARDLOCKUP_DETECTOR_PREFER_BUDDY=y there is none";
            Finding::advice("watchdog", text).by("sysctl kernel.nmi_watchdog=0")
        }
        (true, None) => {
            let text = "on; whether it is an event of perf, neither symbols nor configuration say";
            Finding::advice("watchdog", text).by("sysctl kernel.nmi_watchdog=0")
        }
    }
}

fn events(root: &Root) -> Finding {
    let owners = perf_events::owners(root);
    let more = match owners.complete {
        true => "",
        false => " (those of others are seen by root only)",
    };
    if owners.processes.is_empty() {
        return Finding::ok("events", format!("no process has an event of perf{more}"));
    }
    let names: Vec<_> = owners
        .processes
        .iter()
        .map(|owner| format!("{} ({})", owner.command, owner.pid))
        .collect();
    let text = format!(
        "{} have events of perf{more}: those that count in guests, too, keep VMs from starting; \
         perf's modifier H, or host_events=share, lets both be",
        names.join(", ")
    );
    Finding::advice("events", text).by(format!("{LOAD} host_events=share"))
}

fn debugfs(root: &Root) -> Finding {
    match root.names(DEBUGFS) {
        Ok(names) if names.is_empty() => {
            Finding::advice("debugfs", "not mounted: mvpmu-top needs it")
                .by(format!("mount -t debugfs debugfs {DEBUGFS}"))
        }
        Ok(_) => Finding::ok("debugfs", "mounted"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Finding::advice(
            "debugfs",
            "for root only, and so is some of what is checked here",
        )
        .by("sudo mvpmu-check"),
        Err(_) => Finding::advice("debugfs", "there is none: mvpmu-top needs it"),
    }
}

/// Whether the kernel takes modules that were not signed.
fn signatures(root: &Root) -> Option<Finding> {
    let enforced = root.value("/sys/module/module/parameters/sig_enforce");
    let lockdown = root.value("/sys/kernel/security/lockdown");
    let locked = lockdown.is_some_and(|text| text.contains('[') && !text.contains("[none]"));
    if module::is_loaded(root) || !(locked || enforced.as_deref() == Some("Y")) {
        return None;
    }
    let text = "the kernel takes signed modules only (Secure Boot, or module.sig_enforce)";
    Some(Finding::advice("module", text).by(
        "scripts/sign-file sha256 KEY CERTIFICATE mvpmu.ko # in the kernel's tree, with a key that it knows",
    ))
}

fn is_on(root: &Root) -> bool {
    module::parameter(root, "enable_passthrough_pmu").as_deref() == Some("Y")
}

fn installed(root: &Root, kernel: &Kernel) -> Finding {
    let about = "module";
    if module::is_loaded(root) {
        if is_on(root) {
            return Finding::ok(about, "mvpmu is loaded, and on");
        }
        let reason = match module::capability(root) {
            Ok(capability) => capability.reason.unwrap_or_default(),
            Err(_) => "enable_passthrough_pmu=0".to_owned(),
        };
        let text = format!("mvpmu is loaded, and off: {reason}");
        return Finding::todo(about, text).by(format!("rmmod mvpmu && {LOAD}"));
    }
    let said = module::refusal(root)
        .map(|message| format!("; the log says \"{message}\""))
        .unwrap_or_default();
    let directory = format!("/lib/modules/{}", kernel.release);
    let has_module = |text: String| {
        text.lines()
            .filter_map(|line| line.split(':').next())
            .any(|path| path.contains("/mvpmu.ko"))
    };
    match root
        .read(&format!("{directory}/modules.dep"))
        .map(has_module)
    {
        Ok(true) => {
            Finding::ok(about, format!("mvpmu is installed, and not loaded{said}")).by(LOAD)
        }
        _ => {
            let text = format!("there is no mvpmu in {directory}{said}");
            Finding::todo(about, text).by(match kernel.config.as_ref() {
                Some((_, config)) if is_built(config) => {
                    "make modules_install # in the kernel's tree"
                }
                _ => BUILD,
            })
        }
    }
}

fn is_built(config: &Config) -> bool {
    config.is_on("MVPMU")
}

#[cfg(test)]
mod tests;
