// SPDX-License-Identifier: GPL-2.0

//! What runs on VM entry and exit, by its object code: no indirect branch, no lock, no allocation,
//! no panic.
//!
//! From the callbacks that the module registers with KVM everything is followed that they branch to,
//! through the module and into the kernel, to the last function. So there need be no list of what
//! they may call: what is new is looked into. The list is of where that ends, each with its reason.
//!
//! An indirect branch is also one through a thunk, which has one in it. No lock is taken without a
//! locked access; none of these may be there, nor a function with a name like that of a lock, an
//! allocation or a panic, for which the compiler has left a check in the code.

mod callbacks;
mod image;
#[cfg(test)]
mod tests;
mod tracepoints;
mod walk;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;

use self::image::Image;
use self::image::Place;
use self::walk::Walk;
use crate::paths;
use crate::paths::Kernel;
use crate::tap::Case;

/// The callbacks, as `struct kvm_mediated_pmu_ops` has them.
const HEADER: &str = "arch/x86/include/asm/kvm_mediated_pmu.h";

/// Those around the life of a VM, and `update`, for which the guest has written to a selector: KVM
/// calls them where it may sleep. All others are on the way into a guest or out of it.
const MAY_SLEEP: [&str; 5] = [
    "vm_create",
    "vm_destroy",
    "vcpu_create",
    "vcpu_destroy",
    "update",
];

/// Rare ones, which KVM calls through the pointer.
const BY_POINTER: [&str; 2] = ["pmi", "msr_access"];

/// The events of the ways into a guest and out of it.
const EVENTS: [&str; 5] = [
    "mvpmu_load",
    "mvpmu_park",
    "mvpmu_put",
    "mvpmu_release",
    "mvpmu_pmi",
];

/// How the vendors are called in the names of functions.
const VENDORS: [(&str, &str); 2] = [
    ("amd", "vendor::amd::Amd"),
    ("intel", "vendor::intel::Intel"),
];

fn read(path: &Path) -> Result<Image> {
    let data = fs::read(path).with_context(|| path.display().to_string())?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Image::new(&name, &data)
}

fn product(name: &str) -> Result<Image> {
    read(&Kernel::Main.product(name))
}

/// That KVM reaches the callback by direct branches, which only lead to its trampoline.
fn called(kvm: &Image, callback: &str) -> Result<Case> {
    let name = format!("KVM calls {callback} by a direct branch");
    let trampoline = kvm.find(&format!("__SCT__kvm_mediated_pmu_{callback}"));
    let calls = match trampoline {
        Some(trampoline) => kvm.branches_to(trampoline)?,
        None => 0,
    };
    Ok(Case::new(&name, calls > 0, || "there is none".to_owned()))
}

/// The callbacks of a vendor, whose code has names with `part` in them.
fn of_vendor<'a, 'b>(
    module: &Image,
    tables: &'a [BTreeMap<&'b str, Place>],
    vendor: &str,
    part: &str,
) -> Result<&'a BTreeMap<&'b str, Place>> {
    let load = |table: &&BTreeMap<&str, Place>| {
        let names = module.names_at(table["load"]);
        names.iter().any(|name| name.contains(part))
    };
    let table = tables.iter().find(load);
    table.with_context(|| format!("the module registers no callbacks for {vendor}"))
}

/// The group of `make test`. Leaves a list of the functions that were looked into.
pub fn test(directory: &Path) -> Result<Vec<Case>> {
    let images = [
        product("modules/mvpmu.ko")?,
        product("vmlinux")?,
        product("modules/kvm.ko")?,
        product("modules/kvm-amd.ko")?,
    ];
    let [module, _, kvm, _] = &images;
    let header = fs::read_to_string(HEADER).context(HEADER)?;
    let names = callbacks::names(&header);
    let tables = callbacks::tables(module, &names)?;
    let on_the_way = names.iter().filter(|name| !MAY_SLEEP.contains(name));
    let mut cases = Vec::new();
    for callback in on_the_way.clone() {
        if !BY_POINTER.contains(callback) {
            cases.push(called(kvm, callback)?);
        }
    }
    let mut reached = BTreeSet::new();
    for (vendor, part) in VENDORS {
        let table = of_vendor(module, &tables, vendor, part)?;
        for callback in on_the_way.clone() {
            let walk = Walk::new(&images, table[callback])?;
            let problems = walk.problems();
            let name =
                format!("{callback} ({vendor}): no indirect branch, lock, allocation or panic");
            cases.push(Case::new(&name, problems.is_empty(), || {
                problems.join("\n")
            }));
            reached.extend(walk.reached());
        }
    }
    let mut text: String = reached.iter().map(|name| format!("{name}\n")).collect();
    for (border, why) in walk::BORDERS {
        text.push_str(&format!("not looked into: {border}: {why}\n"));
    }
    fs::write(directory.join("reached"), text)?;
    Ok(cases)
}

/// The group of `make test-long`, of the module as distributions build it: what tracepoints cost on those
/// ways when they are off.
pub fn test_static_branches(_: &Path) -> Result<Vec<Case>> {
    let images = [
        read(Path::new(paths::STATIC_BRANCHES))?,
        product("vmlinux")?,
        product("modules/kvm.ko")?,
    ];
    let module = &images[0];
    let header = fs::read_to_string(HEADER).context(HEADER)?;
    let names = callbacks::names(&header);
    let tables = callbacks::tables(module, &names)?;
    let mut events: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (vendor, part) in VENDORS {
        let table = of_vendor(module, &tables, vendor, part)?;
        for callback in names.iter().filter(|name| !MAY_SLEEP.contains(name)) {
            for place in Walk::new(&images, table[callback])?.in_first() {
                for (event, problem) in tracepoints::of(module, place)? {
                    events.entry(event).or_default().extend(problem);
                }
            }
        }
    }
    let cases = EVENTS.into_iter().map(|event| {
        let name = format!("{event} costs a NOP while it is off");
        match events.get(event) {
            None => Case::failed(name, "nothing calls it"),
            Some(problems) => Case::new(name, problems.is_empty(), || problems.join("\n")),
        }
    });
    Ok(cases.collect())
}
