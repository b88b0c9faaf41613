// SPDX-License-Identifier: GPL-2.0

//! The callbacks of the module: what it has stored in a `struct kvm_mediated_pmu_ops` when it
//! registers it with KVM. Their names do not matter, as the compiler makes one function of two that
//! are the same.

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use iced_x86::Register;

use super::image::Deed;
use super::image::Image;
use super::image::Place;

/// The function that takes the structure.
const REGISTER: &str = "kvm_mediated_pmu_register";

/// Where a pointer is stored: behind what the register points to, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Field(Register, u64);

impl Field {
    fn is_before(self, other: Self) -> bool {
        self.0 == other.0 && self.1 + 8 == other.1
    }
}

/// The names of the callbacks in the header, in the order of the fields.
pub fn names(header: &str) -> Vec<&str> {
    // "void (*name)(...".
    header
        .lines()
        .filter_map(|line| Some(line.split_once("(*")?.1.split_once(')')?.0))
        .collect()
}

/// The callbacks of each structure that the module registers: a function for each of the `names`.
pub fn tables<'a>(module: &Image, names: &[&'a str]) -> Result<Vec<BTreeMap<&'a str, Place>>> {
    let mut tables = Vec::new();
    for function in module.functions() {
        let mut stored = BTreeMap::new();
        for (_, deed) in module.deeds(function)? {
            match deed {
                Deed::Store(base, offset, function) => {
                    stored.insert(Field(base, offset), function);
                }
                Deed::BranchAway(name) if name == REGISTER => {
                    let stored: Vec<_> = std::mem::take(&mut stored).into_iter().collect();
                    // Others lie elsewhere: what is on the stack, for one.
                    let mut adjacent = stored.chunk_by(|a: &(Field, _), b| a.0.is_before(b.0));
                    let table = adjacent.find(|fields| fields.len() == names.len());
                    let table = table.with_context(|| {
                        let function = module.names_at(function);
                        format!("{function:?}: no {} fields in {stored:?}", names.len())
                    })?;
                    let functions = table.iter().map(|(_, function)| *function);
                    tables.push(names.iter().copied().zip(functions).collect());
                }
                _ => {}
            }
        }
    }
    Ok(tables)
}
