// SPDX-License-Identifier: GPL-2.0
//! What the PMU of a machine can be made to be, by options that have the same names and values on
//! each machine.
//!
//! | option | |
//! |---|---|
//! | `pmi-delay=N` | a PMI comes N instructions after the overflow: [`PmiDelay`] |
//! | `power-on=zero`, `power-on=random:SEED` | what firmware has left: [`PowerOn`] |
//! | `weights=CYCLES:REFERENCE` | how many of them an instruction takes: [`Weights`] |
//! | `lbr=on`, `lbr=off` | whether there are last branch records, if the CPU has them ([`switch`]); on unless said |
//! | `pt=on`, `pt=off` | whether there is Intel PT, if the CPU has it; on unless said |

use std::str::FromStr;

/// Something that is there or not.
pub fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// How long a performance interrupt takes from the counter that wrapped to the local APIC.
///
/// That is some cycles on hardware, which executes on meanwhile, and enters and leaves guests. So
/// the LVTPC decides that is there at the end. What wraps meanwhile asks for no interrupt of its
/// own: one is under way. A CPU that has no more instructions to execute keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PmiDelay {
    /// In instructions.
    delay: u64,
    /// The number of the instruction by which the interrupt under way comes.
    due: Option<u64>,
}

impl PmiDelay {
    /// At once.
    pub const NONE: PmiDelay = PmiDelay {
        delay: 0,
        due: None,
    };

    /// A counter that asks for an interrupt has wrapped, `now` instructions from the start.
    pub fn raise(&mut self, now: u64) {
        self.due.get_or_insert(now.wrapping_add(self.delay));
    }

    /// How many instructions are left to the interrupt under way.
    pub fn left(&self, now: u64) -> Option<u64> {
        self.due.map(|due| due.saturating_sub(now))
    }

    /// True once when it has come.
    pub fn take(&mut self, now: u64) -> bool {
        let has_come = self.left(now) == Some(0);
        if has_come {
            self.due = None;
        }
        has_come
    }

    /// RESET: none is under way.
    pub fn reset(&mut self) {
        self.due = None;
    }
}

impl FromStr for PmiDelay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let delay = text.parse().map_err(|_| format!("`{text}` is no number"))?;
        Ok(PmiDelay { delay, due: None })
    }
}

/// What the PMU's registers hold when the CPU is powered on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerOn {
    /// What the manuals say.
    #[default]
    Zero,
    /// Anything, as if firmware or an earlier kernel had used it; the same for the same seed.
    Random(u64),
}

impl PowerOn {
    /// The numbers for CPU `cpu`.
    pub fn random(self, cpu: u32) -> Option<Random> {
        match self {
            PowerOn::Zero => None,
            PowerOn::Random(seed) => {
                let mut of_seed = Random(seed);
                Some(Random(of_seed.next() ^ u64::from(cpu)))
            }
        }
    }
}

impl FromStr for PowerOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seed = |text: &str| text.parse().ok().map(PowerOn::Random);
        match text.split_once(':') {
            None if text == "zero" => Some(PowerOn::Zero),
            Some(("random", text)) => seed(text),
            _ => None,
        }
        .ok_or_else(|| format!("`{text}` is neither `zero` nor `random:SEED`"))
    }
}

/// Random numbers that are the same everywhere: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The next one.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// How long an instruction takes.
///
/// With 1 of each, as else, a counter of cycles cannot be told from one of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Cycles.
    pub cycles: u32,
    /// Cycles of the reference clock.
    pub reference: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Weights {
            cycles: 1,
            reference: 1,
        }
    }
}

impl FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let weight = |text: &str| text.parse().ok().filter(|weight| (1..=64).contains(weight));
        text.split_once(':')
            .and_then(|(cycles, reference)| {
                let (cycles, reference) = (weight(cycles)?, weight(reference)?);
                Some(Weights { cycles, reference })
            })
            .ok_or_else(|| format!("`{text}` is not two numbers from 1 to 64, CYCLES:REFERENCE"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when an overflow puts the interrupt off that is under way, or brings another.
    #[test]
    fn a_delayed_interrupt_comes_once_and_in_time() {
        let mut delay: PmiDelay = "20".parse().unwrap();
        assert_eq!(delay.left(0), None);
        delay.raise(100);
        delay.raise(110);
        assert_eq!(delay.left(110), Some(10));
        assert!(!delay.take(119));
        assert!(delay.take(120));
        assert!(!delay.take(121));
        let mut none = PmiDelay::default();
        none.raise(7);
        assert!(none.take(7));
    }

    // Has to fail when two CPUs get the same numbers, or two runs others.
    #[test]
    fn each_cpu_has_numbers_of_its_own() {
        let power_on: PowerOn = "random:7".parse().unwrap();
        let number = |cpu| power_on.random(cpu).unwrap().next();
        assert_eq!(number(0), number(0));
        assert_ne!(number(0), number(1));
        assert!(PowerOn::Zero.random(0).is_none());
    }

    // Has to fail when one is taken for another.
    #[test]
    fn values_are_understood_or_refused() {
        assert_eq!("zero".parse(), Ok(PowerOn::Zero));
        assert_eq!(
            "3:2".parse(),
            Ok(Weights {
                cycles: 3,
                reference: 2
            })
        );
        for bad in ["random", "random:", "random:x", "all", "1"] {
            assert!(bad.parse::<PowerOn>().is_err());
        }
        for bad in ["3", "0:1", "3:65", "a:b"] {
            assert!(bad.parse::<Weights>().is_err());
        }
        assert!("-1".parse::<PmiDelay>().is_err());
    }
}
