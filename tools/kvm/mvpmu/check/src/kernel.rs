// SPDX-License-Identifier: GPL-2.0

//! The kernel that runs: its version, its configuration, its symbols.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::GzDecoder;
use mvpmu_host::Root;

/// The versions of Linux that there is a series for.
pub const VERSIONS: [(u32, u32); 2] = [(7, 2), (7, 3)];

/// What perf has when the series is applied, and what tells the two detectors of hard lockups apart.
const LENDS_PMU: &str = "perf_load_guest_pmu";
const BUDDY_WATCHDOG: &str = "watchdog_buddy_check_hardlockup";
const PERF_WATCHDOG: &str = "hardlockup_detector_perf_restart";

/// How the kernel watches for hard lockups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watchdog {
    /// By an event of perf on each CPU.
    Perf,
    /// By the CPUs watching each other.
    Buddy,
}

/// The kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As uname -r says it.
    pub release: String,
    /// The first two numbers of it.
    pub version: Option<(u32, u32)>,
    /// The configuration, if there is one to read, and where from.
    pub config: Option<(String, Config)>,
    /// Whether the series is applied, if symbols can be read.
    pub lends_pmu: Option<bool>,
    /// Its watchdog, if it has one and that can be told.
    pub watchdog: Option<Watchdog>,
}

impl Kernel {
    /// Looks at what /proc and /boot say.
    pub fn read(root: &Root) -> Self {
        let release = root
            .value("/proc/sys/kernel/osrelease")
            .or_else(|| {
                // "Linux version 7.2.12 (...".
                let version = root.read("/proc/version").ok()?;
                Some(version.split(' ').nth(2)?.to_owned())
            })
            .unwrap_or_default();
        let config = config(root, &release);
        let symbols = symbols(root);
        let has = |name| symbols.as_ref().map(|symbols| symbols.contains(name));
        let watchdog = match (has(BUDDY_WATCHDOG), has(PERF_WATCHDOG), &config) {
            (Some(true), _, _) => Some(Watchdog::Buddy),
            (_, Some(true), _) => Some(Watchdog::Perf),
            (_, _, Some((_, config))) if config.is_on("HARDLOCKUP_DETECTOR_BUDDY") => {
                Some(Watchdog::Buddy)
            }
            (_, _, Some((_, config))) if config.is_on("HARDLOCKUP_DETECTOR_PERF") => {
                Some(Watchdog::Perf)
            }
            _ => None,
        };
        Kernel {
            version: version(&release),
            config,
            lends_pmu: has(LENDS_PMU),
            watchdog,
            release,
        }
    }
}

/// The first two numbers of "7.2.12-1-amd64".
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Of the symbols that are asked for those that the kernel has.
fn symbols(root: &Root) -> Option<BTreeSet<String>> {
    let text = root.read("/proc/kallsyms").ok()?;
    let wanted = [LENDS_PMU, BUDDY_WATCHDOG, PERF_WATCHDOG];
    // "0000000000000000 T name [module]"; no line at all without CONFIG_KALLSYMS.
    let found: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|name| wanted.contains(name))
        .map(str::to_owned)
        .collect();
    (!text.is_empty()).then_some(found)
}

/// A configuration: the text of the file.
#[derive(Clone, Debug)]
pub struct Config(String);

impl Config {
    /// y, m, or nothing.
    pub fn value(&self, option: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let value = line.strip_prefix("CONFIG_")?.strip_prefix(option)?;
            value.strip_prefix('=')
        })
    }

    /// Whether it is built in or a module.
    pub fn is_on(&self, option: &str) -> bool {
        matches!(self.value(option), Some("y" | "m"))
    }
}

/// The configuration of the kernel that runs, from where distributions put it.
fn config(root: &Root, release: &str) -> Option<(String, Config)> {
    let compressed = "/proc/config.gz";
    if let Ok(bytes) = root.bytes(compressed) {
        let mut text = String::new();
        if GzDecoder::new(&bytes[..]).read_to_string(&mut text).is_ok() {
            return Some((compressed.to_owned(), Config(text)));
        }
    }
    let places = [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
        format!("/usr/lib/modules/{release}/config"),
        format!("/lib/modules/{release}/build/.config"),
    ];
    places.into_iter().find_map(|path| {
        let text = root.read(&path).ok()?;
        Some((path, Config(text)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use flate2::Compression;
    use mvpmu_host::fixture::Host;
    use std::io::Write;

    #[test]
    fn versions_are_the_first_two_numbers() {
        assert_eq!(version("7.2.12"), Some((7, 2)));
        assert_eq!(version("6.12.48+deb13-amd64"), Some((6, 12)));
        assert_eq!(version("7.3-rc1"), Some((7, 3)));
        assert_eq!(version(""), None);
        assert_eq!(version("next"), None);
    }

    #[test]
    fn an_option_is_not_another_that_begins_alike() {
        let config =
            Config("CONFIG_KVM_AMD=m\n# CONFIG_KVM is not set\nCONFIG_RUST=y\n".to_owned());
        assert_eq!(config.value("KVM"), None);
        assert_eq!(config.value("KVM_AMD"), Some("m"));
        assert!(config.is_on("RUST"));
        assert!(!config.is_on("RUS"));
    }

    #[test]
    fn the_running_configuration_is_taken_before_that_of_boot() {
        let host = Host::new("config");
        host.file("/proc/version", "Linux version 7.2.12 (x) #1\n");
        assert!(Kernel::read(&host.root()).config.is_none());
        host.file("/boot/config-7.2.12", "CONFIG_HARDLOCKUP_DETECTOR_PERF=y\n");
        let kernel = Kernel::read(&host.root());
        assert_eq!(kernel.release, "7.2.12");
        assert_eq!(kernel.watchdog, Some(Watchdog::Perf));
        assert_eq!(kernel.lends_pmu, None);

        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"CONFIG_HARDLOCKUP_DETECTOR_BUDDY=y\n")
            .expect("it goes to memory");
        host.file("/proc/config.gz", gzip.finish().expect("it goes to memory"));
        let kernel = Kernel::read(&host.root());
        assert_eq!(kernel.watchdog, Some(Watchdog::Buddy));
        let (path, _) = kernel.config.expect("there are two");
        assert_eq!(path, "/proc/config.gz");
    }

    #[test]
    fn symbols_tell_the_series_and_the_watchdog() {
        let host = Host::new("symbols");
        host.file(
            "/proc/kallsyms",
            "0 T perf_load_guest_pmu\n0 t watchdog_buddy_check_hardlockup\n",
        );
        let kernel = Kernel::read(&host.root());
        assert_eq!(kernel.lends_pmu, Some(true));
        assert_eq!(kernel.watchdog, Some(Watchdog::Buddy));
        host.file("/proc/kallsyms", "0 t hardlockup_detector_perf_restart\n");
        let kernel = Kernel::read(&host.root());
        assert_eq!(kernel.lends_pmu, Some(false));
        assert_eq!(kernel.watchdog, Some(Watchdog::Perf));
        // Without CONFIG_KALLSYMS.
        host.file("/proc/kallsyms", "");
        assert_eq!(Kernel::read(&host.root()).lends_pmu, None);
    }
}
