// SPDX-License-Identifier: GPL-2.0

//! The differential test: the same programs in place of a kernel and in a guest.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::anyhow;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use diff_test::Difference;
use diff_test::Known;
use diff_test::Op;
use diff_test::Pair;
use diff_test::Pmu;
use diff_test::Program;

use crate::boot;
use crate::job::Job;
use crate::machine::Boot;
use crate::machine::Cpu;
use crate::machine::Machine;
use crate::paths;
use crate::tap::Case;

/// The seed of `make test`.
pub const SEED: u64 = 1;
/// Its number of programs; `make test-long` has twice as many.
pub const PROGRAMS: u64 = 1000;
/// So many are run in one boot.
const BATCH: u64 = 1000;
const LIMIT: Duration = Duration::from_secs(300);

/// Which programs are run, and where.
pub struct Fuzz<'a> {
    /// The machine, and that whose guest it is.
    pub cpu: Cpu,
    /// mvpmu or c.
    pub provider: &'a str,
    /// The programs are those of this seed ...
    pub seed: u64,
    /// ... from 0 on.
    pub programs: u64,
    /// Whether they do what is known to differ.
    pub known: Known,
    /// Where the files go.
    pub directory: &'a Path,
}

/// A program that read other values in the guest.
struct Found {
    seed: u64,
    index: u64,
    program: Program,
    difference: Difference,
}

struct Machines<'a> {
    cpu: Cpu,
    provider: &'a str,
    directory: &'a Path,
}

impl Machines<'_> {
    fn run(&self, programs: &[Program]) -> Result<Vec<Pair>> {
        let interpreter = paths::tool("diff_interpreter");
        let interpreter =
            fs::read(&interpreter).with_context(|| interpreter.display().to_string())?;
        let reset = pmu(self.cpu).reset();
        let bytes = diff_test::image(&interpreter, &reset, programs).map_err(anyhow::Error::msg)?;
        let image = self.directory.join("image");
        fs::create_dir_all(self.directory)?;
        fs::write(&image, bytes)?;

        let read = |who: &str, bytes: &[u8]| {
            diff_test::outcomes(bytes, &reset, programs).map_err(|error| anyhow!("{who}: {error}"))
        };
        let machine = read("the machine", &self.on_machine(&image)?)?;
        let guest = read("the guest", &self.in_guest(&image)?)?;
        let pair = |(machine, guest)| Pair { machine, guest };
        Ok(machine.into_iter().zip(guest).map(pair).collect())
    }

    /// The first of them that reads other values in the guest.
    fn first_that_differs(&self, programs: &[Program]) -> Result<Option<usize>> {
        let pairs = self.run(programs)?;
        Ok(pairs.iter().position(|pair| pair.difference().is_some()))
    }

    fn on_machine(&self, image: &Path) -> Result<Vec<u8>> {
        let boot = Boot {
            cpus: 1,
            ..Boot::of_cpu(self.cpu)
        };
        let directory = self.directory.join("machine");
        boot::bare(&boot, image, &directory, LIMIT)?;
        Ok(fs::read(directory.join("data"))?)
    }

    fn in_guest(&self, image: &Path) -> Result<Vec<u8>> {
        let job = Job {
            arguments: vec![self.provider.to_owned()],
            image: Some(image.to_owned()),
            ..Job::new("differential")
        };
        let boot = Boot::of_cpu(self.cpu);
        let outcome = boot::run(&boot, &job, &self.directory.join("guest"), LIMIT, false)?;
        if let Some(problem) = outcome.problem() {
            return Err(anyhow!(problem));
        }
        Ok(fs::read(outcome.out.join("results"))?)
    }
}

fn pmu(cpu: Cpu) -> &'static Pmu {
    match Machine::of(cpu) {
        Machine::Amd => &Pmu::AMD,
        Machine::Intel => &Pmu::INTEL,
    }
}

impl Fuzz<'_> {
    fn machines(&self) -> Machines<'_> {
        Machines {
            cpu: self.cpu,
            provider: self.provider,
            directory: self.directory,
        }
    }

    /// Runs the programs to the first that differs, which is shrunk.
    fn find(&self, progress: impl Fn(u64)) -> Result<Option<Found>> {
        let machines = self.machines();
        let mut begin = 0;
        while begin < self.programs {
            let end = self.programs.min(begin + BATCH);
            let programs: Vec<_> = (begin..end)
                .map(|index| diff_test::generate(pmu(self.cpu), self.seed, index, self.known))
                .collect();
            if let Some(at) = machines.first_that_differs(&programs)? {
                return self.shrink(begin + at as u64, &programs[at]).map(Some);
            }
            progress(end);
            begin = end;
        }
        Ok(None)
    }

    fn shrink(&self, index: u64, program: &Program) -> Result<Found> {
        let machines = self.machines();
        // What is left of it in the end may differ for another reason, one that is known.
        let lines: Vec<_> = program.iter().map(Op::to_string).collect();
        fs::write(self.directory.join("original"), lines.join("\n") + "\n")?;
        let program = diff_test::shrink(program.clone(), |programs| {
            machines.first_that_differs(programs)
        })?;
        let pairs = machines.run(std::slice::from_ref(&program))?;
        let difference = pairs[0].difference().context("it does not differ again")?;
        Ok(Found {
            seed: self.seed,
            index,
            program,
            difference,
        })
    }
}

impl Found {
    /// What `--replay` takes.
    fn text(&self) -> String {
        let mut text = format!("# seed {} program {}\n", self.seed, self.index);
        for op in &self.program {
            text.push_str(&format!("{op}\n"));
        }
        text.push_str(&format!("# {}\n", self.difference));
        text
    }
}

/// What is known to differ, with KVM's C code and with mvpmu: a selector is written through KVM,
/// which counts the WRMSR when it is done with it. So the WRMSR that lets a counter run counts
/// itself in a guest, and the one that stops it does not; on the machine it is the other way
/// round. This has to be here still, or the generator need not avoid it any more.
fn known(machines: &Machines) -> Result<Case> {
    let pmu = pmu(machines.cpu);
    let (selector, counter) = (pmu.selectors[0], &pmu.counters[0]);
    let enable = Op::Wrmsr(pmu.global_control, 1 << counter.bit);
    let on = Op::Wrmsr(selector, pmu.counts_instructions());
    let off = Op::Wrmsr(selector, 0);
    let read = Op::Rdpmc(counter.index);
    let programs = [
        // The counter is started, but not stopped, through its selector: 1 more in the guest.
        vec![enable, on, read],
        // It is stopped so too: 1 more and 1 less.
        vec![enable, on, off, read],
    ];
    let pairs = machines.run(&programs)?;
    let last = |values: &[u64]| values.last().copied().unwrap_or_default();
    let more: Vec<_> = pairs
        .iter()
        .map(|pair| last(&pair.guest).wrapping_sub(last(&pair.machine)))
        .collect();
    let name = "a WRMSR of a selector is counted under the new selector in a guest";
    Ok(Case::new(name, more == [1, 0], || {
        format!("the guest counts {more:?} more, not [1, 0]")
    }))
}

/// The group of `make test`.
pub fn test(cpu: Cpu, provider: &str, programs: u64, directory: &Path) -> Result<Vec<Case>> {
    let fuzz = Fuzz {
        cpu,
        provider,
        seed: SEED,
        programs,
        known: Known::Avoid,
        directory,
    };
    let name = format!("{programs} random programs read the same on the machine and in a guest");
    let found = fuzz.find(|_| {})?;
    let why = || found.as_ref().map(Found::text).unwrap_or_default();
    let random = Case::new(&name, found.is_none(), why);
    Ok(vec![random, known(&fuzz.machines())?])
}

/// `make fuzz`: whether no program differed.
pub fn fuzz(fuzz: &Fuzz) -> Result<bool> {
    let begin = Instant::now();
    let found = fuzz.find(|done| {
        println!(
            "{done} of {} programs, {} s",
            fuzz.programs,
            begin.elapsed().as_secs()
        );
    })?;
    let Some(found) = found else { return Ok(true) };
    let case: PathBuf = fuzz.directory.join("case");
    fs::write(&case, found.text())?;
    print!("{}", found.text());
    println!("It is in {}, for --replay.", case.display());
    Ok(false)
}

/// Runs a program from a file. Whether it read the same.
pub fn replay(fuzz: &Fuzz, file: &Path) -> Result<bool> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let program: Program = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().map_err(anyhow::Error::msg))
        .collect::<Result<_>>()?;
    let pairs = fuzz.machines().run(std::slice::from_ref(&program))?;
    ensure!(pairs.len() == 1, "one program has one outcome");
    let pair = &pairs[0];
    for (at, op) in program.iter().enumerate() {
        let (machine, guest) = (pair.machine[at], pair.guest[at]);
        let mark = if machine == guest { "" } else { "  differs" };
        println!("{at:4} {:40} {machine:#x} {guest:#x}{mark}", op.to_string());
    }
    Ok(pair.difference().is_none())
}
