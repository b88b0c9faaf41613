// SPDX-License-Identifier: GPL-2.0

//! Bugs of the C code of the series, each with what catches it.

use crate::patch::Change;
use crate::patch::Patch;

/// IA32_RTIT_CTL, IA32_RTIT_STATUS, IA32_RTIT_OUTPUT_BASE.
const RTIT_CTL: u32 = 0x570;
const RTIT_STATUS: u32 = 0x571;
const RTIT_OUTPUT_BASE: u32 = 0x560;

/// A bug, and how it is caught.
pub struct Patched {
    /// For people.
    pub name: &'static str,
    /// What it is.
    pub patch: Patch,
    /// The selftest that makes it show.
    pub test: &'static str,
    /// Whether the oracle watches.
    pub watched: bool,
    /// What catches it.
    pub by: &'static str,
}

const fn in_perf(function: &'static [&'static str], change: Change) -> Patch {
    Patch {
        image: "vmlinux",
        functions: function,
        change,
    }
}

const fn in_kvm(functions: &'static [&'static str], change: Change) -> Patch {
    Patch {
        image: "kvm-intel.ko",
        functions,
        change,
    }
}

/// A guest is entered with the output of who traced before.
pub const OUTPUT_LEFT: Patch =
    in_perf(&["intel_pt_guest_enter"], Change::NoWrite(RTIT_OUTPUT_BASE));

/// The same with its status.
pub const STATUS_LEFT: Patch = in_perf(&["intel_pt_guest_enter"], Change::NoWrite(RTIT_STATUS));

/// A vCPU leaves a CPU without its trace's registers.
const LEFT_AT_PUT: Patch = in_kvm(&["vmx_vcpu_put"], Change::NoCall("intel_pt_guest_put"));

/// All of them, of Intel PT.
pub const ALL: [Patched; 7] = [
    Patched {
        name: "trace-en-left",
        patch: in_perf(&["intel_pt_guest_enter"], Change::NoWrite(RTIT_CTL)),
        test: "host_pt_test",
        watched: true,
        by: "I1 a VM entry that loads IA32_RTIT_CTL finds TraceEn set, and fails",
    },
    Patched {
        name: "output-of-host-left",
        patch: OUTPUT_LEFT,
        test: "host_pt_test",
        watched: true,
        by: "I3 the guest is entered and can read a register of a trace",
    },
    Patched {
        name: "output-of-guest-left",
        patch: in_perf(&["intel_pt_guest_exit"], Change::NoWrite(RTIT_OUTPUT_BASE)),
        test: "host_pt_test",
        watched: true,
        by: "I5 a trace of the host begins with a register of a guest",
    },
    Patched {
        name: "gap-not-marked",
        patch: in_perf(
            &["intel_pt_guest_enter"],
            Change::NoCall("perf_aux_output_flag"),
        ),
        test: "host_pt_test",
        watched: true,
        by: "host_pt_test: host_pt.beside_a_guest_that_traces.has_a_gap_and_entry_does_not_fail",
    },
    Patched {
        name: "guest-cpuid-believed",
        patch: in_kvm(
            &[
                "vmx_pt_has_output",
                "vmx_rtit_ctl_check",
                "vmx_get_msr",
                "vmx_set_msr",
                "vmx_vcpu_after_set_cpuid",
            ],
            Change::Returned("intel_pt_validate_hw_cap", u32::MAX),
        ),
        test: "guest_pt_test",
        watched: true,
        by: "guest_pt_test: guest_pt.is_no_more_than_the_cpu_has",
    },
    Patched {
        name: "trace-left-at-put",
        patch: LEFT_AT_PUT,
        test: "guest_pt_test",
        watched: true,
        by: "I4 the guest is entered without its trace's registers, which another CPU has",
    },
    Patched {
        name: "trace-left-at-put, not watched",
        patch: LEFT_AT_PUT,
        test: "guest_pt_test",
        watched: false,
        by: "guest_pt_test: guest_pt.is_read_where_it_is_not",
    },
];
