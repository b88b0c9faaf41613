// SPDX-License-Identifier: GPL-2.0

//! The counts of a vCPU, as debugfs shows them: Documentation/ABI/testing/debugfs-mvpmu.

use mvpmu_host::key_value;
use serde::Serialize;

/// Defines the counts, with the names of debugfs, and what they are in a few words.
macro_rules! counts {
    ($($name:ident: $kind:ident, $help:literal;)*) => {
        /// The counts of a vCPU, or of all.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counts {
            $(#[doc = $help] pub $name: u64,)*
        }

        impl Counts {
            /// Reads the lines of a file. Those that are not known are of a newer module.
            pub fn parse(text: &str) -> Option<Self> {
                Some(Counts {
                    $($name: key_value::value(text, stringify!($name))?.parse().ok()?,)*
                })
            }

            /// What was added since `earlier`.
            pub fn since(&self, earlier: &Self) -> Self {
                Counts {
                    $($name: self.$name.saturating_sub(earlier.$name),)*
                }
            }

            /// Each with its name, its kind and what it is.
            pub fn each(&self) -> Vec<(&'static str, Kind, &'static str, u64)> {
                vec![$((stringify!($name), Kind::$kind, $help, self.$name),)*]
            }
        }
    };
}

/// What a number of debugfs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows by one for each.
    Event,
    /// Microseconds in a state; the name is `time_STATE_us`.
    Time,
    /// How many there are now.
    Now,
}

counts! {
    activations: Event, "Times a vCPU began to use the hardware";
    refusals: Event, "Times it could not, as an event of the host counts in guests";
    waiting: Now, "vCPUs that wait for the end of such events";
    loads: Event, "Times the PMU state of a guest went into hardware";
    puts: Event, "Times it came back";
    switches_avoided: Event, "VM exits after which it stayed in hardware";
    releases: Event, "Puts that were no VM exit's";
    pmis: Event, "Performance monitoring interrupts of a guest";
    hw_reads: Event, "RDMSR and RDPMC of PMU registers by the module";
    hw_writes: Event, "WRMSR of PMU registers by the module";
    guest_reads: Event, "Intercepted reads of PMU registers by a guest";
    guest_writes: Event, "Intercepted writes of PMU registers by a guest";
    time_dormant_us: Time, "Time in which a guest did not use the hardware";
    time_active_us: Time, "Time in which a guest used the hardware";
    time_in_hardware_us: Time, "Time in which the state of a guest was in hardware, up to the last put";
}

impl Counts {
    /// Puts after a VM exit, as events of the host waited for the PMU.
    pub fn contended(&self) -> u64 {
        self.puts.saturating_sub(self.releases)
    }

    /// Accesses of the guest that KVM has intercepted.
    pub fn intercepted(&self) -> u64 {
        self.guest_reads + self.guest_writes
    }

    /// Microseconds that have passed for the vCPU.
    pub fn elapsed_us(&self) -> u64 {
        self.time_dormant_us + self.time_active_us
    }

    /// Whether the host has been in the way.
    pub fn has_contention(&self) -> bool {
        self.contended() > 0 || self.refusals > 0 || self.waiting > 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    // What a newer module shows has to be ignored, and what an older one lacks has to be noticed.
    #[test]
    fn all_lines_that_are_known_are_needed() {
        let text: String = Counts::default()
            .each()
            .iter()
            .zip(1..)
            .map(|((name, ..), n)| format!("{name}: {n}\n"))
            .collect();
        let counts = Counts::parse(&format!("{text}new: x\n")).expect("all are there");
        assert_eq!(counts.activations, 1);
        assert_eq!(counts.time_in_hardware_us, 15);
        assert_eq!(Counts::parse(&text.replace("pmis", "pmi")), None);
        assert_eq!(Counts::parse(&text.replace(": 4", ": four")), None);
    }

    #[test]
    fn puts_that_are_no_releases_are_contention() {
        let mut counts = Counts {
            puts: 7,
            releases: 7,
            ..Counts::default()
        };
        assert!(!counts.has_contention());
        counts.puts = 9;
        assert_eq!(counts.contended(), 2);
        assert!(counts.has_contention());
    }
}
