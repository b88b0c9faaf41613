// SPDX-License-Identifier: GPL-2.0

//! The Bochs core is loaded at run time and calls back by symbol name: the
//! program has to export what it defines.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic");
    println!("cargo::rerun-if-changed=build.rs");
}
