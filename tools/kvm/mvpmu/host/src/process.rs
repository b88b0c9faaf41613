// SPDX-License-Identifier: GPL-2.0

//! Processes and their threads. They come and go: whatever is not there any more is `None`.

use crate::printable;
use crate::Root;

/// The name of a process.
pub fn command(root: &Root, pid: u32) -> Option<String> {
    root.value(&format!("/proc/{pid}/comm"))
        .map(|name| printable(&name))
}

/// The name that QEMU was given for its guest: `-name guest=NAME,...` or `-name NAME`.
pub fn guest_name(root: &Root, pid: u32) -> Option<String> {
    let line = root.read(&format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split('\0');
    words.find(|&word| word == "-name" || word == "--name")?;
    let name = words.next()?;
    let name = name
        .split(',')
        .find_map(|part| part.strip_prefix("guest="))
        .or_else(|| name.split(',').next().filter(|first| !first.contains('=')))?;
    Some(printable(name))
}

/// The CPU on which a thread runs, or ran last: field 39 of proc_pid_stat(5).
pub fn cpu(root: &Root, pid: u32, thread: u32) -> Option<u32> {
    let stat = root.read(&format!("/proc/{pid}/task/{thread}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_whitespace().nth(39 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Host;

    #[test]
    fn guests_have_the_names_that_qemu_was_given() {
        let host = Host::new("names");
        for (pid, line, expected) in [
            (1, "qemu\0-name\0guest=db,debug-threads=on\0", Some("db")),
            (2, "qemu\0-name\0web\0-m\0", Some("web")),
            (3, "qemu\0-snapshot\0", None),
            (4, "qemu\0-name\0debug-threads=on\0", None),
            (5, "qemu\0-name\0", Some("")),
        ] {
            host.file(&format!("/proc/{pid}/cmdline"), line);
            assert_eq!(guest_name(&host.root(), pid).as_deref(), expected);
        }
        assert_eq!(guest_name(&host.root(), 6), None);
    }

    #[test]
    fn the_cpu_is_found_behind_a_name_with_parentheses() {
        let host = Host::new("cpu");
        let mut fields: Vec<_> = (3..=52).map(|n| n.to_string()).collect();
        fields[39 - 3] = "7".to_owned();
        let stat = format!("12 (CPU 0) (KVM) {}\n", fields.join(" "));
        host.file("/proc/11/task/12/stat", &stat);
        assert_eq!(cpu(&host.root(), 11, 12), Some(7));
        assert_eq!(cpu(&host.root(), 11, 13), None);
    }
}
