// SPDX-License-Identifier: GPL-2.0

//! Tracepoints that are off cost a NOP: each is behind a static branch, which is one in the object
//! code, and what calls it is not reached.

use anyhow::Result;

use super::image::Deed;
use super::image::Image;
use super::image::Place;

/// How the functions begin that Rust calls for an event, and their keys.
const CALL: &str = "rust_do_trace_";
const KEY: &str = "__tracepoint_";

/// The events of a function that begins at `place`, each with what is wrong with it.
pub fn of(module: &Image, place: Place) -> Result<Vec<(String, Option<String>)>> {
    let branches = module.static_branches(place)?;
    let executed = module.executed(place)?;
    let mut events = Vec::new();
    for (address, deed) in module.deeds(place)? {
        let Some(event) = called(module, &deed) else {
            continue;
        };
        let key = format!("{KEY}{event}");
        let of_it = |(_, of, _): &&(u64, &str, bool)| *of == key;
        let own: Vec<_> = branches.iter().filter(of_it).collect();
        let problem = if executed.contains(&address) {
            Some(format!("it is called at {address:#x} while it is off"))
        } else if own.is_empty() {
            Some(format!("the call at {address:#x} has no static branch"))
        } else {
            let other = own.iter().find(|(_, _, nop)| !nop);
            other.map(|(at, ..)| format!("its static branch at {at:#x} is no NOP"))
        };
        events.push((event, problem));
    }
    Ok(events)
}

/// The event that is called, if one is.
fn called(module: &Image, deed: &Deed) -> Option<String> {
    let names = match deed {
        Deed::Branch(to) => module.names_at(*to).to_vec(),
        Deed::BranchAway(name) => vec![name.clone()],
        _ => Vec::new(),
    };
    names
        .iter()
        .find_map(|name| Some(name.strip_prefix(CALL)?.to_owned()))
}
