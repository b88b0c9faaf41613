// SPDX-License-Identifier: GPL-2.0
//! What the machines' sweeps have in common: interrupts injected into the kernel of the host, at each
//! instruction of a part of the run.
//!
//! The host says what to sweep by CPUID of the machine's own leaf, [`LEAF`](crate::stats::LEAF): ECX
//! says what RBX and RDX mean.

use std::ops::Range;

/// The part begins: ECX of CPUID. On a machine that repeats it, RDX is the kind of the interrupt, and
/// RBX says which instructions: see [`Every`].
pub const BEGIN: u32 = 0x100;
/// It ends. A machine that repeats it tells in EDX:EAX where it has injected, if it has.
pub const END: u32 = 0x101;
/// A result: RBX.
pub const RESULT: u32 = 0x102;
/// A place, named before the part begins: what is called at RBX or behind it, up to RDX.
pub const PLACE: u32 = 0x103;
/// A machine that repeats it tells in EDX:EAX where a place begins that was never entered, if there is
/// one.
pub const MISSED: u32 = 0x104;

/// Every `nth` instruction, of each only the first so many `times` that a run executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    /// 0: none.
    pub nth: u32,
    /// How often.
    pub times: u32,
}

impl Every {
    /// As RBX has it.
    pub fn from_rbx(rbx: u64) -> Every {
        Every {
            nth: rbx as u32,
            times: (rbx >> 32) as u32,
        }
    }
}

/// Functions that the host has named.
struct Place {
    /// Where they begin.
    begin: Range<u64>,
    entered: bool,
}

/// Where it is to be swept: from an entry of one of the places to its return, with all that it calls.
#[derive(Default)]
pub struct Places {
    places: Vec<Place>,
    /// In one of them: RSP once it has returned.
    inside: Option<u64>,
}

impl Places {
    /// Adds one.
    pub fn add(&mut self, begin: Range<u64>) {
        let entered = false;
        self.places.push(Place { begin, entered });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether one of them may be entered at this address.
    pub fn may_begin_at(&self, rip: u64) -> bool {
        self.places.iter().any(|place| place.begin.contains(&rip))
    }

    /// Whether one has been entered and has not returned yet, now that the instruction at `rip` is
    /// about to be executed. Others have stacks of their own: none comes to where its caller's begins.
    pub fn is_inside(&mut self, rip: u64, rsp: u64) -> bool {
        if self.inside == Some(rsp) {
            self.inside = None;
        }
        let mut places = self.places.iter_mut();
        if let Some(place) = places.find(|place| place.begin.contains(&rip)) {
            place.entered = true;
            // The return address is on top.
            self.inside.get_or_insert(rsp + 8);
        }
        self.inside.is_some()
    }

    /// Forgets that one has been entered.
    pub fn leave(&mut self) {
        self.inside = None;
    }

    /// Where those begin that were never entered.
    pub fn not_entered(&self) -> impl Iterator<Item = u64> + '_ {
        let places = self.places.iter().filter(|place| !place.entered);
        places.map(|place| place.begin.start)
    }
}
