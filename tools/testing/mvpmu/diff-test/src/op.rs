// SPDX-License-Identifier: GPL-2.0

//! Operations, as the interpreter takes them (machine-tests/diff/interpreter.c)
//! and as text.

use std::fmt;
use std::str::FromStr;

use crate::shrink::Operation;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// WRMSR: register and value.
    Wrmsr(u32, u64),
    /// RDMSR.
    Rdmsr(u32),
    /// RDPMC.
    Rdpmc(u32),
    /// So many times two instructions, of which one is a branch.
    Loop(u32),
    /// So many calls and returns.
    Calls(u32),
    /// So many bytes, copied by one instruction.
    Copy(u32),
    /// CPUID of a leaf; what it says is not compared.
    Cpuid(u32),
    /// A byte to a port.
    Out(u32),
    /// A byte from a port, which is not compared.
    In(u32),
    /// RDMSR of a register whose value is not compared.
    Touch(u32),
}

/// What is run from one reset of the PMU to the next.
pub type Program = Vec<Op>;

/// The names in text, in the order of the interpreter's numbers, which begin with 1.
const NAMES: [&str; 10] = [
    "wrmsr", "rdmsr", "rdpmc", "loop", "calls", "copy", "cpuid", "out", "in", "touch",
];

impl Op {
    /// The number of its kind, and its arguments.
    fn words(self) -> [u64; 3] {
        let (kind, a, b) = match self {
            Op::Wrmsr(msr, value) => (1, msr, value),
            Op::Rdmsr(msr) => (2, msr, 0),
            Op::Rdpmc(index) => (3, index, 0),
            Op::Loop(n) => (4, n, 0),
            Op::Calls(n) => (5, n, 0),
            Op::Copy(n) => (6, n, 0),
            Op::Cpuid(leaf) => (7, leaf, 0),
            Op::Out(port) => (8, port, 0),
            Op::In(port) => (9, port, 0),
            Op::Touch(msr) => (10, msr, 0),
        };
        [kind, a.into(), b]
    }
}

impl Operation for Op {
    fn simpler(&self) -> Vec<Op> {
        let number = |of: fn(u32) -> Op, n: u32| {
            let mut smaller = vec![1, n / 2, n.saturating_sub(1)];
            smaller.dedup();
            smaller.retain(|&m| m != 0 && m < n);
            smaller.into_iter().map(of).collect()
        };
        match *self {
            Op::Wrmsr(msr, value) => {
                let mut values = vec![0];
                // Without one of its bits.
                values.extend((0..64).map(|bit| value & !(1 << bit)));
                values.retain(|&other| other != value);
                values.dedup();
                let write = |value| Op::Wrmsr(msr, value);
                values.into_iter().map(write).collect()
            }
            Op::Loop(n) => number(Op::Loop, n),
            Op::Calls(n) => number(Op::Calls, n),
            Op::Copy(n) => number(Op::Copy, n),
            Op::Cpuid(leaf) if leaf != 0 => vec![Op::Cpuid(0)],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, a, b] = self.words();
        write!(f, "{} {a:#x}", NAMES[kind as usize - 1])?;
        match self {
            Op::Wrmsr(..) => write!(f, " {b:#x}"),
            _ => Ok(()),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Op, String> {
        let words: Vec<_> = text.split_whitespace().collect();
        let parse = || {
            let small = |at: usize| number(words.get(at)?).and_then(|n| u32::try_from(n).ok());
            Some(match (*words.first()?, words.len()) {
                ("wrmsr", 3) => Op::Wrmsr(small(1)?, number(words[2])?),
                ("rdmsr", 2) => Op::Rdmsr(small(1)?),
                ("rdpmc", 2) => Op::Rdpmc(small(1)?),
                ("loop", 2) => Op::Loop(small(1)?),
                ("calls", 2) => Op::Calls(small(1)?),
                ("copy", 2) => Op::Copy(small(1)?),
                ("cpuid", 2) => Op::Cpuid(small(1)?),
                ("out", 2) => Op::Out(small(1)?),
                ("in", 2) => Op::In(small(1)?),
                ("touch", 2) => Op::Touch(small(1)?),
                _ => return None,
            })
        };
        parse().ok_or_else(|| format!("not an operation: {text}"))
    }
}

/// The words that the interpreter finds its programs by.
const MAGIC: u64 = 0x4d41_5247_5046_4944;
/// Room for programs in the interpreter.
const ROOM: usize = 4 << 20;

/// The interpreter with programs in it, before each of which `reset` is run.
pub fn image(interpreter: &[u8], reset: &Program, programs: &[Program]) -> Result<Vec<u8>, String> {
    let mut place = MAGIC.to_le_bytes().to_vec();
    place.extend((!MAGIC).to_le_bytes());
    let at = interpreter
        .windows(place.len())
        .position(|window| window == place)
        .ok_or("the interpreter has no place for programs")?
        + place.len();

    let mut words = vec![programs.len() as u64];
    for program in programs {
        words.push((reset.len() + program.len()) as u64);
        words.extend(reset.iter().chain(program).flat_map(|op| op.words()));
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    if bytes.len() > ROOM {
        return Err(format!("{} programs are too many", programs.len()));
    }
    let mut image = interpreter.to_vec();
    image
        .get_mut(at..at + bytes.len())
        .ok_or("the interpreter ends before its programs")?
        .copy_from_slice(&bytes);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Op; 10] = [
        Op::Wrmsr(0xc001_0200, 0x43_00c0),
        Op::Rdmsr(0x38e),
        Op::Rdpmc(0x4000_0000),
        Op::Loop(10),
        Op::Calls(3),
        Op::Copy(100),
        Op::Cpuid(7),
        Op::Out(0x80),
        Op::In(0x80),
        Op::Touch(0x1b),
    ];

    // Has to fail with two names exchanged.
    #[test]
    fn what_is_written_can_be_read() {
        for op in ALL {
            assert_eq!(op.to_string().parse(), Ok(op));
        }
        assert!("wrmsr 1".parse::<Op>().is_err());
        assert!("rdpmc 0x100000000".parse::<Op>().is_err());
    }

    // Has to fail when the number of programs is not written.
    #[test]
    fn programs_are_put_behind_the_magic_words() {
        let mut interpreter = vec![0xcc; 10];
        interpreter.extend(MAGIC.to_le_bytes());
        interpreter.extend((!MAGIC).to_le_bytes());
        let begin = interpreter.len();
        interpreter.resize(begin + 100, 0);
        let image = image(&interpreter, &vec![Op::Loop(9)], &[vec![Op::Rdpmc(5)]]).unwrap();
        let words: Vec<_> = image[begin..begin + 64]
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(words, [1, 2, 4, 9, 0, 3, 5, 0]);
        assert_eq!(image[..begin], interpreter[..begin]);
    }

    // Has to fail when a number is among its own simpler ones: shrinking never ends.
    #[test]
    fn simpler_operations_are_others() {
        for op in ALL {
            assert!(!op.simpler().contains(&op));
        }
    }
}
