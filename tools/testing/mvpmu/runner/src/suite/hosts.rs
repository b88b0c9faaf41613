// SPDX-License-Identifier: GPL-2.0

//! What is typed on a host.

use std::time::Duration;

use super::group::Group;
use super::group::Work;
use crate::job::Job;
use crate::machine::name;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::shown;

/// The tools for hosts; on a machine that cannot do it, with the reason.
pub fn host_tools(name: &str, boot: Boot, reason: Option<&str>) -> Group {
    Group {
        name: format!("{} host tools{name}", boot.machine.name()),
        work: Work::Boot {
            boot,
            job: Job {
                arguments: reason.into_iter().map(str::to_owned).collect(),
                host_tools: true,
                ..Job::new("host-tools")
            },
            tests: vec!["host-tools".to_owned()],
            limit: Duration::from_secs(1200),
        },
    }
}

/// The commands for hosts that the documentation shows.
pub fn shown_commands(cpu: Cpu) -> Group {
    Group {
        name: format!("{} shown commands", name(cpu)),
        work: Work::Boot {
            boot: Boot::of_cpu(cpu),
            job: Job {
                arguments: shown::on_host().into_iter().map(str::to_owned).collect(),
                host_tools: true,
                ..Job::new("shown")
            },
            tests: vec!["shown".to_owned()],
            limit: Duration::from_secs(600),
        },
    }
}
