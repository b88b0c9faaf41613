// SPDX-License-Identifier: GPL-2.0

//! What Intel PT has traced of a program in L1, or in a Linux guest with a PT of its own, as perf decodes it
//! there, against the machine's own list.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::paths;
use crate::results;
use crate::tap::Case;

/// Where the job leaves what perf has decoded: an address in hexadecimal a line.
const DECODED: &str = "user";
/// What the machine says of an instruction at CPL > 0, not in a guest, and in one.
const USER: u64 = 1;
const GUEST_USER: u64 = 3;

/// The addresses of instructions of such a user mode on the list of the machine.
fn executed(list: &[u8], user: u64) -> Vec<u64> {
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rfold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    let entries = list.chunks_exact(16).map(|entry| entry.split_at(8));
    entries
        .filter(|(_, who)| word(who) == user)
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

/// Traces a program in L1 and compares.
pub fn test(boot: &Boot, directory: &Path) -> Result<Vec<Case>> {
    let job = Job {
        perf: true,
        image: Some(paths::tool("traced")),
        ..Job::new("traces")
    };
    compare(boot, &job, ("", USER), directory)
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

/// With what the job leaves in this place, of such a user mode.
fn compare(
    boot: &Boot,
    job: &Job,
    (place, user): (&str, u64),
    directory: &Path,
) -> Result<Vec<Case>> {
    let list = directory.with_extension("flow");
    if let Some(parent) = list.parent() {
        fs::create_dir_all(parent)?;
    }
    let list = std::path::absolute(list)?;
    let mut boot = boot.clone();
    boot.model.push(format!("flow={}", list.display()));
    let outcome = boot::run(&boot, job, directory, Duration::from_secs(300), false)?;
    let mut cases = results::of_job(&outcome, &[format!("{place}traces")]);
    cases.extend(results::of_refusals(&outcome));
    let decoded = decoded(&outcome.read(&format!("{place}{DECODED}"))?);
    let executed = executed(&fs::read(&list)?, user);
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
