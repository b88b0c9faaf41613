// SPDX-License-Identifier: GPL-2.0

//! What programs have read.

use std::fmt;

use crate::Program;

/// One value for each operation; those that read nothing have 0.
pub type Outcome = Vec<u64>;

/// On the machine, and in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// On the machine.
    pub machine: Outcome,
    /// In a guest.
    pub guest: Outcome,
}

/// Where the two first differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The operation.
    pub at: usize,
    /// What it read on the machine.
    pub machine: u64,
    /// What it read in a guest.
    pub guest: u64,
}

/// What the interpreter puts in the place of a value when there was #GP.
const FAULT: u64 = 0xfa17 << 48;

impl Pair {
    /// The first difference.
    pub fn difference(&self) -> Option<Difference> {
        self.machine
            .iter()
            .zip(&self.guest)
            .position(|(machine, guest)| machine != guest)
            .map(|at| Difference {
                at,
                machine: self.machine[at],
                guest: self.guest[at],
            })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value| match value {
            FAULT => "#GP".to_owned(),
            value => format!("{value:#x}"),
        };
        write!(
            f,
            "operation {}: {} on the machine, {} in a guest",
            self.at,
            show(self.machine),
            show(self.guest)
        )
    }
}

/// Reads what the interpreter has sent: for each program the number of its
/// operations, those of `reset` included, and their values.
pub fn outcomes(
    bytes: &[u8],
    reset: &Program,
    programs: &[Program],
) -> Result<Vec<Outcome>, String> {
    let mut words = bytes
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
    let mut all = Vec::new();
    for (index, program) in programs.iter().enumerate() {
        let length = reset.len() + program.len();
        if words.next() != Some(length as u64) {
            return Err(format!("no values of program {index}"));
        }
        let values: Outcome = words.by_ref().take(length).collect();
        if values.len() != length {
            return Err(format!("not all values of program {index}"));
        }
        all.push(values[reset.len()..].to_vec());
    }
    match words.next() {
        Some(_) => Err("values after the last program".to_owned()),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Op;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    // Has to fail when the number of operations is taken for a value.
    #[test]
    fn values_belong_to_their_programs() {
        let programs = [vec![Op::Rdpmc(0)], vec![Op::Rdpmc(0), Op::Rdpmc(1)]];
        let reset = vec![Op::Wrmsr(0, 0)];
        let read = outcomes(&bytes(&[2, 0, 7, 3, 0, 8, 9]), &reset, &programs);
        assert_eq!(read, Ok(vec![vec![7], vec![8, 9]]));
    }

    // Has to fail when the end is not looked at.
    #[test]
    fn missing_and_superfluous_values_are_errors() {
        let programs = [vec![Op::Rdpmc(0)]];
        for words in [&[][..], &[1], &[2, 7], &[1, 7, 8]] {
            assert!(
                outcomes(&bytes(words), &Vec::new(), &programs).is_err(),
                "{words:?}"
            );
        }
    }

    // Has to fail when the last difference is taken.
    #[test]
    fn the_first_difference_counts() {
        let pair = Pair {
            machine: vec![1, 2, 3],
            guest: vec![1, FAULT, 4],
        };
        let text = "operation 1: 0x2 on the machine, #GP in a guest";
        assert_eq!(pair.difference().unwrap().to_string(), text);
    }
}
