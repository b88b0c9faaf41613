// SPDX-License-Identifier: GPL-2.0

//! What the host's PMU can do, and what stands in the way.

use crate::{
    policy::{
        self,
        Choice, //
    },
    pt,
    vendor::{
        Amd,
        Intel,
        Vendor, //
    },
};
use kernel::{
    debugfs::Writer,
    fmt,
    prelude::*,
    x86::{
        cpu,
        pmu::{
            intel,
            Capability, //
        },
        vmx, //
    },
};

/// Why guests cannot have the host's PMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The vendor's PMU is not known to this module.
    Vendor,
    /// Neither SVM nor VMX.
    Virtualization,
    /// Core types that differ, whose PMUs do.
    Hybrid,
    /// No PMU, or perf doesn't use it.
    NoPmu,
    /// The version found and the oldest that works.
    Version(u32, u32),
    /// Counters cannot be written at full width.
    FullWidthWrites,
    /// VM entry or exit cannot load `GLOBAL_CTRL`.
    GlobalCtrl,
    /// Perf cannot lend this PMU.
    Perf,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vendor => f.write_str("the PMU of this CPU's vendor is not supported"),
            Self::Virtualization => f.write_str("the CPU cannot run KVM (no SVM, no VMX)"),
            Self::Hybrid => f.write_str("the CPU mixes core types, whose PMUs differ"),
            Self::NoPmu => f.write_str("the host has no PMU"),
            Self::Version(found, least) => {
                write!(f, "PMU version {found} is too old, {least} is needed")
            }
            Self::FullWidthWrites => {
                f.write_str("the PMU's counters cannot be written at full width")
            }
            Self::GlobalCtrl => f.write_str("VM entry and exit cannot load PERF_GLOBAL_CTRL"),
            Self::Perf => f.write_str("perf cannot lend this PMU to guests"),
        }
    }
}

/// The host's CPU and PMU, as far as it matters to this module.
#[derive(Clone, Copy)]
pub(crate) struct Host {
    vendor: cpu::Vendor,
    virtualization: bool,
    hybrid: bool,
    pmu: Capability,
    /// What Intel's PMU and VMX need beyond.
    full_width_writes: bool,
    global_ctrl: bool,
    /// Why guests cannot have Intel PT.
    pt: Option<pt::Obstacle>,
}

impl Host {
    /// Looks at the machine. KVM knows most of it once its module for the vendor is loaded; here it
    /// is found out without, for the reason to be there before.
    pub(crate) fn probe() -> Self {
        let vendor = cpu::Vendor::of_host();
        let is_intel = vendor == cpu::Vendor::Intel;

        Self {
            vendor,
            virtualization: cpu::has_virtualization(),
            hybrid: cpu::is_hybrid(),
            pmu: Capability::of_host(),
            full_width_writes: !is_intel || intel::has_full_width_writes(),
            global_ctrl: !is_intel || vmx::can_load_perf_global_ctrl(),
            pt: pt::obstacle(),
        }
    }

    /// The first thing in the way, if any.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        let least = match self.vendor {
            cpu::Vendor::Amd => Amd::MIN_VERSION,
            cpu::Vendor::Intel => Intel::MIN_VERSION,
            cpu::Vendor::Other => return Some(Obstacle::Vendor),
        };

        if !self.virtualization {
            Some(Obstacle::Virtualization)
        } else if self.hybrid {
            Some(Obstacle::Hybrid)
        } else if self.pmu.gp_counters == 0 {
            Some(Obstacle::NoPmu)
        } else if self.pmu.version < least {
            Some(Obstacle::Version(self.pmu.version, least))
        } else if !self.full_width_writes {
            Some(Obstacle::FullWidthWrites)
        } else if !self.global_ctrl {
            Some(Obstacle::GlobalCtrl)
        } else if !self.pmu.mediated {
            Some(Obstacle::Perf)
        } else {
            None
        }
    }

    /// The CPU's vendor.
    pub(crate) fn vendor(&self) -> cpu::Vendor {
        self.vendor
    }

    /// Why guests cannot have Intel PT.
    pub(crate) fn pt(&self) -> Option<pt::Obstacle> {
        self.pt
    }

    /// The number of general purpose and of fixed counters.
    pub(crate) fn counters(&self) -> (u32, u32) {
        (self.pmu.gp_counters, self.pmu.fixed_counters)
    }
}

/// The file `capability` of debugfs.
pub(crate) struct Report {
    pub(crate) host: Host,
    /// The module's parameter.
    pub(crate) wanted: bool,
}

impl Writer for Report {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vendor = match self.host.vendor {
            cpu::Vendor::Amd => "amd",
            cpu::Vendor::Intel => "intel",
            cpu::Vendor::Other => "other",
        };
        let pmu = &self.host.pmu;

        writeln!(f, "vendor: {vendor}")?;
        writeln!(f, "version: {}", pmu.version)?;
        writeln!(f, "gp_counters: {}", pmu.gp_counters)?;
        writeln!(f, "fixed_counters: {}", pmu.fixed_counters)?;
        writeln!(f, "counter_width: {}", pmu.gp_width)?;
        writeln!(f, "switch: {}", policy::mode().name())?;
        f.write_fmt(fmt!("pt: {}\n", pt::Summary(self.host.pt())))?;
        match (self.host.obstacle(), self.wanted) {
            (Some(obstacle), _) => f.write_fmt(fmt!("enabled: no\nreason: {obstacle}\n")),
            (None, false) => writeln!(f, "enabled: no\nreason: enable_passthrough_pmu=0"),
            (None, true) => writeln!(f, "enabled: yes\nreason: -"),
        }
    }
}
