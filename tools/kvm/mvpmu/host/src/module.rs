// SPDX-License-Identifier: GPL-2.0

//! The state of the module, and why nothing can be seen of it.

use std::fmt;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use serde::Deserialize;
use serde::Serialize;

use crate::key_value;
use crate::printable;
use crate::Root;
use crate::DEBUGFS;

/// What debugfs shows of the module, and where the module shows that it is loaded.
pub const DIRECTORY: &str = "/sys/kernel/debug/mvpmu";
const MODULE: &str = "/sys/module/mvpmu";

/// How the module is loaded so that guests get the PMU.
pub const LOAD: &str = "modprobe mvpmu enable_passthrough_pmu=1";

/// What the module says of the host, in the file `capability`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// amd, intel or other.
    pub vendor: String,
    /// Of PerfMon or of the architectural PMU.
    pub version: u32,
    /// General purpose counters.
    pub gp_counters: u32,
    /// Fixed counters.
    pub fixed_counters: u32,
    /// Of a general purpose counter, in bits.
    pub counter_width: u32,
    /// The parameter: auto or eager.
    pub switch: String,
    /// Whether guests get the PMU.
    pub enabled: bool,
    /// Why not.
    pub reason: Option<String>,
}

impl Capability {
    /// Reads the lines of the file.
    pub fn parse(text: &str) -> Option<Self> {
        let value = |key| key_value::value(text, key).map(printable);
        let number = |key| value(key)?.parse().ok();
        Some(Capability {
            vendor: value("vendor")?,
            version: number("version")?,
            gp_counters: number("gp_counters")?,
            fixed_counters: number("fixed_counters")?,
            counter_width: number("counter_width")?,
            switch: value("switch")?,
            enabled: value("enabled")? == "yes",
            reason: value("reason").filter(|reason| reason != "-"),
        })
    }
}

/// Why nothing can be seen of the module, with what to do.
#[derive(Debug)]
pub enum Problem {
    /// /sys is not there.
    NoSysfs,
    /// The module is not loaded; why it was refused, by the log.
    Absent(Option<String>),
    /// The kernel has no debugfs.
    NoDebugfs,
    /// debugfs is not mounted.
    NotMounted,
    /// It takes other rights.
    Denied,
    /// debugfs has nothing of the module, which is loaded.
    NothingShown,
    /// A file is not as expected.
    Unknown(String),
    /// A file cannot be read.
    Failed(String, io::Error),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSysfs => f.write_str("/sys is not mounted: mount -t sysfs sysfs /sys"),
            Self::Absent(None) => write!(f, "mvpmu is not loaded: {LOAD}"),
            Self::Absent(Some(log)) => {
                write!(f, "mvpmu is not loaded, the kernel's log says \"{log}\": {LOAD}")
            }
            Self::NoDebugfs => f.write_str(
                "the kernel has no debugfs: it needs CONFIG_DEBUG_FS=y, and no debugfs=off on its command line",
            ),
            Self::NotMounted => {
                write!(f, "debugfs is not mounted: mount -t debugfs debugfs {DEBUGFS}")
            }
            Self::Denied => write!(f, "{DEBUGFS} is not for this user: run as root (sudo)"),
            Self::NothingShown => {
                write!(f, "mvpmu is loaded, but there is no {DIRECTORY}: is another debugfs mounted there?")
            }
            Self::Unknown(path) => {
                write!(f, "{path} is not as expected: are module and tool of one version?")
            }
            Self::Failed(path, error) => write!(f, "{path}: {error}"),
        }
    }
}

impl std::error::Error for Problem {}

/// Whether the module is loaded. Everybody may know.
pub fn is_loaded(root: &Root) -> bool {
    root.exists(MODULE)
}

/// A parameter of the module, which everybody may read.
pub fn parameter(root: &Root, name: &str) -> Option<String> {
    root.value(&format!("{MODULE}/parameters/{name}"))
}

/// What the module says of the host.
pub fn capability(root: &Root) -> Result<Capability, Problem> {
    let path = format!("{DIRECTORY}/capability");
    match root.read(&path) {
        Ok(text) => Capability::parse(&text).ok_or(Problem::Unknown(path)),
        Err(error) => Err(why_not(root, &path, error)),
    }
}

/// Why the file `path` of the module could not be read: of several reasons that which is in the way
/// first.
pub fn why_not(root: &Root, path: &str, error: io::Error) -> Problem {
    if !root.exists("/sys/module") {
        return Problem::NoSysfs;
    }
    if !is_loaded(root) {
        return Problem::Absent(refusal(root));
    }
    // Where debugfs is not mounted there is an empty directory that everybody may read.
    match root.names(DEBUGFS) {
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Problem::NoDebugfs,
            ErrorKind::PermissionDenied => Problem::Denied,
            _ => Problem::Failed(DEBUGFS.to_owned(), error),
        },
        Ok(names) if names.is_empty() => Problem::NotMounted,
        Ok(names) if !names.iter().any(|name| name == "mvpmu") => Problem::NothingShown,
        Ok(_) if error.kind() == ErrorKind::PermissionDenied => Problem::Denied,
        Ok(_) => Problem::Failed(path.to_owned(), error),
    }
}

/// Why the module was refused when it was loaded last, for who may read the kernel's log.
pub fn refusal(root: &Root) -> Option<String> {
    let log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(root.path("/dev/kmsg"))
        .ok()?;
    let records = records(log);
    let mut messages = records.lines().rev().filter_map(message);
    let is_refusal = |message: &&str| {
        message.starts_with("mvpmu: not enabled: ") || message.contains("provider mvpmu refused")
    };
    // What it says when it was not refused ends the search.
    messages
        .find(|message| message.starts_with("mvpmu: ") || is_refusal(message))
        .filter(is_refusal)
        .map(printable)
}

/// All records there are. A read returns one.
fn records(mut log: File) -> String {
    let mut text = Vec::new();
    let mut record = vec![0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&record[..length]),
            // This one was overwritten meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The text of a record: "6,339,5140900,-;mvpmu: not enabled: ...".
fn message(line: &str) -> Option<&str> {
    let (prefix, message) = line.split_once(';')?;
    prefix.contains(',').then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Host;

    const AMD: &str = "vendor: amd\nversion: 2\ngp_counters: 6\nfixed_counters: 0\n\
        counter_width: 48\nswitch: auto\nenabled: yes\nreason: -\n";

    fn problem(host: &Host) -> String {
        let problem = capability(&host.root()).expect_err("there is one");
        let line = problem.to_string();
        assert!(!line.contains('\n'));
        line
    }

    #[test]
    fn capability_is_read_as_it_is_shown() {
        let capability = Capability::parse(AMD).expect("all lines are there");
        assert_eq!(capability.vendor, "amd");
        assert_eq!(capability.gp_counters, 6);
        assert!(capability.enabled);
        assert_eq!(capability.reason, None);

        let off = AMD.replace(
            "enabled: yes\nreason: -",
            "enabled: no\nreason: the host has no PMU",
        );
        let capability = Capability::parse(&off).expect("all lines are there");
        assert!(!capability.enabled);
        assert_eq!(capability.reason.as_deref(), Some("the host has no PMU"));
        assert_eq!(Capability::parse("vendor: amd\n"), None);
    }

    #[test]
    fn the_first_thing_in_the_way_is_named_with_what_to_do() {
        let host = Host::new("problems");
        assert!(problem(&host).contains("mount -t sysfs"));
        host.empty("/sys/module");
        assert_eq!(problem(&host), format!("mvpmu is not loaded: {LOAD}"));
        host.empty("/sys/module/mvpmu");
        assert!(problem(&host).contains("CONFIG_DEBUG_FS=y"));
        host.empty("/sys/kernel/debug");
        assert!(problem(&host).contains("mount -t debugfs debugfs /sys/kernel/debug"));
        host.empty("/sys/kernel/debug/kvm");
        assert!(problem(&host).contains("there is no /sys/kernel/debug/mvpmu"));
        host.file("/sys/kernel/debug/mvpmu/capability", "vendor: amd\n");
        assert!(problem(&host).contains("one version"));
        host.file("/sys/kernel/debug/mvpmu/capability", AMD);
        assert!(capability(&host.root()).is_ok());
    }

    #[test]
    fn the_log_says_why_the_module_was_refused() {
        let host = Host::new("log");
        host.empty("/sys/module");
        host.file(
            "/dev/kmsg",
            "6,1,10,-;mvpmu: not enabled: an older reason\n SUBSYSTEM=x\n\
             3,2,20,-;mvpmu: not enabled: PMU version 1 is too old, 2 is needed\n\
             6,3,30,-;something else\n",
        );
        assert!(problem(&host).contains("\"mvpmu: not enabled: PMU version 1 is too old"));
        host.file(
            "/dev/kmsg",
            "3,2,20,-;kvm: mediated PMU provider mvpmu refused, virtual machines exist\n",
        );
        assert!(problem(&host).contains("machines exist\": modprobe mvpmu"));
    }

    // Has to fail when any line that names the module will do.
    #[test]
    fn what_is_no_refusal_is_not_repeated() {
        let host = Host::new("log-without");
        host.empty("/sys/module");
        host.file(
            "/dev/kmsg",
            "3,1,10,-;mvpmu: not enabled: the host has no PMU\n\
             6,2,20,-;mvpmu: guests get the host's PMU: AMD PerfMonV2, 6 counters, 0 fixed\n\
             5,3,30,-;Kernel command line: mvpmu.report_modules\n",
        );
        assert_eq!(problem(&host), format!("mvpmu is not loaded: {LOAD}"));
    }
}
