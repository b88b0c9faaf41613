// SPDX-License-Identifier: GPL-2.0

//! Random calls to KVM's PMU and to perf, in L1: the oracle, the kernel's log and the program that
//! makes them say whether all is well.

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use anyhow::bail;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use diff_test::calls;
use diff_test::calls::Call;
use diff_test::calls::Calls;
use diff_test::Pmu;

use crate::boot;
use crate::boot::Outcome;
use crate::job::Job;
use crate::kernel_log;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::tap::Case;

/// The seed of `make test`, and of `make calls` if it is given none.
pub const SEED: u64 = 1;
/// So many programs are run if nobody says how many.
pub const PROGRAMS: u64 = 100;
/// A bug of the module that they find.
pub const MUTANT: &str = "one-too-few";
/// So many are run in one boot.
const BATCH: u64 = 200;
const LIMIT: Duration = Duration::from_secs(900);
/// What `calls` says when the last program is over.
const ALL: &str = "all programs";

/// Which programs are run, and where.
pub struct Random<'a> {
    /// The machine.
    pub cpu: Cpu,
    /// mvpmu, with parameters of the module, or c.
    pub provider: &'a str,
    /// The programs are those of this seed ...
    pub seed: u64,
    /// ... from 0 on.
    pub programs: u64,
    /// Where the files go.
    pub directory: &'a Path,
}

/// A program after which something is wrong.
struct Found {
    seed: u64,
    index: u64,
    program: Calls,
    why: String,
}

/// How often each call was done, and how often it was refused.
type Tally = Vec<(String, u64, u64)>;

/// What became of some programs.
enum Verdict {
    /// All is well.
    Well(Tally),
    /// After, or in, the one at this place, something is wrong.
    Wrong(usize, String),
}

fn pmu(cpu: Cpu) -> &'static Pmu {
    match Machine::of(cpu) {
        Machine::Amd => &Pmu::AMD,
        Machine::Intel => &Pmu::INTEL,
    }
}

/// What is wrong with a run, if anything.
fn problem(outcome: &Outcome) -> Option<String> {
    if let Some(violations) = &outcome.violations {
        return Some(violations.clone());
    }
    if let Some(problem) = outcome.problem() {
        let said = outcome.read("calls").unwrap_or_default();
        let said: Vec<_> = said
            .lines()
            .filter(|line| !line.starts_with("program "))
            .collect();
        return Some([&said[..], &[&problem]].concat().join("\n"));
    }
    let complaints = match outcome.read("kernel-log") {
        Ok(log) => kernel_log::complaints(&log),
        Err(error) => vec![format!("{error:#}")],
    };
    (!complaints.is_empty()).then(|| complaints.join("\n"))
}

/// How often calls were done and refused: lines "NAME: DONE REFUSED".
fn tally(text: &str) -> Tally {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(": ")?;
        let (done, refused) = numbers.split_once(' ')?;
        Some((name.to_owned(), done.parse().ok()?, refused.parse().ok()?))
    };
    let lines = text.lines().skip_while(|&line| line != ALL);
    lines.filter_map(line).collect()
}

impl Random<'_> {
    fn run(&self, programs: &[Calls]) -> Result<Verdict> {
        fs::create_dir_all(self.directory)?;
        let file = self.directory.join("programs");
        fs::write(&file, calls::text(programs))?;
        let job = Job {
            arguments: vec![self.provider.to_owned()],
            image: Some(file),
            ..Job::new("calls")
        };
        let boot = Boot::of_cpu(self.cpu).with_two_cpus();
        let outcome = boot::run(&boot, &job, &self.directory.join("run"), LIMIT, false)?;
        let console = fs::read(&outcome.console)?;
        let console = String::from_utf8_lossy(&console);
        if let Some(why) = problem(&outcome) {
            let begun = console
                .lines()
                .filter(|line| line.trim_end().starts_with("program "))
                .count();
            ensure!(begun > 0, "no program was run: {why}");
            return Ok(Verdict::Wrong(begun - 1, why));
        }
        let tally = tally(&outcome.read("calls")?);
        ensure!(!tally.is_empty(), "not all programs were run");
        Ok(Verdict::Well(tally))
    }

    /// Runs the programs to the first with which something is wrong, which is shrunk.
    fn find(&self, progress: impl Fn(u64)) -> Result<Result<Tally, Found>> {
        let mut total: Tally = Vec::new();
        let mut begin = 0;
        while begin < self.programs {
            let end = self.programs.min(begin + BATCH);
            let programs: Vec<_> = (begin..end)
                .map(|index| calls::generate(pmu(self.cpu), self.seed, index))
                .collect();
            match self.run(&programs)? {
                Verdict::Well(tally) if total.is_empty() => total = tally,
                Verdict::Well(tally) => {
                    for (sum, one) in total.iter_mut().zip(tally) {
                        sum.1 += one.1;
                        sum.2 += one.2;
                    }
                }
                Verdict::Wrong(at, why) => {
                    progress(begin + at as u64);
                    return self.shrink(begin + at as u64, &programs[at], why).map(Err);
                }
            }
            progress(end);
            begin = end;
        }
        Ok(Ok(total))
    }

    fn shrink(&self, index: u64, program: &Calls, why: String) -> Result<Found> {
        let original = self.directory.join("original");
        fs::write(&original, calls::text(std::slice::from_ref(program)))?;
        let found = |program, why| Found {
            seed: self.seed,
            index,
            program,
            why,
        };
        // It may need what those before it have left, or an interrupt in its place.
        let Verdict::Wrong(..) = self.run(std::slice::from_ref(program))? else {
            let why = format!("{why}\nBy itself, in {}, all is well.", original.display());
            return Ok(found(program.clone(), why));
        };
        let mut last = why;
        let program = diff_test::shrink(program.clone(), |programs| {
            anyhow::Ok(match self.run(programs)? {
                Verdict::Well(_) => None,
                Verdict::Wrong(at, why) => {
                    last = why;
                    Some(at)
                }
            })
        })?;
        Ok(found(program, last))
    }
}

impl Found {
    /// What `--replay` takes.
    fn text(&self) -> String {
        let mut text = format!("# seed {} program {}\n", self.seed, self.index);
        for call in &self.program {
            text.push_str(&format!("{call}\n"));
        }
        for line in self.why.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        text
    }
}

/// The group of `make test`.
pub fn test(cpu: Cpu, provider: &str, programs: u64, directory: &Path) -> Result<Vec<Case>> {
    let random = Random {
        cpu,
        provider,
        seed: SEED,
        programs,
        directory,
    };
    let name = format!("after {programs} programs of random calls all is well");
    let found = random.find(|_| {})?;
    let mut cases = vec![Case::new(&name, found.is_ok(), || match &found {
        Err(found) => found.text(),
        Ok(_) => String::new(),
    })];
    let Ok(tally) = found else { return Ok(cases) };
    let refused: Vec<_> = tally
        .iter()
        .filter(|(_, done, _)| *done == 0)
        .map(|(name, ..)| name.as_str())
        .collect();
    cases.push(Case::new(
        "each call was done in one of them",
        refused.is_empty(),
        || format!("always refused: {}", refused.join(", ")),
    ));
    Ok(cases)
}

/// That random calls find a bug of the module, `mutant`, and that what is left of the program finds it, too.
pub fn test_finds(cpu: Cpu, mutant: &str, directory: &Path) -> Result<Vec<Case>> {
    let provider = format!("mvpmu,mutant={mutant}");
    let random = Random {
        cpu,
        provider: &provider,
        seed: SEED,
        programs: PROGRAMS,
        directory,
    };
    let name = format!("random calls find the mutant {mutant}");
    let Err(found) = random.find(|_| {})? else {
        return Ok(vec![Case::failed(&name, "they do not")]);
    };
    let original = calls::generate(pmu(cpu), SEED, found.index);
    let again = match random.run(std::slice::from_ref(&found.program))? {
        Verdict::Wrong(_, why) => Some(why),
        Verdict::Well(_) => None,
    };
    let smaller = found.program.len() < original.len();
    fs::write(directory.join("case"), found.text())?;
    Ok(vec![
        Case::passed(&name),
        Case::new(
            "a smaller program finds it, too",
            smaller && again.is_some(),
            || found.text(),
        ),
    ])
}

/// `mvpmu-run calls`: whether all was well.
pub fn run(random: &Random) -> Result<bool> {
    let begin = Instant::now();
    let found = random.find(|done| {
        println!(
            "{done} of {} programs, {} s",
            random.programs,
            begin.elapsed().as_secs()
        );
    })?;
    match found {
        Ok(tally) => {
            println!("{:16} {:>8} {:>8}", "", "done", "refused");
            for (name, done, refused) in tally {
                println!("{name:16} {done:8} {refused:8}");
            }
            Ok(true)
        }
        Err(found) => {
            let case = random.directory.join("case");
            fs::write(&case, found.text())?;
            print!("{}", found.text());
            println!("It is in {}, for --replay.", case.display());
            Ok(false)
        }
    }
}

/// Runs a program from a file. Whether all was well.
pub fn replay(random: &Random, file: &Path) -> Result<bool> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let program: Calls = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty() && !line.starts_with("program "))
        .map(|line| line.parse::<Call>().map_err(anyhow::Error::msg))
        .collect::<Result<_>>()?;
    if program.is_empty() {
        bail!("no calls in {}", file.display());
    }
    match random.run(&[program])? {
        Verdict::Well(_) => Ok(true),
        Verdict::Wrong(_, why) => {
            println!("{why}");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Has to fail when what programs say counts, too.
    #[test]
    fn calls_are_counted_after_the_last_program() {
        let text = "program 0\nrun: 9 9\nall programs\nvm: 3 0\nonline: 1 2\n";
        let expected = [("vm".to_owned(), 3, 0), ("online".to_owned(), 1, 2)];
        assert_eq!(tally(text), expected);
        assert_eq!(tally("vm: 3 0\n"), []);
    }
}
