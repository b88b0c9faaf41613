// SPDX-License-Identifier: GPL-2.0

//! Makes a program that fails smaller as long as it still fails.
//!
//! To run programs is dear, to run many together is not: each round runs all
//! that are one step smaller, and goes on with the first that fails.

/// What programs are made of.
pub trait Operation: Clone {
    /// Operations that could take its place in a smaller program.
    fn simpler(&self) -> Vec<Self>;
}

/// The smallest program that can be found, from `program`, which fails. `first_that_fails` runs
/// programs and says which it was.
pub fn shrink<O: Operation, E>(
    program: Vec<O>,
    mut first_that_fails: impl FnMut(&[Vec<O>]) -> Result<Option<usize>, E>,
) -> Result<Vec<O>, E> {
    let mut smallest = program;
    let mut smaller = |mut programs: Vec<Vec<O>>| {
        if programs.is_empty() {
            return Ok(None);
        }
        let failed = first_that_fails(&programs)?;
        Ok(failed.map(|at| programs.swap_remove(at)))
    };
    loop {
        match smaller(shorter(&smallest))? {
            Some(program) => smallest = program,
            None => match smaller(simpler(&smallest))? {
                Some(program) => smallest = program,
                None => return Ok(smallest),
            },
        }
    }
}

/// The program without some operations in sequence, many at first.
fn shorter<O: Operation>(program: &[O]) -> Vec<Vec<O>> {
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
fn simpler<O: Operation>(program: &[O]) -> Vec<Vec<O>> {
    let mut programs = Vec::new();
    for (at, operation) in program.iter().enumerate() {
        for other in operation.simpler() {
            let mut changed = program.to_vec();
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

    /// When a loop of at least 5 comes before RDPMC.
    fn fails(program: &[Op]) -> bool {
        let long = |op: &Op| matches!(op, Op::Loop(5..));
        let begin = program.iter().position(long);
        begin.is_some_and(|begin| program[begin..].contains(&Op::Rdpmc(0)))
    }

    // Has to fail when operations are only left out and never made simpler, and the other way
    // round.
    #[test]
    fn a_program_is_shrunk_to_what_it_needs() {
        let mut program = vec![Op::Cpuid(0); 20];
        program.insert(3, Op::Loop(77));
        program.insert(9, Op::Rdpmc(0));
        let first =
            |programs: &[Vec<Op>]| Ok::<_, ()>(programs.iter().position(|program| fails(program)));
        assert_eq!(shrink(program, first), Ok(vec![Op::Loop(5), Op::Rdpmc(0)]));
    }
}
