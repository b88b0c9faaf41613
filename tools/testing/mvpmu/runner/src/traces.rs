// SPDX-License-Identifier: GPL-2.0

//! What Intel PT has traced of a program in L1, or in a Linux guest with a PT of its own, as perf decodes it
//! there, against the machine's own list.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use object::Object;
use object::ObjectSection;
use object::SectionKind;

use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::paths;
use crate::paths::Kernel;
use crate::results;
use crate::tap::Case;

/// Where the job leaves what perf has decoded: an address in hexadecimal a line.
const DECODED: &str = "user";
/// What the machine says of an instruction at CPL 0, at CPL > 0, not in a guest, and in one.
const KERNEL: u64 = 0;
const USER: u64 = 1;
const GUEST_USER: u64 = 3;

/// The addresses of instructions that the machine says this of.
fn executed(list: &[u8], of: u64) -> Vec<u64> {
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rfold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    let entries = list.chunks_exact(16).map(|entry| entry.split_at(8));
    entries
        .filter(|(_, who)| word(who) == of)
        .map(|(address, _)| word(address))
        .collect()
}

/// Those of the output of perf; a line that is none is an error of the decoder.
fn decoded(text: &str) -> Result<Vec<u64>, String> {
    text.lines()
        .map(|line| u64::from_str_radix(line.trim(), 16).map_err(|_| line.to_owned()))
        .collect()
}

/// What is different, if anything is.
fn difference(executed: &[u64], decoded: &[u64]) -> Option<String> {
    if executed.is_empty() {
        return Some("nothing was executed".to_owned());
    }
    if executed == decoded {
        return None;
    }
    let pairs = executed.iter().zip(decoded);
    let same = pairs
        .take_while(|(executed, decoded)| executed == decoded)
        .count();
    let at = |list: &[u64]| {
        list.get(same)
            .map_or("the end".to_owned(), |ip| format!("{ip:#x}"))
    };
    Some(format!(
        "{} executed, {} decoded; of these {same} are the same, then {} and {}",
        executed.len(),
        decoded.len(),
        at(executed),
        at(decoded)
    ))
}

/// The kernel's code, as it was linked.
struct Code(Vec<(u64, Vec<u8>)>);

impl Code {
    fn of(kernel: Kernel) -> Result<Self> {
        let path = kernel.product("vmlinux");
        let file = fs::read(&path).with_context(|| path.display().to_string())?;
        let file = object::File::parse(&*file)?;
        let sections = file
            .sections()
            .filter(|section| section.kind() == SectionKind::Text);
        let code = sections.map(|section| Ok((section.address(), section.data()?.to_vec())));
        Ok(Code(code.collect::<Result<_>>()?))
    }

    fn has_wrmsr(&self, address: u64) -> bool {
        self.0.iter().any(|(start, code)| {
            let offset = address.checked_sub(*start).map(|offset| offset as usize);
            offset.and_then(|offset| code.get(offset..)?.get(..2)) == Some(&WRMSR)
        })
    }
}

/// WRMSR.
const WRMSR: [u8; 2] = [0x0f, 0x30];

/// Without each WRMSR that is not followed by the next instruction: it has cleared TraceEn, and perf takes the
/// trace to end before it. (Behind others there could be an interrupt; then the lists are not the same.)
fn without_ends(executed: &[u64], is_wrmsr: impl Fn(u64) -> bool) -> Vec<u64> {
    let next = executed.iter().skip(1).map(Some).chain([None]);
    let is_end = |address: u64, next: Option<&u64>| {
        next != Some(&(address + WRMSR.len() as u64)) && is_wrmsr(address)
    };
    executed
        .iter()
        .zip(next)
        .filter(|(address, next)| !is_end(**address, *next))
        .map(|(address, _)| *address)
        .collect()
}

/// Traces a program in L1 and compares.
pub fn test(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let job = Job {
        perf: true,
        image: Some(paths::tool("traced")),
        ..Job::new("traces")
    };
    compare(boot, &job, ("", USER), directory)
}

/// Traces the kernel of L1 while the program runs, and compares.
pub fn test_of_kernel(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let job = Job {
        arguments: vec!["kernel".to_owned()],
        perf: true,
        image: Some(paths::tool("traced")),
        ..Job::new("traces")
    };
    compare(boot, &job, ("", KERNEL), directory)
}

/// Traces it in a Linux guest and compares.
pub fn test_in_guest(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let job = Job {
        perf: true,
        linux_guest: true,
        ..Job::new("guest-traces")
    };
    compare(boot, &job, ("guest/", GUEST_USER), directory)
}

/// With what the job leaves in this place, of what the machine says this of.
fn compare(
    boot: &Boot,
    job: &Job,
    (place, of): (&str, u64),
    directory: &Path,
) -> Result<Vec<Case>> {
    let list = directory.with_extension("flow");
    if let Some(parent) = list.parent() {
        fs::create_dir_all(parent)?;
    }
    let list = std::path::absolute(list)?;
    let mut boot = boot.clone();
    boot.model.push(format!("flow={}", list.display()));
    let outcome = boot::run(&boot, job, directory, Duration::from_secs(600), false)?;
    let mut cases = results::of_job(&outcome, &[format!("{place}traces")]);
    cases.extend(results::of_refusals(&outcome));
    let decoded = decoded(&outcome.read(&format!("{place}{DECODED}"))?);
    let mut executed = executed(&fs::read(&list)?, of);
    if of == KERNEL {
        let code = Code::of(boot.kernel)?;
        executed = without_ends(&executed, |address| code.has_wrmsr(address));
    }
    fs::remove_file(&list)?;
    let problem = match decoded {
        Ok(decoded) => difference(&executed, &decoded),
        Err(line) => Some(line),
    };
    let name = format!("{place}what perf decodes is what was executed");
    cases.push(Case::new(name, problem.is_none(), || {
        problem.unwrap_or_default()
    }));
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when an entry is read in another order, or those of others are taken.
    #[test]
    fn the_list_is_that_of_user_mode() {
        let entry = |address: u64, who: u64| [address.to_le_bytes(), who.to_le_bytes()].concat();
        let list = [
            entry(0x1234, 1),
            entry(0x5678, 0),
            entry(0x9abc, 3),
            entry(2, 1),
        ]
        .concat();
        assert_eq!(executed(&list, USER), [0x1234, 2]);
        assert_eq!(executed(&list, GUEST_USER), [0x9abc]);
    }

    // Has to fail when a WRMSR in the middle of a trace is left out, or that at the end of all stays.
    #[test]
    fn perf_ends_a_trace_before_the_instruction_that_does() {
        let executed = [8, 10, 12, 20, 22, 30];
        let is_wrmsr = |address| [10, 12, 22, 30].contains(&address);
        assert_eq!(without_ends(&executed, is_wrmsr), [8, 10, 20]);
    }

    // Has to fail when a list that is longer or empty passes, or an error of the decoder does.
    #[test]
    fn what_differs_is_said() {
        assert_eq!(difference(&[1, 2], &[1, 2]), None);
        assert!(difference(&[], &[]).is_some());
        let said = difference(&[1, 2], &[1]).unwrap();
        assert!(said.ends_with("then 0x2 and the end"), "{said}");
        assert!(difference(&[1], &[1, 2]).is_some());
        assert_eq!(decoded(" 1f\n20\n"), Ok(vec![0x1f, 0x20]));
        assert_eq!(decoded(" 1f\n error 2\n"), Err(" error 2".to_owned()));
    }
}
