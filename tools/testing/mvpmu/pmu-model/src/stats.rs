// SPDX-License-Identifier: GPL-2.0
//! Counts of what was done to the PMU, and how a machine reports them.

use std::fmt;

use crate::oracle::Counts;
use crate::Owner;

/// PMU register operations that were carried out; refused ones (#GP) and intercepted ones do not
/// count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// RDMSR of a PMU register.
    pub rdmsr: u64,
    /// WRMSR of a PMU register.
    pub wrmsr: u64,
    /// RDPMC.
    pub rdpmc: u64,
    /// Writes of the local APIC's LVTPC.
    pub lvtpc: u64,
}

/// Everything counted on one logical CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Operations in host mode.
    pub host: Operations,
    /// Operations in guest mode.
    pub guest: Operations,
    /// VM entries (VMRUN, VMLAUNCH, VMRESUME).
    pub vm_entries: u64,
    /// VM exits.
    pub vm_exits: u64,
    /// PMIs delivered to the CPU.
    pub pmi: u64,
    /// PMIs that the LVTPC's mask bit (or a disabled local APIC) stopped.
    pub pmi_masked: u64,
    /// RESETs and INITs after power-up.
    pub resets: u64,
    /// What the oracle has seen, if there is one.
    pub oracle: Option<Counts>,
}

impl Stats {
    /// The operations of this mode.
    pub fn operations_mut(&mut self, owner: Owner) -> &mut Operations {
        match owner {
            Owner::Host => &mut self.host,
            Owner::Guest(_) => &mut self.guest,
        }
    }
}

/// As a JSON object.
impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            r#"{{"rdmsr": {}, "wrmsr": {}, "rdpmc": {}, "lvtpc": {}}}"#,
            self.rdmsr, self.wrmsr, self.rdpmc, self.lvtpc
        )
    }
}

/// As a JSON object.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            r#"{{"vm_entries": {}, "vm_exits": {}, "host": {}, "guest": {}, "pmi": {}, "pmi_masked": {}, "resets": {}, "oracle": "#,
            self.vm_entries,
            self.vm_exits,
            self.host,
            self.guest,
            self.pmi,
            self.pmi_masked,
            self.resets
        )?;
        match &self.oracle {
            Some(counts) => write!(f, "{counts}}}"),
            None => write!(f, "null}}"),
        }
    }
}
