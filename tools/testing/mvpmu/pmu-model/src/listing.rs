// SPDX-License-Identifier: GPL-2.0
//! A listing: which instructions of the host were executed, and how often, in some parts of a run.
//!
//! Marks say where a part begins and ends: CPUID of the machine's own leaf, [`LEAF`], by the host or,
//! where KVM intercepts it, by a guest. What is executed in one kind of part is added, in the other
//! one taken away, so that what both have in common is not there in the end.
//!
//! [`LEAF`]: crate::stats::LEAF

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A part begins whose instructions are added: ECX of the host's CPUID.
const ADD: u32 = 0x110;
/// One begins whose instructions are taken away.
const SUBTRACT: u32 = 0x111;
/// It ends.
const END: u32 = 0x112;

/// Whose marks are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// The host's.
    Host,
    /// A guest's: from its mark `add` to the next one is added, from `subtract` taken away.
    Guest {
        /// What it calls the one.
        add: u32,
        /// And the other.
        subtract: u32,
    },
}

impl Marks {
    /// What instructions count for after the host has set this mark, if it is one; 0: nothing.
    pub fn weight_from_host(self, mark: u32) -> Option<i64> {
        match (self, mark) {
            (Marks::Host, ADD) => Some(1),
            (Marks::Host, SUBTRACT) => Some(-1),
            (Marks::Host, END) => Some(0),
            _ => None,
        }
    }

    /// The same of a guest's.
    pub fn weight_from_guest(self, mark: u32) -> Option<i64> {
        match self {
            Marks::Host => None,
            Marks::Guest { add, .. } if add == mark => Some(1),
            Marks::Guest { subtract, .. } if subtract == mark => Some(-1),
            Marks::Guest { .. } => Some(0),
        }
    }
}

impl FromStr for Marks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let guests = |text: &str| {
            let (add, subtract) = text.strip_prefix("guest:")?.split_once(':')?;
            Some(Marks::Guest {
                add: add.parse().ok()?,
                subtract: subtract.parse().ok()?,
            })
        };
        match text {
            "host" => Some(Marks::Host),
            text => guests(text),
        }
        .ok_or_else(|| format!("`{text}` is neither `host` nor `guest:ADD:SUBTRACT`"))
    }
}

/// Whose instruction it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The kernel's, at this address.
    Kernel(u64),
    /// The host's in user mode.
    User,
    /// A guest's.
    Guest,
}

/// How often each was executed.
///
/// It is shown as lines that begin with "listing:". Addresses of code have 16 digits, so that they can
/// be given names.
#[derive(Default)]
pub struct Listing(BTreeMap<Whose, i64>);

impl Listing {
    /// An instruction was executed so often.
    pub fn add(&mut self, whose: Whose, times: i64) {
        *self.0.entry(whose).or_default() += times;
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(whose, times)| match whose {
            Whose::Kernel(address) => writeln!(f, "listing: {times} {address:#018x}"),
            Whose::User => writeln!(f, "listing: {times} user mode"),
            Whose::Guest => writeln!(f, "listing: {times} guest"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Break: marks of the other one are taken, or the next mark of a guest does not end a part.
    #[test]
    fn marks_begin_and_end_parts() {
        let host: Marks = "host".parse().unwrap();
        assert_eq!(
            [ADD, SUBTRACT, END, 0].map(|mark| host.weight_from_host(mark)),
            [Some(1), Some(-1), Some(0), None]
        );
        assert_eq!(host.weight_from_guest(ADD), None);
        let guest: Marks = "guest:4:0".parse().unwrap();
        assert_eq!(
            [0, 1, 4, 5].map(|mark| guest.weight_from_guest(mark)),
            [Some(-1), Some(0), Some(1), Some(0)]
        );
        assert_eq!(guest.weight_from_host(ADD), None);
        assert!("guest:4".parse::<Marks>().is_err());
    }

    // Break: an address has fewer digits.
    #[test]
    fn what_is_taken_away_is_not_there() {
        let mut listing = Listing::default();
        listing.add(Whose::Kernel(0x1000), 1);
        listing.add(Whose::Guest, 2);
        listing.add(Whose::Guest, -1);
        assert_eq!(
            listing.to_string(),
            "listing: 1 0x0000000000001000\nlisting: 1 guest\n"
        );
    }
}
