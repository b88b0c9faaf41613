// SPDX-License-Identifier: GPL-2.0

//! Intel Processor Trace (PT) of guests.
//!
//! There is nothing to be moved here: perf's driver of PT makes all accesses to its registers, for
//! which KVM tells it when a guest is entered and left. What is decided here is whether guests have a
//! PT at all.
//!
//! See Documentation/virt/kvm/x86/mvpmu-pt.rst.

use crate::policy::Choice;
use kernel::{
    fmt,
    module_param::ModuleParam,
    prelude::*,
    str::BStr,
    x86::{
        cpu,
        pmu::intel,
        vmx::ProcessorTrace, //
    }, //
};

/// Whose trace guests are in, the parameter `pt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pt {
    /// As without this module, whatever KVM's `pt_mode` says: guests have no PT.
    Off,
    /// Guests are in the trace of the host.
    System,
    /// Guests have a trace of their own, and the host's stops for them.
    HostGuest,
}

impl Choice for Pt {
    const PARAMETER: &'static str = "pt";
    const ALL: &'static [Self] = &[Self::System, Self::HostGuest, Self::Off];

    fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::System => "system",
            Self::HostGuest => "host_guest",
        }
    }
}

impl ModuleParam for Pt {
    fn try_from_param_arg(arg: &BStr) -> Result<Self> {
        Self::named(arg)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The mode the module was loaded with.
pub(crate) fn mode() -> Pt {
    crate::module_parameters::pt.value()
}

/// Why guests cannot have a PT of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// There is none.
    NoPt,
    /// Perf has found it in use, or lacks something.
    Driver,
    /// It is off in VMX operation.
    VmxOperation,
    /// The output of a guest cannot go to guest-physical addresses.
    GuestAddresses,
    /// VM entry and exit do not switch it.
    Control,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPt => "the CPU has no PT",
            Self::Driver => "perf does not use PT, see the kernel log",
            Self::VmxOperation => "the CPU cannot trace in VMX operation",
            Self::GuestAddresses => "VMX cannot write a trace to guest-physical addresses",
            Self::Control => "VM entry and exit cannot load and clear RTIT_CTL",
        })
    }
}

/// The first thing in the way, if any.
pub(crate) fn obstacle() -> Option<Obstacle> {
    let vmx = ProcessorTrace::of_host();

    if cpu::Vendor::of_host() != cpu::Vendor::Intel || !intel::has_pt() {
        Some(Obstacle::NoPt)
    } else if !intel::is_pt_used_by_perf() {
        Some(Obstacle::Driver)
    } else if !vmx.in_vmx_operation {
        Some(Obstacle::VmxOperation)
    } else if !vmx.guest_addresses {
        Some(Obstacle::GuestAddresses)
    } else if !vmx.control {
        Some(Obstacle::Control)
    } else {
        None
    }
}

/// Whether guests get one. If they cannot though they should, the log says why.
pub(crate) fn given(obstacle: Option<Obstacle>) -> bool {
    if mode() != Pt::HostGuest {
        return false;
    }
    if let Some(obstacle) = obstacle {
        pr_warn!("guests get no PT: {obstacle}\n");
    }
    obstacle.is_none()
}

/// For the file `capability` of debugfs: what guests have.
pub(crate) struct Summary(pub(crate) Option<Obstacle>);

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (mode(), self.0) {
            (Pt::HostGuest, Some(obstacle)) => f.write_fmt(fmt!("off, {obstacle}")),
            (mode, _) => f.write_str(mode.name()),
        }
    }
}
