// SPDX-License-Identifier: GPL-2.0

//! Follows a function's branches to the last function, and says what there is that must not be.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use anyhow::Result;

use super::image::Deed;
use super::image::Image;
use super::image::Place;

/// Functions that are not looked into, and why. A `*` stands for the rest of a name.
pub const BORDERS: [(&str, &str); 6] = [
    (
        "kvm_mediated_pmu_request_update",
        "sets a bit of the vCPU's requests atomically; when the guest has stopped counting",
    ),
    (
        "perf_load_guest_context",
        "perf schedules out its own events, under its own lock; only if the PMU is switched",
    ),
    (
        "perf_pmu_disable",
        "calls x86_pmu_disable() through a pointer; only if the PMU is switched",
    ),
    (
        "perf_put_guest_pmu",
        "schedules them in, clears and programs registers, which it finds through a pointer",
    ),
    (
        "<kernel::perf::guest::LentPmu as core::ops::drop::Drop>::drop",
        "gives the PMU of another CPU back: if the vCPU's thread had left it without a release",
    ),
    (
        "__SCT__tp_func_*",
        "what someone has attached to a tracepoint",
    ),
];

/// The trampolines of static calls, direct branches that the kernel patches, and where they lead on
/// CPUs that the module is for.
const STATIC_CALLS: [(&str, &[&str]); 2] = [
    (
        "__SCT__apic_call_write",
        &["native_apic_mem_write", "native_apic_msr_write"],
    ),
    (
        "__SCT__kvm_x86_pmu_records_branches",
        &["amd_pmu_records_branches", "__static_call_return0"],
    ),
];
const TRAMPOLINE: &str = "__SCT__";

/// Words in names of functions that must not be reached, and what they stand for.
const WORDS: [(&str, &[&str]); 3] = [
    (
        "a lock",
        &["lock", "trylock", "mutex", "rwsem", "semaphore", "spin"],
    ),
    (
        "an allocation",
        &["alloc", "kmalloc", "krealloc", "kvmalloc", "kfree", "slab"],
    ),
    ("a panic", &["panic", "panicking"]),
];

fn is_border(name: &str) -> bool {
    BORDERS
        .iter()
        .any(|(border, _)| match border.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == *border,
        })
}

/// A function: the index of its image, and where it begins.
type At = (usize, Place);

/// What is reached from a function.
pub struct Walk<'a> {
    images: &'a [Image],
    /// The functions, with the one from which each was reached first.
    reached: BTreeMap<At, Option<At>>,
    /// The nearest first, so that the way shown is a short one.
    pending: VecDeque<At>,
    problems: Vec<String>,
}

impl<'a> Walk<'a> {
    /// Follows everything from `begin`, in the first of the images.
    pub fn new(images: &'a [Image], begin: Place) -> Result<Self> {
        let mut walk = Self {
            images,
            reached: BTreeMap::from([((0, begin), None)]),
            pending: VecDeque::from([(0, begin)]),
            problems: Vec::new(),
        };
        while let Some(at) = walk.pending.pop_front() {
            walk.look_into(at)?;
        }
        Ok(walk)
    }

    /// What must not be, each with the way to it.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Where those of the first image are.
    pub fn in_first(&self) -> impl Iterator<Item = Place> + '_ {
        let first = self.reached.keys().filter(|at| at.0 == 0);
        first.map(|at| at.1)
    }

    /// The names of the functions, each with that of its image.
    pub fn reached(&self) -> impl Iterator<Item = String> + '_ {
        self.reached
            .keys()
            .map(|at| format!("{} {}", self.images[at.0].name, self.name(*at)))
    }

    /// One of the function's names.
    fn name(&self, (image, place): At) -> &'a str {
        let names = self.images[image].names_at(place);
        names.first().map_or("?", String::as_str)
    }

    fn problem(&mut self, what: &str, at: At) {
        let mut text = format!("{what}, in {}", self.name(at));
        let mut at = at;
        while let Some(Some(from)) = self.reached.get(&at) {
            text.push_str(&format!("\n  from {}", self.name(*from)));
            at = *from;
        }
        self.problems.push(text);
    }

    fn reach(&mut self, to: At, from: At) {
        let names = self.images[to.0].names_at(to.1);
        if self.reached.contains_key(&to) || names.iter().any(|name| is_border(name)) {
            return;
        }
        self.reached.insert(to, Some(from));
        self.pending.push_back(to);
    }

    fn reach_name(&mut self, name: &str, from: At) {
        let mut images = self.images.iter().enumerate();
        match images.find_map(|(index, image)| Some((index, image.find(name)?))) {
            Some(to) => self.reach(to, from),
            None => self.problem(&format!("{name} is in no image"), from),
        }
    }

    fn look_into(&mut self, at: At) -> Result<()> {
        let name = self.name(at);
        let is_word = |word: &str| {
            name.split(|c: char| !c.is_ascii_alphanumeric())
                .any(|found| found == word)
        };
        // What such a function does needs no telling.
        if let Some((what, _)) = WORDS
            .iter()
            .find(|(_, words)| words.iter().any(|word| is_word(word)))
        {
            self.problem(what, at);
            return Ok(());
        }
        if name.starts_with(TRAMPOLINE) {
            match STATIC_CALLS.iter().find(|(call, _)| *call == name) {
                Some((_, targets)) => targets.iter().for_each(|to| self.reach_name(to, at)),
                None => self.problem("a static call that may lead anywhere", at),
            }
        }
        for (address, deed) in self.images[at.0].deeds(at.1)? {
            match deed {
                Deed::Store(..) => {}
                Deed::Branch(place) => self.reach((at.0, place), at),
                Deed::BranchAway(name) => self.reach_name(&name, at),
                Deed::BranchNowhere => {
                    self.problem(&format!("a branch to no function at {address:#x}"), at);
                }
                Deed::IndirectBranch => {
                    self.problem(&format!("an indirect branch at {address:#x}"), at);
                }
                Deed::LockedAccess => self.problem(&format!("a locked access at {address:#x}"), at),
            }
        }
        Ok(())
    }
}
