// SPDX-License-Identifier: GPL-2.0

//! An estimate of what the module costs: operations, each at a price.
//!
//!     cost  = hw_reads * read + hw_writes * write + (guest_reads + guest_writes) * exit
//!     saved = switches_avoided * (hw_reads * read + hw_writes * write) / loads
//!
//! The second is what the VM exits that left the state in hardware would have cost, at the average of
//! the switches that took place. What perf does at a switch is not in it.

use clap::Args;
use serde::Serialize;

use crate::counts::Counts;

/// Prices in nanoseconds. The usual ones are assumptions, of the order of what is seen on servers:
/// no manual gives them, and each CPU has its own.
#[derive(Args, Clone, Copy, Debug)]
pub struct Prices {
    /// Price of a read of a PMU register, in nanoseconds
    #[arg(long = "read-cost", value_name = "NS", default_value_t = 40)]
    pub read: u64,
    /// Price of a write of a PMU register, in nanoseconds
    #[arg(long = "write-cost", value_name = "NS", default_value_t = 100)]
    pub write: u64,
    /// Price of a VM exit for an intercepted access, in nanoseconds
    #[arg(long = "exit-cost", value_name = "NS", default_value_t = 1000)]
    pub exit: u64,
}

/// An estimate, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// What was spent.
    pub ns: u64,
    /// What was not, as the state stayed in hardware.
    pub saved_ns: u64,
}

impl Prices {
    /// What these counts have cost.
    pub fn of(&self, counts: &Counts) -> Cost {
        let switches = counts.hw_reads * self.read + counts.hw_writes * self.write;
        let saved = u128::from(counts.switches_avoided) * u128::from(switches);
        Cost {
            ns: switches + counts.intercepted() * self.exit,
            saved_ns: u64::try_from(saved / u128::from(counts.loads.max(1))).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_operations_at_their_prices() {
        let prices = Prices {
            read: 3,
            write: 5,
            exit: 100,
        };
        let counts = Counts {
            loads: 2,
            hw_reads: 10,
            hw_writes: 20,
            guest_reads: 1,
            guest_writes: 2,
            switches_avoided: 7,
            ..Counts::default()
        };
        let cost = prices.of(&counts);
        assert_eq!(cost.ns, 10 * 3 + 20 * 5 + 3 * 100);
        assert_eq!(cost.saved_ns, 7 * (10 * 3 + 20 * 5) / 2);
        assert_eq!(prices.of(&Counts::default()), Cost::default());
    }
}
