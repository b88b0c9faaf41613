// SPDX-License-Identifier: GPL-2.0

//! Makes a program that differs smaller as long as it still differs.
//!
//! To run programs is dear, to run many together is not: each round runs all
//! that are one step smaller, and goes on with the smallest that differs.

use crate::Program;
use crate::Run;

/// The smallest program that can be found, from `program`, which differs.
pub fn shrink<R: Run>(runner: &mut R, program: Program) -> Result<Program, R::Error> {
    let mut smallest = program;
    loop {
        match first_that_differs(runner, shorter(&smallest))? {
            Some(program) => smallest = program,
            None => match first_that_differs(runner, simpler(&smallest))? {
                Some(program) => smallest = program,
                None => return Ok(smallest),
            },
        }
    }
}

fn first_that_differs<R: Run>(
    runner: &mut R,
    programs: Vec<Program>,
) -> Result<Option<Program>, R::Error> {
    if programs.is_empty() {
        return Ok(None);
    }
    let pairs = runner.run(&programs)?;
    Ok(programs
        .into_iter()
        .zip(pairs)
        .find(|(_, pair)| pair.difference().is_some())
        .map(|(program, _)| program))
}

/// The program without some operations in sequence, many at first.
fn shorter(program: &Program) -> Vec<Program> {
    let mut programs = Vec::new();
    let mut length = program.len().div_ceil(2);
    while length > 0 {
        for begin in (0..program.len()).step_by(length) {
            let end = program.len().min(begin + length);
            let rest = [&program[..begin], &program[end..]].concat();
            if !rest.is_empty() {
                programs.push(rest);
            }
        }
        length /= 2;
    }
    programs
}

/// The program with one operation that is simpler.
fn simpler(program: &Program) -> Vec<Program> {
    let mut programs = Vec::new();
    for (at, op) in program.iter().enumerate() {
        for other in op.simpler() {
            let mut changed = program.clone();
            changed[at] = other;
            programs.push(changed);
        }
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Op;
    use crate::Pair;

    /// Differs when a loop of at least 5 comes before RDPMC.
    struct Model;

    impl Run for Model {
        type Error = ();

        fn run(&mut self, programs: &[Program]) -> Result<Vec<Pair>, ()> {
            let differs = |program: &Program| {
                let long = |op: &Op| matches!(op, Op::Loop(5..));
                let begin = program.iter().position(long)?;
                program[begin..].contains(&Op::Rdpmc(0)).then_some(())
            };
            let pair = |program| Pair {
                machine: vec![0],
                guest: vec![u64::from(differs(program).is_some())],
            };
            Ok(programs.iter().map(pair).collect())
        }
    }

    // Has to fail when operations are only left out and never made simpler, and the other way
    // round.
    #[test]
    fn a_difference_is_shrunk_to_what_it_needs() {
        let mut program = vec![Op::Cpuid(0); 20];
        program.insert(3, Op::Loop(77));
        program.insert(9, Op::Rdpmc(0));
        let small = shrink(&mut Model, program).unwrap();
        assert_eq!(small, [Op::Loop(5), Op::Rdpmc(0)]);
    }
}
