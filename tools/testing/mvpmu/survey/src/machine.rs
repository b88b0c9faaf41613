// SPDX-License-Identifier: GPL-2.0

//! The machine: its CPU, and what runs on it already.

use std::arch::x86_64::__cpuid;
use std::collections::BTreeSet;
use std::fs;

use mvpmu_host::printable;
use mvpmu_report::schema::Cpu;
use mvpmu_report::schema::Software;

/// The leaf by which the test machines are known, with EBX; see selftests/mvpmu/machine.h.
const TEST_MACHINE: (u32, u32) = (0x4d76_7075, 0x746e_756f);

/// Where hypervisors say their name, if leaf 1 has bit 31 of ECX.
const HYPERVISOR: u32 = 0x4000_0000;

/// The CPU, with what the kernel's log says of time.
pub fn cpu(cpuinfo: &str, log: &[String]) -> Cpu {
    let value = |key: &str| {
        let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let mut values = fields.filter(|(name, _)| name.trim() == key);
        values
            .next()
            .map_or(String::new(), |(_, value)| printable(value.trim()))
    };
    let number = |key: &str| value(key).parse().unwrap_or(0);
    let cpus = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    Cpu {
        vendor: value("vendor_id"),
        family: number("cpu family"),
        model: number("model"),
        stepping: number("stepping"),
        name: value("model name"),
        microcode: value("microcode"),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        tsc_khz: tsc_khz(log),
        hypervisor: hypervisor(),
        emulated: __cpuid(TEST_MACHINE.0).ebx == TEST_MACHINE.1,
    }
}

fn hypervisor() -> Option<String> {
    (__cpuid(1).ecx >> 31 == 1).then(|| {
        let leaf = __cpuid(HYPERVISOR);
        let bytes = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
        let name = String::from_utf8_lossy(bytes.as_flattened()).into_owned();
        printable(name.trim_matches('\0'))
    })
}

/// "tsc: Refined TSC clocksource calibration: 2595.124 MHz", or what was detected before that.
fn tsc_khz(log: &[String]) -> Option<u64> {
    const SAID: [(&str, &str); 2] = [
        ("Refined TSC clocksource calibration: ", " MHz"),
        ("Detected ", " MHz processor"),
    ];
    let mut said = log.iter().filter_map(|line| {
        let (_, text) = line.split_once("tsc: ")?;
        let mhz = SAID.iter().find_map(|(begin, end)| {
            text.strip_prefix(begin)?
                .strip_suffix(end)?
                .parse::<f64>()
                .ok()
        });
        Some(mhz? * 1000.0)
    });
    said.next_back().map(|khz| khz.round() as u64)
}

/// What was booted.
pub fn software() -> Software {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let vulnerabilities = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let mut texts = vulnerabilities
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default());
    Software {
        mvpmu: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: release.trim().to_owned(),
        mitigations: texts.any(|text| text.starts_with("Mitigation")),
    }
}

/// Of the kernel's log, by `kernel-log`, the texts.
pub fn log(lines: &str) -> Vec<String> {
    let texts = lines.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
    texts.map(str::to_owned).collect()
}

/// What of the log goes into a report: what has to do with guests, and bugs. Nothing that drivers say of
/// their devices, which have serial numbers and addresses. Each line once: KVM is loaded several times.
pub fn remarkable(log: &[String]) -> Vec<String> {
    const BEGINS: [&str; 5] = [
        "mvpmu: ",
        "kvm",
        "perf",
        "Performance Events: ",
        "NMI watchdog: ",
    ];
    const HOLDS: [&str; 5] = [
        "WARNING: ",
        "BUG: ",
        "Oops: ",
        "unchecked MSR access",
        "NMI received",
    ];
    let is_remarkable = |line: &&String| {
        BEGINS.iter().any(|begin| line.starts_with(begin))
            || HOLDS.iter().any(|part| line.contains(part))
    };
    let mut seen = BTreeSet::new();
    let lines = log
        .iter()
        .filter(is_remarkable)
        .filter(|&line| seen.insert(line));
    lines.take(100).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str =
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel name\t: AMD EPYC\n\
        model\t\t: 17\nstepping\t: 1\nmicrocode\t: 0xa101148\n\nprocessor\t: 1\n";

    // Seen to fail when the name of a line needs only to begin so: "model" is also in "model name".
    #[test]
    fn the_cpu_is_that_of_cpuinfo() {
        let log = log("6 0 tsc: Detected 2400.000 MHz processor\n\
            6 7 tsc: Refined TSC clocksource calibration: 2399.999 MHz\n");
        let cpu = cpu(CPUINFO, &log);
        assert_eq!(
            (cpu.family, cpu.model, cpu.stepping, cpu.cpus),
            (25, 17, 1, 2)
        );
        assert_eq!(
            (cpu.name.as_str(), cpu.microcode.as_str()),
            ("AMD EPYC", "0xa101148")
        );
        assert_eq!(cpu.tsc_khz, Some(2_399_999));
        assert_eq!(tsc_khz(&log[..1]), Some(2_400_000));
    }

    // Seen to fail when the level decides.
    #[test]
    fn nothing_of_a_device_is_remarkable() {
        let log = log(
            "4 1 usb 1-1: SerialNumber: 0123456789\n3 2 eth0: link/ether 52:54:00:12:34:56\n\
            6 3 mvpmu: enabled\n6 3 mvpmu: enabled\n4 4 WARNING: arch/x86/kvm/pmu.c:1 at kvm_pmu\n",
        );
        let texts = ["mvpmu: enabled", "WARNING: arch/x86/kvm/pmu.c:1 at kvm_pmu"];
        assert_eq!(remarkable(&log), texts);
    }
}
