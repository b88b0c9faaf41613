// SPDX-License-Identifier: GPL-2.0

//! The machine's own list of the instructions that are executed while TraceEn is set, for those who compare it
//! with what a trace of Intel PT shows.
//!
//! An entry is two words: the address, and 1 for CPL > 0 plus 2 for a guest. It is of an instruction that
//! retires: not of one that faults or exits.

use std::fs::File;
use std::io::BufWriter;
use std::io::Write;

use pmu_model::Class;

use crate::single::SingleThread;
use crate::watch;

static LIST: SingleThread<Option<BufWriter<File>>> = SingleThread::new(None);

/// Writes the list to this file.
pub fn create(file: File) {
    LIST.with(|list| *list = Some(BufWriter::new(file)));
}

/// TraceEn is set or not.
pub fn follow(traces: bool) {
    let wants = traces && LIST.with(|list| list.is_some());
    watch::set(watch::by::FLOW, wants);
}

/// The instruction at `rip` retires.
#[cold]
pub fn retired(rip: u64, class: Class) {
    let is_guest = matches!(class, Class::GuestKernel | Class::GuestUser);
    let flags = u64::from(class.is_user()) | u64::from(is_guest) << 1;
    let mut entry = [0; 16];
    entry[..8].copy_from_slice(&rip.to_le_bytes());
    entry[8..].copy_from_slice(&flags.to_le_bytes());
    LIST.with(|list| {
        if let Some(list) = list {
            let _ = list.write_all(&entry);
        }
    });
}

/// Writes the last of it.
pub fn finish() -> Result<(), String> {
    let flushed = LIST.with(|list| list.take().map_or(Ok(()), |mut list| list.flush()));
    flushed.map_err(|e| format!("cannot write the list of instructions: {e}"))
}
