// SPDX-License-Identifier: GPL-2.0

//! Who has events of perf open. The kernel does not say more of them: neither whether they count,
//! where, nor whether also in guests.

use serde::Serialize;

use crate::process;
use crate::Root;

/// A process with events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The process.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// How many descriptors of events it has.
    pub events: usize,
}

/// Those with events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owners {
    /// The processes, by number.
    pub processes: Vec<Owner>,
    /// Whether all processes could be looked at, which takes the rights to.
    pub complete: bool,
}

/// Looks at the descriptors of all processes.
pub fn owners(root: &Root) -> Owners {
    let mut owners = Owners {
        processes: Vec::new(),
        complete: true,
    };
    let names = root.names("/proc").unwrap_or_default();
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    for pid in pids {
        let directory = format!("/proc/{pid}/fd");
        let names = match root.names(&directory) {
            Ok(names) => names,
            Err(error) => {
                owners.complete &= error.kind() != std::io::ErrorKind::PermissionDenied;
                continue;
            }
        };
        let is_event = |name: &&String| {
            root.link(&format!("{directory}/{name}")).as_deref() == Some("anon_inode:[perf_event]")
        };
        let events = names.iter().filter(is_event).count();
        if events > 0 {
            owners.processes.push(Owner {
                pid,
                command: process::command(root, pid).unwrap_or_default(),
                events,
            });
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Host;

    #[test]
    fn owners_are_those_with_descriptors_of_events() {
        let host = Host::new("owners");
        host.link("/proc/30/fd/0", "/dev/null");
        host.link("/proc/30/fd/3", "anon_inode:[perf_event]");
        host.link("/proc/30/fd/4", "anon_inode:[perf_event]");
        host.file("/proc/30/comm", "perf\n");
        host.link("/proc/4/fd/3", "anon_inode:[eventpoll]");
        host.file("/proc/self/comm", "me\n");
        let expected = Owner {
            pid: 30,
            command: "perf".to_owned(),
            events: 2,
        };
        let owners = owners(&host.root());
        assert_eq!(owners.processes, [expected]);
        assert!(owners.complete);
    }
}
