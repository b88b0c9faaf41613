// SPDX-License-Identifier: GPL-2.0

//! In which order modules can be loaded one by one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use object::Object;
use object::ObjectSection;

/// The files of modules and of those that they need, these first.
pub fn in_order(directory: &Path, wanted: &[&str]) -> Result<Vec<String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = file.strip_suffix(".ko") {
            files.insert(canonical(name), file);
        }
    }
    let needs = |file: &str| {
        let bytes = fs::read(directory.join(file))?;
        depends(&bytes).with_context(|| file.to_owned())
    };
    order(&files, wanted, &needs)
}

/// The name of a module, whichever way it is written.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn order(
    files: &BTreeMap<String, String>,
    wanted: &[&str],
    needs: &dyn Fn(&str) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let mut ordered = Vec::new();
    for name in wanted {
        let file = files.get(&canonical(name));
        let file = file.with_context(|| format!("the kernel has no module {name}"))?;
        if ordered.contains(file) {
            continue;
        }
        let needed = needs(file)?;
        let needed: Vec<_> = needed.iter().map(String::as_str).collect();
        for first in order(files, &needed, needs)? {
            if !ordered.contains(&first) {
                ordered.push(first);
            }
        }
        ordered.push(file.clone());
    }
    Ok(ordered)
}

/// What a module needs, as it says itself: "depends=A,B" of strings that end with 0.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let object = object::File::parse(module)?;
    let section = object.section_by_name(".modinfo").context("no module")?;
    let text = String::from_utf8_lossy(section.data()?).into_owned();
    let depends = text
        .split('\0')
        .find_map(|line| line.strip_prefix("depends="));
    let names = depends.unwrap_or_default().split(',');
    Ok(names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen to fail when a module comes before those it needs, and when '-' is not '_'.
    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let files = ["usb-storage", "usbcore", "scsi_mod", "sd_mod"];
        let files = files
            .map(|name| (canonical(name), format!("{name}.ko")))
            .into();
        let needs = |file: &str| {
            let names: &[&str] = match file {
                "usb-storage.ko" => &["usbcore", "scsi_mod"],
                "sd_mod.ko" => &["scsi_mod"],
                _ => &[],
            };
            Ok(names.iter().map(|&name| name.to_owned()).collect())
        };
        let ordered = order(&files, &["usb_storage", "sd_mod"], &needs).expect("all are there");
        assert_eq!(
            ordered,
            ["usbcore.ko", "scsi_mod.ko", "usb-storage.ko", "sd_mod.ko"]
        );
        let missing = order(&files, &["vfat"], &needs).expect_err("it is not there");
        assert_eq!(missing.to_string(), "the kernel has no module vfat");
    }
}
